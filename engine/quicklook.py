"""A small picture of the scene, collected from the tiles as they pass: no second reading."""

from __future__ import annotations

import numpy as np

from .grid import Grid
from .tiles import Loaded

#: Longer side in pixels; what a report shows on a screen.
SIZE = 1200


class Quicklook:
    """Every ``step``-th pixel of the scaled scene; NaN where no tile ran or nothing is valid."""

    def __init__(self, grid: Grid) -> None:
        """Choose the step for the grid's raster."""
        self.step = max(1, -(-max(grid.height, grid.width) // SIZE))
        shape = (-(-grid.height // self.step), -(-grid.width // self.step))
        self.image = np.full(shape, np.nan, np.float32)

    def add(self, loaded: Loaded) -> None:
        """Take over a tile's pixels that fall on the lattice of the picture."""
        if loaded.image is None:
            return
        tile, step = loaded.tile, self.step
        top, left = -tile.row % step, -tile.col % step
        image = loaded.image[0, top : tile.height : step, left : tile.width : step]
        valid = loaded.valid[top::step, left::step]
        row, col = (tile.row + top) // step, (tile.col + left) // step
        place = self.image[row : row + image.shape[0], col : col + image.shape[1]]
        place[valid] = image[valid]
