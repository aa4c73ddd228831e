"""RESAMPLE: a grid at the pixel size that a network was trained on, over the ground that two dates share.

It has the first layer's corners and orientation; its pixels are squares on the ground. Rasters are laid on
it as on any grid (align.py); what the network answers there is brought back by network_run.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from affine import Affine

from ..models.task import Task
from .align import lay
from .errors import EngineError
from .events import Track
from .joined import Joined
from .raster_plan import RasterPlan, plan_raster
from .region import Region, polygons_of
from .scene import Scene

#: Pixels that differ by less are the network's own: no two sensors of one name agree better, and every
#: interpolation costs sharpness.
NEAR = 1.05
#: Pixels that differ by more show another world: 8 m is no picture of houses for a network of 0.5 m.
MOST = 16.0
#: Pixels of the network's grid over which an answer reaches into what it knows nothing of: an output pixel
#: with data lies at most one from its own, more only where strips with data are thinner than a pixel.
FILL = 8


@dataclass(frozen=True)
class NetworkGrid:
    """Where a network runs: ``gsd`` in metres, ``size`` (rows, columns).

    ``steps``: (x, y) pixels of the output's grid in one of its pixels.
    """

    gsd: float
    steps: tuple[float, float]
    size: tuple[int, int]

    def figures(self) -> dict[str, Any]:
        """Return what sidecar and report tell."""
        return {"pixel_m": self.gsd, "size": list(reversed(self.size)), "steps_px": list(self.steps)}


@dataclass(frozen=True, eq=False)
class NetworkPlan:
    """A run on a network's grid: the layers laid there, what is wanted of them, and the tiles."""

    grid: NetworkGrid
    scene: Joined
    region: Region | None
    plan: RasterPlan


def network_grid(scene: Scene, task: Task, params: Mapping[str, Any]) -> NetworkGrid | None:
    """Return the grid that RESAMPLE asks for; None where it is off or the pixels fit as they are.

    The pixel size is the geometric mean of the task's range, which is a factor up and down from the
    training's. Raises EngineError where sizes are not known or too far apart.
    """
    if not params.get("resample"):
        return None
    trained = task.inputs[0].gsd
    if trained is None or trained[0] <= 0:
        raise EngineError(
            "parameter",
            f"RESAMPLE: {task.name} names no pixel size to which rasters could be brought.",
            "Set RESAMPLE to false.",
        )
    pixel_m = scene.georef.pixel_m(scene.width / 2, scene.height / 2)
    if pixel_m is None or min(pixel_m) <= 0:
        raise EngineError(
            "input",
            f"RESAMPLE: {scene.path.name} has no CRS that tells how many metres its pixels are.",
            "Assign its CRS, or set RESAMPLE to false.",
        )
    gsd = math.sqrt(trained[0] * trained[1])
    steps = gsd / pixel_m[0], gsd / pixel_m[1]
    if max(*steps, *(1 / step for step in steps)) > MOST:
        raise EngineError(
            "parameter",
            f"RESAMPLE: pixels of {scene.path.name} are {_metres(pixel_m)} and the model's {gsd:.3g} m, "
            f"more than {MOST:g} times apart.",
            "Choose rasters or WEIGHTS of a nearer pixel size, or set RESAMPLE to false.",
        )
    if all(1 / NEAR <= step <= NEAR for step in steps):
        return None
    # whole pixels from edge to edge: 0.2 % of 256 at most, and none is cut off or lies half outside
    rows, cols = max(1, round(scene.height / steps[1])), max(1, round(scene.width / steps[0]))
    return NetworkGrid(gsd, (scene.width / cols, scene.height / rows), (rows, cols))


def network_size(scene: Scene, task: Task, params: Mapping[str, Any]) -> tuple[int, int]:
    """Return rows and columns of the grid that the network runs on."""
    grid = network_grid(scene, task, params)
    return (scene.height, scene.width) if grid is None else grid.size


def tell_network_grid(scene: Scene, task: Task, params: Mapping[str, Any], track: Track) -> None:
    """Say what RESAMPLE does with these rasters; raises EngineError where it can do nothing."""
    if not params.get("resample"):
        return
    grid = network_grid(scene, task, params)
    pixel_m = scene.georef.pixel_m(scene.width / 2, scene.height / 2)
    assert pixel_m is not None
    if grid is None:
        track.info(
            f"RESAMPLE has nothing to do: pixels of {scene.path.name} are {_metres(pixel_m)}, as the model's."
        )
        return
    track.info(
        f"RESAMPLE: the network runs on {grid.size[1]} x {grid.size[0]} pixels of {grid.gsd:.3g} m over the "
        f"common ground; its probabilities come back to the {_metres(pixel_m)} of {scene.path.name}."
    )


def plan_network(
    scene: Scene, task: Task, params: Mapping[str, Any], region: Region | None, smaller: int = 0
) -> NetworkPlan | None:
    """Plan the run on the network's grid, arguments as for plan_raster; None where it is the scene's own."""
    if not isinstance(scene, Joined):
        return None
    grid = network_grid(scene, task, params)
    if grid is None:
        return None
    laid = on_network_grid(scene, grid)
    part = None if region is None else region_there(region, grid)
    return NetworkPlan(grid, laid, part, plan_raster(laid, task, params, part, smaller))


def on_network_grid(scene: Joined, grid: NetworkGrid) -> Joined:
    """Lay the files themselves on the network's grid: nothing is interpolated twice."""
    georef = replace(scene.georef, affine=scene.georef.affine * Affine.scale(*grid.steps))
    across, down = grid.steps
    layers = tuple(
        lay(layer.role, layer.scene, georef, grid.size, (layer.shift[0] / across, layer.shift[1] / down))
        for layer in scene.layers
    )
    height, width = grid.size
    return replace(scene, georef=georef, height=height, width=width, layers=layers)


def region_there(region: Region, grid: NetworkGrid) -> Region:
    """Return a region on the network's grid, so much wider that every output pixel is as of a whole run."""
    wider = FILL + 2 + 1 / min(grid.steps)  # bilinear neighbours, and the pixels averaged in one
    shape = shapely.transform(region.shape, lambda xy: xy / np.array(grid.steps))
    shape = shapely.buffer(shape, wider, join_style="mitre")
    shape = polygons_of(shapely.intersection(shape, shapely.box(0, 0, grid.size[1], grid.size[0])))
    shapely.prepare(shape)
    left, top, right, bottom = shapely.bounds(shape)
    row, col = int(np.floor(top)), int(np.floor(left))
    return Region(shape, (row, col, int(np.ceil(bottom)) - row, int(np.ceil(right)) - col))


def _metres(pixel_m: tuple[float, float]) -> str:
    """Return a pixel size for people: one number where both sides are alike."""
    wide, high = (f"{side:.3g}" for side in pixel_m)
    return f"{wide} m" if wide == high else f"{wide} x {high} m"
