"""The plan of tiles: pure numbers, no I/O (ENGINE.md, section 1)."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import EngineError


@dataclass(frozen=True)
class Tile:
    """One tile: its number in the grid, its grid row, its window in scene pixels.

    ``height`` and ``width`` are what is read; the grid's tile is larger only on a raster smaller
    than a tile, and the rest is padding.
    """

    number: int
    grid_row: int
    row: int
    col: int
    height: int
    width: int


@dataclass(frozen=True)
class Grid:
    """The product of row starts ``ys`` and column starts ``xs`` over a raster.

    Starts are 0, S, 2S, ... with S = tile - overlap; the last is shifted back so that no window
    leaves the raster. ``tile`` = (height, width) of what the model sees, ``margin`` what a merger
    of pixels crops on sides that face another tile (0 for boxes).
    """

    height: int
    width: int
    ys: tuple[int, ...]
    xs: tuple[int, ...]
    tile: tuple[int, int]
    margin: int

    def __len__(self) -> int:
        return len(self.ys) * len(self.xs)

    def at(self, grid_row: int, grid_col: int) -> Tile:
        """Return one tile of the product."""
        row, col = self.ys[grid_row], self.xs[grid_col]
        return Tile(
            grid_row * len(self.xs) + grid_col,
            grid_row,
            row,
            col,
            min(self.tile[0], self.height - row),
            min(self.tile[1], self.width - col),
        )

    def touching(self, left: float, top: float, right: float, bottom: float) -> list[Tile]:
        """Return the tiles whose window shares area with a pixel rectangle, in reading order."""
        rows = [i for i, y in enumerate(self.ys) if y < bottom and y + self.tile[0] > top]
        cols = [i for i, x in enumerate(self.xs) if x < right and x + self.tile[1] > left]
        return [self.at(i, j) for i in rows for j in cols]


def starts(size: int, tile: int, overlap: int) -> tuple[int, ...]:
    """Return the tile starts along one axis of ``size`` pixels, anchored to its beginning."""
    if size <= tile:
        return (0,)
    step = tile - overlap
    regular = range(0, size - tile, step)
    return (*regular, size - tile)


def plan_grid(height: int, width: int, tile: int, overlap: int, multiple: int, margin: int) -> Grid:
    """Plan the tiles of a raster; raises EngineError naming the value that does not fit.

    An axis shorter than ``tile`` gets one window, padded to the next multiple of ``multiple``.
    """
    if tile < multiple or tile % multiple:
        raise EngineError(
            "parameter",
            f"TILE {tile} is not a multiple of {multiple}.",
            f"Choose {max(multiple, round(tile / multiple) * multiple)}.",
        )
    if overlap < 0 or overlap >= tile:
        raise EngineError(
            "parameter",
            f"OVERLAP {overlap} must be at least 0 and smaller than TILE {tile}.",
            f"Choose up to {tile // 2}, or 0 for automatic.",
        )
    if overlap < 2 * margin:
        raise EngineError(
            "parameter",
            f"OVERLAP {overlap} is smaller than twice the model's margin of {margin} pixels.",
            f"Choose at least {2 * margin}, or 0 for automatic.",
        )
    shape = (_window(height, tile, multiple), _window(width, tile, multiple))
    return Grid(height, width, starts(height, tile, overlap), starts(width, tile, overlap), shape, margin)


def _window(size: int, tile: int, multiple: int) -> int:
    return min(tile, -(-size // multiple) * multiple)
