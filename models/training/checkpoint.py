"""A training's state in one safetensors file: weights, average, optimiser, step; never a pickle."""

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
from .ema import Ema

#: Raised when the layout of the file changes.
LAYOUT = 2


def save_checkpoint(
    path: Path,
    net: nn.Module,
    ema: Ema[Any],
    optimiser: torch.optim.Optimizer,
    state: Mapping[str, Any],
    loss: nn.Module | None = None,
) -> None:
    """Write everything a resumed run needs, atomically; ``state`` is JSON (step, seconds, config).

    ``loss``: a loss that remembers something between steps. The batches' random numbers must follow
    from the seed and the step; torch's generator is kept as well.
    """
    tensors: dict[str, Tensor] = {"random.torch": torch.get_rng_state()}
    for prefix, items in (
        ("model", net.state_dict()),
        ("ema", ema.net.state_dict()),
        ("optimiser", optimiser_state(net, optimiser)),
        ("loss", {} if loss is None else loss.state_dict()),
    ):
        tensors |= {f"{prefix}.{name}": t.detach().contiguous().cpu().clone() for name, t in items.items()}
    meta = {"layout": LAYOUT, "ema_updates": ema.updates, **state}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, metadata={"kestrel_checkpoint": json.dumps(meta)})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def is_checkpoint(path: Path) -> bool:
    """Say whether ``path`` is a checkpoint of any layout, rather than a weight file or anything else."""
    try:
        with safe_open(path, "pt") as file:
            return "kestrel_checkpoint" in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


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


def drop_unreadable(path: Path) -> None:
    """Remove a checkpoint that is none any more: nobody could tell a toolbox to start anew."""
    if path.exists():
        try:
            read_state(path)
        except ModelError:
            path.unlink()


def load_checkpoint(
    path: Path,
    net: nn.Module,
    ema: Ema[Any],
    optimiser: torch.optim.Optimizer,
    loss: nn.Module | None = None,
) -> dict[str, Any]:
    """Fill network, average, optimiser and loss from ``path`` and return the JSON state."""
    state = read_state(path)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimiser": {}, "loss": {}, "random": {}}
    with safe_open(path, "pt") as file:
        for key in file.keys():
            prefix, _, name = key.partition(".")
            parts.setdefault(prefix, {})[name] = file.get_tensor(key)
    try:
        net.load_state_dict(parts["model"])
        ema.net.load_state_dict(parts["ema"])
        if loss is not None:
            loss.load_state_dict(parts["loss"])
    except RuntimeError as error:
        raise ModelError(f"{path} belongs to another network.", "Start the training anew.") from error
    load_optimiser_state(net, optimiser, parts["optimiser"])
    torch.set_rng_state(parts["random"]["torch"])
    ema.updates = int(state["ema_updates"])
    return state


def load_average(path: Path, net: nn.Module) -> dict[str, Any]:
    """Fill ``net`` with a checkpoint's averaged weights and return the JSON state."""
    state = read_state(path)
    with safe_open(path, "pt") as file:
        names = [k for k in file.keys() if k.startswith("ema.")]
        try:
            net.load_state_dict({k.removeprefix("ema."): file.get_tensor(k) for k in names})
        except RuntimeError as error:
            raise ModelError(f"{path} belongs to another network.", "Choose another checkpoint.") from error
    return state


def optimiser_state(net: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser remembers, as ``<slot>.<parameter's name>``; no slot has a dot in its name."""
    state = optimiser.state
    return {
        f"{slot}.{name}": value
        for name, p in net.named_parameters()
        if p in state
        for slot, value in state[p].items()
        if isinstance(value, Tensor)
    }


def load_optimiser_state(
    net: nn.Module, optimiser: torch.optim.Optimizer, found: Mapping[str, Tensor]
) -> None:
    """Give the optimiser back what :func:`optimiser_state` returned."""
    named = dict(net.named_parameters())
    for key, value in found.items():
        slot, _, name = key.partition(".")
        p = named[name]
        # on the parameter's device, in its memory format; counters stay on the CPU, as torch has them
        like = torch.empty_like(p) if value.shape == p.shape else torch.empty_like(value)
        optimiser.state[p][slot] = like.copy_(value).detach()
