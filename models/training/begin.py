"""Where a training begins: its folder, its network, and what tells it from every other one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import Field, asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..task import ModelError

#: Settings that may differ when a training goes on: where it computes, how often it saves and logs.
ELSEWHERE = ("device", "log_steps", "checkpoint_seconds")

Net = TypeVar("Net", bound=nn.Module)


class Config(Protocol):
    """What the loop reads of a training's configuration, a dataclass that JSON can hold.

    The budget: ``steps``, ``minutes``, or what ends first of both.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def network(self) -> Mapping[str, Any]:
        """The network's arguments."""

    @property
    def steps(self) -> int:
        """Of the budget; 0 = no limit."""

    @property
    def minutes(self) -> float:
        """Of the budget; 0 = no limit."""

    @property
    def lr(self) -> float:
        """The highest learning rate."""

    @property
    def seed(self) -> int:
        """Of the network's first weights."""

    @property
    def device(self) -> str:
        """As torch names it."""

    @property
    def log_steps(self) -> int:
        """Steps of one line of the log."""

    @property
    def checkpoint_seconds(self) -> float:
        """Between two checkpoints."""


def begin(make: Callable[..., Net], config: Config, start: Mapping[str, Tensor] | None) -> Net:
    """Return the network to train, on its device: weights from the seed, or ``start``'s.

    Raises ModelError for arguments that describe no network and weights that belong to another.
    """
    torch.manual_seed(config.seed)
    try:
        net = make(**config.network)
    except (TypeError, ValueError) as error:
        raise ModelError(f"The network cannot be built: {error}.", "Choose a preset.") from error
    if start is not None:
        try:
            net.load_state_dict(dict(start))
        except RuntimeError as error:
            raise ModelError(
                "The weights to start from belong to another network.",
                "Choose the preset they were made with.",
            ) from error
    placed: Net = net.to(config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def described(
    config: Config, network: Mapping[str, Any], data: Mapping[str, Any], start: Mapping[str, Tensor] | None
) -> dict[str, Any]:
    """Return what tells one training from another: settings, network, data, and what it began from."""
    return {
        "config": asdict(config),
        "network": dict(network),
        "data": dict(data),
        "start": "" if start is None else digest(start.values()),
    }


def digest(arrays: Any) -> str:
    """Return a hash of arrays' or tensors' values."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def essence(state: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """Return the part of a state that makes a training what it is."""
    config = {key: value for key, value in state["config"].items() if key not in ELSEWHERE}
    return {**{key: state.get(key) for key in keys}, "config": config}


def prepare_folder(out: Path, names: tuple[str, ...], resume: bool) -> None:
    """Make the folder of a training; without ``resume`` remove what another one left there."""
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        for name in names:
            (out / name).unlink(missing_ok=True)


def check_budget(config: Config) -> None:
    """Refuse a training without an end; raises ModelError."""
    if not (config.steps > 0 or config.minutes > 0):
        raise ModelError("The training has no end.", "Give a number of steps or minutes.")
