"""What every paper's weight files share: where a training starts, what its card tells, how it is stored."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ..task import Card, ModelError
from ..weights import save_weights
from .checkpoint import load_average, read_state

Net = TypeVar("Net", bound=nn.Module)


def average_of(path: Path, make: Callable[..., Net]) -> tuple[Net, dict[str, Any], str]:
    """Return a checkpoint's average, its state, and what it is told as: ``<file>@<12 of its sha256>``.

    Raises ModelError where the file is of another version or network.
    """
    state = read_state(path)
    net = make(**state["network"])
    load_average(path, net)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return net, state, f"{path.name}@{sha256[:12]}"


def preset_among(
    presets: Mapping[str, Mapping[str, Any]], make: Callable[..., Any], network: Mapping[str, Any]
) -> str:
    """Return which of ``presets`` builds a network of these arguments, else ``custom``."""
    for name, arguments in presets.items():
        if make(**arguments).config == dict(network):
            return name
    return "custom"


def training_facts(training: Mapping[str, Any], note: str) -> dict[str, Any]:
    """Return what a card's ``extra`` says of a training, ``training`` being its checkpoint's state.

    Raises ModelError where the state is not a training's.
    """
    try:
        config, crops, steps = training["config"], training["data"], int(training["step"])
        return {
            "training": {key: value for key, value in config.items() if key != "network"},
            "crops": dict(crops),
            "started_from": training.get("start", ""),
            "steps": steps,
            "crops_seen": steps * int(crops["batch"]),
            "seconds": round(float(training["seconds"])),
            "note": note,
        }
    except KeyError as error:
        raise ModelError(f"The training's state lacks {error}.") from error


def as_stored(net: Net) -> Net:
    """Return a copy with the parameters of the file: half precision, computed in float32."""
    stored = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in stored.parameters():
            parameter.copy_(parameter.half().float())
    return stored


def write_weights(path: Path, net: nn.Module, card: Card) -> str:
    """Write a weight file in half precision, buffers in float32, and return its sha256."""
    return save_weights(path, net.state_dict(), card, dict(net.named_buffers()))
