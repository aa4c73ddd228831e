"""Tiles become rows: overlapping answers are added with their weights, finished rows leave.

After a grid row no later tile touches the rows above the next one, so a strip of a tile's height is
all that is kept (ENGINE.md, section 1). Rows leave in blocks of the file, ready to be written.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .windows import AxisWindow

#: Rows and columns of the file's blocks; what leaves the strip starts and ends on them.
BLOCK = 256


class Strip:
    """Float32 (C, rows, W) that rolls down a piece of the output.

    Rows and columns are output pixels of the whole raster. ``origin``: the row from which blocks are
    counted (the output's first). Memory: C * (T + BLOCK) * W * 4 bytes.
    """

    def __init__(self, channels: int, rows: tuple[int, int], cols: tuple[int, int], origin: int, tile: int):
        """Cover output rows and columns [first, behind-last) with tiles of ``tile`` output rows."""
        assert (rows[0] - origin) % BLOCK == 0
        self._top, self._end = rows
        self._left, self._right = cols
        self._origin = origin
        height = min(rows[1] - rows[0], tile + BLOCK)
        self._sums = np.zeros((channels, height, cols[1] - cols[0]), np.float32)
        self._touched = 0  # buffer rows, from the top, that any tile may have written

    def add(self, answer: np.ndarray, rows: AxisWindow, cols: AxisWindow) -> None:
        """Add one tile's answer (C, h, w), its first pixel at the windows' ``tile_start``."""
        top, bottom = max(rows.start, self._top), min(rows.stop, self._end)
        left, right = max(cols.start, self._left), min(cols.stop, self._right)
        if top >= bottom or left >= right:
            return
        wy = rows.weights[top - rows.start : bottom - rows.start, None]
        wx = cols.weights[left - cols.start : right - cols.start]
        part = answer[
            :,
            top - rows.tile_start : bottom - rows.tile_start,
            left - cols.tile_start : right - cols.tile_start,
        ]
        place = self._sums[:, top - self._top : bottom - self._top, left - self._left : right - self._left]
        place += part * (wy * wx)
        self._touched = max(self._touched, bottom - self._top)

    def finish(self, until: int) -> Iterator[tuple[int, int, np.ndarray | None]]:
        """Yield (first row, row behind, float32 (C, n, W)) for the blocks of rows that end by ``until``.

        No tile may touch them any more. None instead of an array where no tile did: all would be 0.
        An array is the strip's own, to be used before the next is asked for.
        """
        until = min(until, self._end)
        while self._top < self._end:
            stop = min(self._end, self._top + BLOCK - (self._top - self._origin) % BLOCK)
            if stop > until:
                return
            count = stop - self._top
            yield self._top, stop, self._sums[:, :count] if self._touched > 0 else None
            left = max(0, self._touched - count)
            self._sums[:, :left] = self._sums[:, count : count + left]
            self._sums[:, left : self._touched] = 0
            self._touched = left
            self._top = stop
