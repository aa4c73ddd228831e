"""The C library's allocator: what it should keep, and what it should give back."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

#: glibc maps every block over 32 MB anew and returns its pages at once; the activations of a network are
#: larger. Keeping up to 128 MB took a run of a U-Net from 11.6 to 9.8 s (two pairs of runs by hand).
KEPT_BYTES = 128 << 20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_large() -> None:
    """Let glibc keep large freed blocks for the next layer; for processes that are Kestrel's alone."""
    change = _function("mallopt")
    if change is not None:
        change(M_MMAP_THRESHOLD, KEPT_BYTES)
        change(M_TRIM_THRESHOLD, 2 * KEPT_BYTES)


def give_back() -> None:
    """Ask glibc to return what was freed; elsewhere nothing happens.

    GDAL's blocks are malloc'ed one by one, and what one thread freed does not serve the next: after the
    statistics a reader thread fills a second cache of the same size beside the first one's holes
    (observed: 64 MB, glibc 2.36).
    """
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


@functools.cache
def _function(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):  # Windows, macOS, musl
        return None
