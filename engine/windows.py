"""Weights of overlapping tiles: a partition of unity along each axis (ENGINE.md, section 1).

Grid and weights are products of two axes, so the sum of weights at a pixel is the product of two
sums: dividing the 1-D weights once, when planning, makes every sum 1. Neither a count map nor a
final division nor an epsilon is needed, and no pixel has weight 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class AxisWindow:
    """The part of one tile that counts along one axis, in output pixels.

    ``tile_start``: where the tile begins. ``start``: the first pixel with a weight. ``weights``:
    float32 (n,), all above 0.
    """

    tile_start: int
    start: int
    weights: np.ndarray

    @property
    def stop(self) -> int:
        """Return the pixel behind the last with a weight."""
        return self.start + len(self.weights)


def axis_windows(
    size: int, starts: Sequence[int], tile: int, overlap: int, margin: int, factor: int = 1
) -> tuple[AxisWindow, ...]:
    """Return the weights of the tiles that begin at ``starts`` on an axis of ``size`` input pixels.

    On a side that faces another tile ``margin`` pixels are dropped and the weights rise linearly over
    the rest of the overlap, with half a pixel's offset so that none is 0; on the raster's border the
    tile keeps its edge. With an overlap of twice the margin nothing is left to rise over: tiles are
    cut in the middle. ``factor``: output pixels for each input pixel.
    """
    length = min(tile, size) * factor
    ramp = (overlap - 2 * margin) * factor
    rise = (np.arange(ramp) + 0.5) / max(1, ramp)
    total = np.zeros(size * factor)
    raw = []
    for number, start in enumerate(starts):
        left = margin * factor if number else 0
        right = margin * factor if number + 1 < len(starts) else 0
        weights = np.ones(length - left - right)
        if number:
            weights[:ramp] = np.minimum(weights[:ramp], rise)
        if number + 1 < len(starts):
            weights[len(weights) - ramp :] = np.minimum(weights[len(weights) - ramp :], rise[::-1])
        first = start * factor + left
        total[first : first + len(weights)] += weights
        raw.append((start * factor, first, weights))
    return tuple(
        AxisWindow(tile_start, first, (weights / total[first : first + len(weights)]).astype(np.float32))
        for tile_start, first, weights in raw
    )
