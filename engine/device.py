"""Which device computes, and how many tiles at once: the engine's only knowledge of torch."""

from __future__ import annotations

import sys
from typing import Any

from .errors import EngineError

DEVICES = ("auto", "cpu", "cuda", "mps")

#: Float32 values a detector keeps per input pixel while it works, generously: a batch that is too
#: large only costs the back-off, a small one costs speed.
VALUES_PER_PIXEL = 400
GPU_BATCH_MAX = 16


def resolve_device(asked: str, weights: bool) -> str:
    """Return ``cpu``, ``cuda`` or ``mps``; raises EngineError when the one asked for is missing.

    A model without ``weights`` is classical and runs without torch, on the CPU.
    """
    if asked not in DEVICES:
        raise EngineError(
            "parameter", f"DEVICE {asked!r} is none of {', '.join(DEVICES)}.", "Choose auto or cpu."
        )
    if asked == "cpu" or not weights:
        return "cpu"
    torch = _torch()
    cuda = torch.cuda.is_available()
    if asked == "auto":
        return "cuda" if cuda else "cpu"
    available = cuda if asked == "cuda" else torch.backends.mps.is_available()
    if not available:
        raise EngineError(
            "device",
            f"DEVICE {asked} was asked for, but torch {torch.__version__} finds none on this computer.",
            "Choose auto or cpu, or install a torch built for it.",
        )
    return asked


def automatic_batch(device: str, tile: tuple[int, int]) -> int:
    """Return tiles per batch: 1 on a CPU (measured best), by free memory on a GPU."""
    if device != "cuda":
        return 1
    free, _ = _torch().cuda.mem_get_info()
    return int(max(1, min(GPU_BATCH_MAX, free * 0.5 // (tile[0] * tile[1] * 4 * VALUES_PER_PIXEL))))


def release_memory(device: str) -> None:
    """Give cached GPU memory back after a failed batch."""
    if device == "cuda":
        _torch().cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell a shortage of memory from other errors; torch's CPU allocator raises RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise EngineError(
            "runtime",
            f"The Python {sys.executable} cannot import torch ({error}).",
            "See Kestrel > Runtime status for what to install, or use a classical method.",
        ) from None
    return torch
