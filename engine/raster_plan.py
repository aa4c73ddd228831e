"""The plan of a raster output: which pixels it holds, which tiles they need, in which pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from rasterio.features import rasterize

from ..models.task import Task
from .blend import BLOCK
from .errors import EngineError
from .events import Track
from .grid import Grid, Tile, plan_grid
from .pipeline import DEPTH
from .plan import number
from .region import Region
from .scene import Scene
from .windows import AxisWindow, axis_windows

#: Bytes for the rolling strip and what waits to be written, unless MEMORY_MB says otherwise: enough for
#: 100 000 columns of three bands at tiles of 512 without panels.
STRIP_BYTES = 2**30
#: An edge of an area of interest that is meant to lie on a pixel's edge may miss it by rounding.
SNAP_PX = 1e-6


@dataclass(frozen=True)
class Piece:
    """A rectangle of the output in output pixels of the whole raster: rows and columns [first, behind)."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Return rows and columns."""
        return self.bottom - self.top, self.right - self.left


@dataclass(frozen=True, eq=False)
class TileList:
    """Tiles by their numbers, (n,): a large scene has a million, and as objects they would weigh 300 MB."""

    grid: Grid
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Tile]:
        for each in self.numbers:
            yield self.grid.at(*divmod(int(each), len(self.grid.xs)))


@dataclass(frozen=True, eq=False)
class RasterPlan:
    """Output pixels and their tiles.

    ``rect``: (row, column, height, width) of the output in scene pixels. ``factor``: output pixels for
    each of them. ``region``: what is wanted inside, or None for all of it. ``rows``, ``cols``: the
    weights of the grid's tiles along both axes. ``panel``: columns that fit the memory at once.
    """

    grid: Grid
    overlap: int
    factor: int
    rect: tuple[int, int, int, int]
    region: Region | None
    rows: tuple[AxisWindow, ...]
    cols: tuple[AxisWindow, ...]
    panel: int

    @property
    def output(self) -> Piece:
        """Return the whole output as one piece."""
        row, col, height, width = (value * self.factor for value in self.rect)
        return Piece(row, row + height, col, col + width)

    @property
    def shape(self) -> tuple[int, int]:
        """Return rows and columns of the output."""
        return self.rect[2] * self.factor, self.rect[3] * self.factor

    @property
    def ahead(self) -> int:
        """Return how many tiles the reader may be ahead."""
        tile_bytes = self.grid.tile[0] * self.grid.tile[1] * 16
        return max(1, min(DEPTH, 64 * 2**20 // tile_bytes))

    def panels(self, piece: Piece) -> Iterator[Piece]:
        """Cut a piece into columns that fit the memory; seams lie on blocks."""
        for left in range(piece.left, piece.right, self.panel):
            yield Piece(piece.top, piece.bottom, left, min(piece.right, left + self.panel))

    def tiles(self, piece: Piece) -> TileList:
        """Return every tile with a weight on a wanted pixel of the piece, in reading order."""
        rows = [i for i, w in enumerate(self.rows) if w.start < piece.bottom and w.stop > piece.top]
        cols = [j for j, w in enumerate(self.cols) if w.start < piece.right and w.stop > piece.left]
        place = np.array(cols, np.int64)
        found = [np.zeros(0, np.int64)]
        for i in rows:
            found.append(i * len(self.cols) + place[self._touching(i, cols)])
        return TileList(self.grid, np.concatenate(found))

    def _touching(self, row: int, cols: list[int]) -> np.ndarray | slice:
        """Return which tiles of a grid row touch what is wanted."""
        if self.region is None:
            return slice(None)
        left, right = (np.array([getattr(self.cols[j], end) for j in cols]) for end in ("start", "stop"))
        top, bottom = self.rows[row].start, self.rows[row].stop
        boxes = shapely.box(*(np.broadcast_arrays(*(n / self.factor for n in (left, top, right, bottom)))))
        return np.asarray(shapely.intersects(boxes, self.region.shape))

    def counts(self, tile: Tile, piece: Piece) -> tuple[slice, slice]:
        """Return the rows and columns of a tile, in its own scene pixels, that have a weight on a piece."""
        rows, cols = self.windows(tile)
        return (
            _inside(rows, piece.top, piece.bottom, tile.row, self.factor),
            _inside(cols, piece.left, piece.right, tile.col, self.factor),
        )

    def windows(self, tile: Tile) -> tuple[AxisWindow, AxisWindow]:
        """Return the weights of a tile along both axes."""
        i, j = divmod(tile.number, len(self.grid.xs))
        return self.rows[i], self.cols[j]

    def wanted(self, piece: Piece) -> np.ndarray | None:
        """Return bool (h, w): the piece's pixels whose centre is wanted; None where all are."""
        if self.region is None or self.region.is_rect:
            return None
        corner = [piece.left, piece.top]
        moved = shapely.transform(self.region.shape, lambda xy: xy * self.factor - corner)
        return rasterize([(moved, 1)], out_shape=piece.shape, dtype=np.uint8).astype(bool)


def plan_raster(
    scene: Scene, task: Task, params: Mapping[str, Any], region: Region | None, smaller: int = 0
) -> RasterPlan:
    """Choose tiles, overlap and output; ``smaller`` replaces TILE where memory was short.

    TILE and OVERLAP 0 or missing are automatic. Raises EngineError naming the value that does not fit.
    """
    tile = smaller or int(number(params, "tile", 0, 0, 16384)) or task.tile
    overlap = int(number(params, "overlap", 0, 0, 16384))
    if smaller and overlap >= tile:
        overlap = 0  # chosen for a tile that there was no memory for
    if not overlap:
        # automatic never asks for more than half a tile, unless the margin does: beyond that no pixel is new
        overlap = max(2 * task.margin, min(int(task.overlap(tile)), tile // 2))
        if overlap >= tile:
            raise EngineError(
                "parameter",
                f"TILE {tile} is too small: the model needs tiles that overlap by {overlap} pixels.",
                f"Choose a TILE of at least {-(-2 * overlap // task.multiple) * task.multiple}.",
            )
    grid = plan_grid(scene.height, scene.width, tile, overlap, task.multiple, task.margin)
    rect = (0, 0, scene.height, scene.width) if region is None else snapped(region, scene)
    rows, cols = (
        axis_windows(size, starts, tile, overlap, task.margin, task.factor)
        for size, starts in ((scene.height, grid.ys), (scene.width, grid.xs))
    )
    memory = int(number(params, "memory_mb", 0, 0, 2**20)) * 10**6 or STRIP_BYTES
    channels = len(task.outputs)
    columns = memory // column_bytes(channels, grid.tile[0] * task.factor, scene.count)
    panel = max(BLOCK, columns // BLOCK * BLOCK)
    return RasterPlan(grid, overlap, task.factor, rect, region, rows, cols, panel)


def column_bytes(channels: int, tile: int, bands: int) -> int:
    """Return the bytes that one output column needs: strip, raw and finished rows and what lies between."""
    return 4 * channels * (tile + 2 * BLOCK) + 2 * 8 * bands * BLOCK


def snapped(region: Region, scene: Scene) -> tuple[int, int, int, int]:
    """Return the pixels that a region's bounds touch: row, column, height, width.

    Raises EngineError where they are no wider than rounding, as those of a neighbour's edge.
    """
    left, top, right, bottom = shapely.bounds(region.shape)
    if min(right - left, bottom - top) < 2 * SNAP_PX:
        raise EngineError(
            "parameter",
            f"EXTENT or AOI only touches {scene.path.name} along a line.",
            "Check its CRS, or draw it on the raster.",
        )
    row, col = max(0, int(np.floor(top + SNAP_PX))), max(0, int(np.floor(left + SNAP_PX)))
    end_row = min(scene.height, max(row + 1, int(np.ceil(bottom - SNAP_PX))))
    end_col = min(scene.width, max(col + 1, int(np.ceil(right - SNAP_PX))))
    return row, col, end_row - row, end_col - col


def whole_pixels(region: Region, scene: Scene) -> Region:
    """Return all pixels that a region's bounds touch as the region.

    For an EXTENT, which lies askew on a rotated raster or in another CRS: what it cuts off at the corners
    of the output would stay as it was, beside what was worked on.
    """
    row, col, height, width = rect = snapped(region, scene)
    shape = shapely.box(col, row, col + width, row + height)
    shapely.prepare(shape)
    return Region(shape, rect)


def log_raster_estimate(
    output: RasterPlan, plan: RasterPlan, scene: Scene, channels: int, disk: int, track: Track
) -> None:
    """Say before the start what the run takes; ``plan``: of the tiles; ``disk``: bytes at the worst."""
    height, width = output.shape
    wide = plan.shape[1]
    panels = -(-wide // plan.panel)
    memory = column_bytes(channels, plan.grid.tile[0] * plan.factor, scene.count) * min(wide, plan.panel)
    tiles = len(plan.tiles(plan.output))
    track.info(
        f"{scene.path.name}: output of {width} x {height} pixels, {tiles} of {len(plan.grid)} tiles of "
        f"{plan.grid.tile[1]} x {plan.grid.tile[0]} with {plan.overlap} overlap"
        + (f", in {panels} panels of {plan.panel} columns" if panels > 1 else "")
        + f"; about {memory / 1e6:.0f} MB beside the model, at most {disk / 1e6:.0f} MB on disk."
    )


def _inside(window: AxisWindow, first: int, behind: int, tile_start: int, factor: int) -> slice:
    start = max(window.start, first) // factor - tile_start
    stop = -(-min(window.stop, behind) // factor) - tile_start
    return slice(max(0, start), max(0, stop))
