"""Freed memory back to the system, where the allocator would keep it."""

from __future__ import annotations

import ctypes
import functools
from typing import Any


def give_back() -> None:
    """Ask glibc to return what was freed; elsewhere nothing happens.

    GDAL's blocks are malloc'ed one by one, and what one thread freed does not serve the next: after the
    statistics a reader thread fills a second cache of the same size beside the first one's holes
    (observed: 64 MB, glibc 2.36).
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # Windows, macOS, musl
        return None
