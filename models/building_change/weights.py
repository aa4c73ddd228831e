"""SSA-Net's weight files: what their card says, and what a training can start from."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..task import Card, ModelError
from ..training.checkpoint import is_checkpoint, load_average, read_state
from ..weights import find_weights, load_weights, save_weights
from .complexity import parameters
from .network import PRESETS, SSANet
from .task import DEFAULT_WEIGHTS, build_network, normalisation

PAPER = "08: SSA-Net, spatial and spectral attention for building change detection (Qinling, QL-CD)"
#: The side of the tiles the engine cuts.
TILE = 256
#: Metres: half to twice the 0.5 m of the training pictures.
GSD = (0.25, 1.0)
SCALING = "stretched to 0..1, one stretch for both dates; then the training set's mean and deviation"


@dataclass(frozen=True)
class Start:
    """Weights to begin from: network's arguments, state, (mean, std) of its input, file, pixel sizes in m."""

    network: dict[str, Any]
    tensors: dict[str, Tensor]
    normal: tuple[Sequence[float], Sequence[float]]
    source: str
    gsd: tuple[float, float] = GSD


def read_start(typed: str) -> Start:
    """Read what a training begins from: WEIGHTS as typed (name or path), or a checkpoint's average.

    Raises ModelError where the file is neither, or does not fit its own description.
    """
    path = Path(typed).expanduser()
    if path.is_file() and is_checkpoint(path):
        state = read_state(path)
        net = SSANet(**state["network"])
        load_average(path, net)
        source = f"{path.name}@{_sha256(path)[:12]}"
        return Start(net.config, dict(net.state_dict()), (state["mean"], state["std"]), source)
    loaded = load_weights(*find_weights(typed, DEFAULT_WEIGHTS))
    net = build_network(loaded)
    normal = normalisation(loaded.card, loaded.path.name)
    return Start(net.config, dict(net.state_dict()), normal, loaded.model_id, loaded.card.gsd)


def preset_of(network: Mapping[str, Any]) -> str:
    """Return the preset that has these arguments, else ``custom``."""
    for name, arguments in PRESETS.items():
        if SSANet(**arguments).config == dict(network):
            return name
    return "custom"


def describe(
    net: SSANet,
    *,
    name: str,
    data: Sequence[Mapping[str, Any]],
    training: Mapping[str, Any],
    threshold: float,
    command: str,
    limits: str,
    version: str = "1",
    figures: Mapping[str, Any] | None = None,
    status: Literal["released", "preliminary"] = "preliminary",
    gsd: tuple[float, float] = GSD,
    tile: int = TILE,
    note: str = "",
) -> Card:
    """Return the card of trained weights; ``training`` is a checkpoint's state (trainer.Result.state).

    ``data``: each source with licence, count and whether it is real. ``threshold``: the probability
    that did best on the validation pairs. Raises ModelError where the state is not a training's.
    """
    try:
        config, crops = training["config"], training["data"]
        seen = int(training["step"]) * int(crops["batch"])
        normal = {key: [float(value) for value in training[key]] for key in ("mean", "std")}
    except KeyError as error:
        raise ModelError(f"The training's state lacks {error}.") from error
    return Card(
        name=name,
        version=version,
        paper=PAPER,
        preset=preset_of(net.config),
        parameters=parameters(net),
        classes=("change",),
        bands=3,
        gsd=gsd,
        scaling=SCALING,
        tile=tile,
        data=tuple(data),
        seed=int(config["seed"]),
        command=command,
        figures=dict(figures or {}),
        limits=limits,
        status=status,
        extra={
            "config": net.config,
            **normal,
            "threshold": threshold,
            "training": {k: v for k, v in config.items() if k != "network"},
            "crops": dict(crops),
            "best": training.get("best"),
            "started_from": training.get("start", ""),
            "steps": int(training["step"]),
            "crops_seen": seen,
            "seconds": round(float(training["seconds"])),
            "note": note,
        },
    )


def as_stored(net: SSANet) -> SSANet:
    """Return a copy with the parameters of the file: half precision, computed in float32."""
    stored = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in stored.parameters():
            parameter.copy_(parameter.half().float())
    return stored


def write_weights(path: Path, net: SSANet, card: Card) -> str:
    """Write a weight file in half precision, buffers in float32, and return its sha256."""
    return save_weights(path, net.state_dict(), card, dict(net.named_buffers()))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
