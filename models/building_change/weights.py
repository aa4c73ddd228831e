"""SSA-Net's weight files: what their card says, and what a training can start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ..task import Card, ModelError
from ..training.checkpoint import is_checkpoint
from ..training.weights import as_stored, average_of, preset_among, training_facts, write_weights
from ..weights import find_weights, load_weights
from .complexity import parameters
from .network import PRESETS, SSANet
from .task import DEFAULT_WEIGHTS, build_network, normalisation

__all__ = ["Start", "as_stored", "describe", "preset_of", "read_start", "write_weights"]

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
        net, state, source = average_of(path, SSANet)
        return Start(net.config, dict(net.state_dict()), (state["mean"], state["std"]), source)
    loaded = load_weights(*find_weights(typed, DEFAULT_WEIGHTS))
    net = build_network(loaded)
    normal = normalisation(loaded.card, loaded.path.name)
    return Start(net.config, dict(net.state_dict()), normal, loaded.model_id, loaded.card.gsd)


def preset_of(network: Mapping[str, Any]) -> str:
    """Return the preset that has these arguments, else ``custom``."""
    return preset_among(PRESETS, SSANet, network)


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
    facts = training_facts(training, note)
    try:
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
        seed=int(facts["training"]["seed"]),
        command=command,
        figures=dict(figures or {}),
        limits=limits,
        status=status,
        extra={
            "config": net.config,
            **normal,
            "threshold": threshold,
            "best": training.get("best"),
            **facts,
        },
    )
