"""A training's state in one safetensors file: weights, average, momenta, loss, step; never a pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..task import ModelError
from .schedule import Ema, named_momenta

#: Raised when the layout of the file changes.
LAYOUT = 1


def save_checkpoint(
    path: Path,
    net: nn.Module,
    ema: Ema[Any],
    optimiser: torch.optim.Optimizer,
    loss: nn.Module,
    state: Mapping[str, Any],
) -> None:
    """Write everything a resumed run needs, atomically; ``state`` is JSON (step, seconds, config).

    The batches' random numbers follow from the seed and the step; torch's generator is kept as well.
    """
    tensors: dict[str, Tensor] = {"random.torch": torch.get_rng_state()}
    for prefix, items in (
        ("model", net.state_dict()),
        ("ema", ema.net.state_dict()),
        ("momentum", named_momenta(net, optimiser)),
        ("loss", loss.state_dict()),
    ):
        tensors |= {f"{prefix}.{name}": t.detach().contiguous().cpu().clone() for name, t in items.items()}
    meta = {"layout": LAYOUT, "ema_updates": ema.updates, **state}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    save_file(tensors, part, metadata={"kestrel_checkpoint": json.dumps(meta)})
    os.replace(part, path)


def read_state(path: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint; raises ModelError where the file is not one."""
    try:
        with safe_open(path, "pt") as file:
            state = json.loads((file.metadata() or {})["kestrel_checkpoint"])
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"{path} is not a training checkpoint: {error}.", "Start the training anew."
        ) from error
    if state.get("layout") != LAYOUT:
        raise ModelError(f"{path} was written by another version of Kestrel.", "Start the training anew.")
    return state


def load_checkpoint(
    path: Path, net: nn.Module, ema: Ema[Any], optimiser: torch.optim.Optimizer, loss: nn.Module
) -> dict[str, Any]:
    """Fill network, average, optimiser and loss from ``path`` and return the JSON state."""
    state = read_state(path)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "momentum": {}, "loss": {}, "random": {}}
    with safe_open(path, "pt") as file:
        for key in file.keys():
            prefix, _, name = key.partition(".")
            parts.setdefault(prefix, {})[name] = file.get_tensor(key)
    try:
        net.load_state_dict(parts["model"])
        ema.net.load_state_dict(parts["ema"])
        loss.load_state_dict(parts["loss"])
    except RuntimeError as error:
        raise ModelError(f"{path} belongs to another network.", "Start the training anew.") from error
    for name, p in net.named_parameters():
        if name in parts["momentum"]:
            optimiser.state[p]["momentum_buffer"] = parts["momentum"][name].to(p.device)
    torch.set_rng_state(parts["random"]["torch"])
    ema.updates = int(state["ema_updates"])
    return state


def load_average(path: Path, net: nn.Module) -> dict[str, Any]:
    """Fill ``net`` with a checkpoint's averaged weights and return the JSON state."""
    state = read_state(path)
    with safe_open(path, "pt") as file:
        names = [k for k in file.keys() if k.startswith("ema.")]
        net.load_state_dict({k.removeprefix("ema."): file.get_tensor(k) for k in names})
    return state
