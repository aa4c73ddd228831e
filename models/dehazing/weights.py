"""DWTMA-Net's weight files: what their card says, and what a training can start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ..task import Card
from ..training.checkpoint import is_checkpoint
from ..training.weights import as_stored, average_of, preset_among, training_facts, write_weights
from ..weights import find_weights, load_weights
from .attention import FOURIER_READING
from .complexity import parameters
from .network import PRESETS, DWTMANet
from .task import DEFAULT_WEIGHTS, build_network

__all__ = ["Start", "as_stored", "describe", "preset_of", "read_start", "write_weights"]

PAPER = (
    "07: DWTMA-Net, discrete wavelet transform and multi-dimensional attention for dehazing of remote "
    "sensing images"
)
#: The side of the tiles the engine cuts.
TILE = 512
#: Metres: fine aerial pictures to Landsat, what the shipped weights saw.
GSD = (0.3, 30.0)
OUTPUTS = ("dehazed red", "dehazed green", "dehazed blue")
SCALING = "stretched to 0..1, the same stretch back: 0..255 for 8 bit, else each band's 2-98 percentile"


@dataclass(frozen=True)
class Start:
    """Weights to begin from: the network's arguments, its state, and which file they came from."""

    network: dict[str, Any]
    tensors: dict[str, Tensor]
    source: str


def read_start(typed: str) -> Start:
    """Read what a training begins from: WEIGHTS as typed (name or path), or a checkpoint's average.

    Raises ModelError where the file is neither, or does not fit its own description.
    """
    path = Path(typed).expanduser()
    if path.is_file() and is_checkpoint(path):
        net, _, source = average_of(path, DWTMANet)
        return Start(net.config, dict(net.state_dict()), source)
    loaded = load_weights(*find_weights(typed, DEFAULT_WEIGHTS))
    net = build_network(loaded)
    return Start(net.config, dict(net.state_dict()), loaded.model_id)


def preset_of(network: Mapping[str, Any]) -> str:
    """Return the preset that has these arguments, else ``custom``."""
    return preset_among(PRESETS, DWTMANet, network)


def describe(
    net: DWTMANet,
    *,
    name: str,
    data: Sequence[Mapping[str, Any]],
    training: Mapping[str, Any],
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

    ``data``: each source with licence, count and whether it is real. Raises ModelError where the
    state is not a training's.
    """
    facts = training_facts(training, note)
    facts["crops"].pop("ranges", None)
    return Card(
        name=name,
        version=version,
        paper=PAPER,
        preset=preset_of(net.config),
        parameters=parameters(net),
        classes=OUTPUTS,
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
            "fourier_attention": FOURIER_READING,
            **facts,
        },
    )
