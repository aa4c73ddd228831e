"""From a Job to a plan: parameters checked, tiles chosen, costs estimated, nothing read yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..models.task import Task
from .errors import EngineError
from .events import Track
from .grid import Grid, Tile, plan_grid
from .pipeline import DEPTH
from .region import Region
from .scene import Scene

#: Bytes of tiles that may wait for the model; the large tiles of classical methods wait alone.
AHEAD_BYTES = 64 * 2**20
#: A tile's scaled float32 image and its mask.
TILE_PIXEL_BYTES = 5

#: Over that many pixels a scene needs an EXTENT or AOI: a sparse file of some MB can declare a
#: million times as much (ENGINE.md, section 7, fault 5).
MAX_PIXELS = 10**10


@dataclass(frozen=True, eq=False)
class Plan:
    """Which tiles run: the whole grid, or those a region asks for (in reading order)."""

    grid: Grid
    overlap: int
    chosen: tuple[Tile, ...] | None

    def __len__(self) -> int:
        return len(self.grid) if self.chosen is None else len(self.chosen)

    @property
    def ahead(self) -> int:
        """Return how many tiles the reader may be ahead."""
        tile_bytes = self.grid.tile[0] * self.grid.tile[1] * TILE_PIXEL_BYTES
        return max(1, min(DEPTH, AHEAD_BYTES // tile_bytes))

    @cached_property
    def _numbers(self) -> frozenset[int]:
        return frozenset(tile.number for tile in self.chosen or ())

    def first_seen(self, tile: Tile) -> np.ndarray:
        """Return bool (h, w): the pixels of a tile that no earlier tile of the plan has."""
        grid = self.grid
        new = np.ones((tile.height, tile.width), bool)
        i, j = divmod(tile.number, len(grid.xs))
        if self.chosen is None:  # every earlier tile runs: those above and to the left hold them all
            new[: max(0, grid.ys[i - 1] + grid.tile[0] - tile.row) if i else 0] = False
            new[:, : max(0, grid.xs[j - 1] + grid.tile[1] - tile.col) if j else 0] = False
            return new
        for other in grid.touching(tile.col, tile.row, tile.col + tile.width, tile.row + tile.height):
            if other.number < tile.number and other.number in self._numbers:
                top, left = max(0, other.row - tile.row), max(0, other.col - tile.col)
                bottom = other.row + other.height - tile.row
                new[top:bottom, left : other.col + other.width - tile.col] = False
        return new

    def tiles(self) -> Iterator[Tile]:
        """Yield the tiles to look at, row by row."""
        if self.chosen is not None:
            yield from self.chosen
            return
        for i in range(len(self.grid.ys)):
            for j in range(len(self.grid.xs)):
                yield self.grid.at(i, j)


def number(params: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    """Return a numeric parameter, ``default`` where missing; raises EngineError out of bounds."""
    value = params.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise EngineError(
            "parameter", f"{name.upper()} must be a number from {low:g} to {high:g}, not {value!r}."
        )
    return value


def make_plan(scene: Scene, task: Task, params: Mapping[str, Any], region: Region | None) -> Plan:
    """Choose tile size, overlap and tiles; TILE and OVERLAP 0 or missing are automatic."""
    tile = int(number(params, "tile", 0, 0, 16384)) or task.tile
    overlap = int(number(params, "overlap", 0, 0, 16384))
    if not overlap:
        # automatic never asks for more than half a tile: beyond that no pixel is new
        overlap = max(2 * task.margin, min(int(task.overlap(tile)), tile // 2))
    grid = plan_grid(scene.height, scene.width, tile, overlap, task.multiple, task.margin)
    return Plan(grid, overlap, None if region is None else tuple(region.tiles(grid)))


def check_size(scene: Scene, region: Region | None) -> None:
    """Refuse a whole scene that is too large to have been meant."""
    if region is None and scene.width * scene.height > MAX_PIXELS:
        raise EngineError(
            "parameter",
            f"{scene.path.name} has {scene.width} x {scene.height} pixels, more than {MAX_PIXELS:.0e}.",
            "Give an EXTENT or AOI.",
        )


def log_estimate(plan: Plan, scene: Scene, batch: int, track: Track) -> None:
    """Say before the start what the run takes."""
    grid = plan.grid
    pixels = grid.tile[0] * grid.tile[1]
    # waiting, being read (raw values too), in the batch before and in this one
    held = (plan.ahead + 1 + 2 * batch) * TILE_PIXEL_BYTES + scene.dtype.itemsize
    megabytes = held * pixels / 1e6
    track.info(
        f"{scene.path.name}: {scene.width} x {scene.height} pixels, {len(plan)} of {len(grid)} tiles of "
        f"{grid.tile[1]} x {grid.tile[0]} pixels with {plan.overlap} overlap, {batch} at once; "
        f"about {megabytes:.0f} MB for tiles beside the model."
    )
