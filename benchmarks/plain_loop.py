"""The loop a user writes with rasterio and torch: the raster engine's measure of worth.

Read everything, forward overlapping tiles, add them up beside a map of counts, divide, write. No
thread, no nodata, no part file; sums in float64, as ENGINE.md's "usual way" has them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio


def plain_loop(
    path: Path,
    out: Path,
    predict: Callable[[np.ndarray], list[np.ndarray]],
    output: str,
    tile: int,
    overlap: int,
    batch: int,
) -> None:
    """Run ``predict``, (B, C, T, T) to B times (C_out, T, T), over an 8-bit raster of at least a tile.

    ``output``: ``scores`` writes the mean as float32, ``classes`` the best band's index, ``raster`` the
    mean as 8 bits.
    """
    with rasterio.open(path) as source:
        image = source.read().astype(np.float32) / 255
        profile = source.profile
    _, height, width = image.shape
    places = [(y, x) for y in starts(height, tile, overlap) for x in starts(width, tile, overlap)]
    total, count = None, np.zeros((height, width))
    for i in range(0, len(places), batch):
        chosen = places[i : i + batch]
        tiles = np.stack([image[:, y : y + tile, x : x + tile] for y, x in chosen])
        for (y, x), answer in zip(chosen, predict(tiles), strict=True):
            if total is None:
                total = np.zeros((len(answer), height, width))
            total[:, y : y + tile, x : x + tile] += answer
            count[y : y + tile, x : x + tile] += 1
    assert total is not None
    mean = total / count
    if output == "scores":
        result = mean.astype(np.float32)
    elif output == "classes":
        result = mean.argmax(axis=0).astype(np.uint8)[None]
    else:
        result = (mean * 255).round().clip(0, 255).astype(np.uint8)
    profile.update(count=len(result), dtype=result.dtype, compress="deflate")
    with rasterio.open(out, "w", **profile) as target:
        target.write(result)


def starts(size: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles begin along an axis; the last one is moved back to end with it."""
    return [*range(0, size - tile, tile - overlap), size - tile]
