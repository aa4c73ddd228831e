"""What a task with a network asks of the machine: a torch device, and how many threads it may use."""

from __future__ import annotations

import os

import torch

from .task import ModelError


def torch_device(name: str) -> torch.device:
    """Return the torch device; raises ModelError when this machine has none of that name."""
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(name, False):
        raise ModelError(f"Device {name!r} is not available here.", "Choose DEVICE auto or cpu.")
    return torch.device(name)


def use_threads() -> None:
    """Leave one core to the GUI where there are more than two, never more threads than asked for.

    On two cores one thread instead of two costs 1.77 times the time (ENGINE.md, section 5), and a
    QGIS that waits for a child process has little to draw: there both are used. A smaller number
    set before (OMP_NUM_THREADS) stays.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = cores - 1 if cores > 2 else cores
    torch.set_num_threads(min(torch.get_num_threads(), allowed))
