"""What a raster run knows of its scene before the first tile: statistics, survey, stretch, plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..models.task import Task
from .bands import refuse_sar
from .errors import EngineError
from .events import Track
from .finish import Answered, Finisher, Restored, ground
from .heap import give_back
from .job import Job
from .joined import Joined
from .loop import telling_how_far
from .matching import pair_stretch
from .network_grid import NetworkGrid, plan_network
from .plan import number
from .raster_plan import RasterPlan, plan_raster
from .region import Region
from .scaling import Scaling
from .scene import Scene
from .statistics import band_statistics
from .stretch import display, outside_warning, resolve_stretch
from .survey import survey

#: Outputs of which naming one makes a run of two dates one that looks for change (change_run.py).
CHANGE_OUTPUTS = ("mask", "probability", "polygons")


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything a piece needs to know; the same on every machine that prepares the same Job.

    ``display``: for each band the raw values that a viewer shows as black and white. ``network``: the same
    run on the grid that the network runs on, None where that is this one's; ``grid``: how the two lie.
    """

    job: Job
    scene: Scene
    region: Region | None
    task: Task
    device: str
    scalings: tuple[Scaling, ...]
    plan: RasterPlan
    finisher: Finisher
    display: tuple[tuple[float, float], ...]
    tile: int
    network: Prepared | None = None
    grid: NetworkGrid | None = None

    @property
    def tiled(self) -> Prepared:
        """Return the run whose tiles are run."""
        return self.network or self

    @property
    def batch(self) -> int:
        """Return BATCH, 0 = automatic."""
        return int(number(self.job.params, "batch", 0, 0, 4096))


def prepare(
    job: Job, scene: Scene, region: Region | None, task: Task, device: str, track: Track, tile: int = 0
) -> Prepared:
    """Look at the scene as a whole and plan; ``tile`` replaces TILE where memory was short."""
    plan = plan_raster(scene, task, job.params, region, tile)
    ground(scene, plan)  # refuses what lies on no grid, before anything is read
    rect = region.rect if region else None
    with track.stage("statistics", 0.02), telling_how_far(lambda: 0.0, scene):
        match = _match(job, task)
        # bytes are stretched from 0 to 255 whatever they are: their percentiles are worth no second
        plain = not match and all(each.scale.mode == "auto" for each in task.inputs)
        plain = plain and all(scene.dtypes[b - 1] == np.uint8 for b in scene.bands)
        statistics = band_statistics(scene, rect, track, brief=plain)
        if task.change:
            refuse_sar(scene, statistics)
        if isinstance(scene, Joined):
            scalings = pair_stretch(task, scene, statistics, match)
        else:
            scalings = resolve_stretch(task.inputs[0].scale, statistics, scene.bands)
        warning = outside_warning(scalings, statistics, scene.labels)
        if warning:
            track.warn(warning)
        if all(found is None for found in statistics):
            track.warn(f"{scene.title} has no valid pixel in the chosen bands; nothing was computed.")
    for band, scaling in zip(scene.labels, scalings, strict=True):
        track.info(f"Stretch of band {band}: {scaling.low:.6g} to {scaling.high:.6g}, from {scaling.source}.")
    with track.stage("survey", 0.05), telling_how_far(lambda: 0.0, scene):
        task = survey(task, scene, scalings, rect, track)
        give_back()
    for text in task.notes.get("log", ()):
        track.info(text)
    for text in task.notes.get("warnings", ()):  # those told before the survey are not told again
        track.warn(text)
    finisher = finisher_for(job, scene, plan, task, scalings)
    shown = display(scalings, statistics)
    ready = Prepared(job, scene, region, task, device, scalings, plan, finisher, shown, tile)
    there = plan_network(scene, task, job.params, region, tile)
    if there is None:
        return ready
    answered = Answered(there.scene, there.plan, task, ["scores"])
    network = replace(ready, scene=there.scene, region=there.region, plan=there.plan, finisher=answered)
    return replace(ready, network=network, grid=there.grid)


def _match(job: Job, task: Task) -> bool:
    """Return MATCH_RADIOMETRY; raises EngineError where there is nothing to match."""
    match = bool(job.params.get("match_radiometry"))
    if match and not task.pair:
        raise EngineError("parameter", f"{task.name} has no second date whose values could be matched.")
    return match


def asks_for_change(job: Job, task: Task) -> bool:
    """Return whether a Job wants mask and polygons of change; raises EngineError where it names half."""
    if not task.pair or len(task.outputs) != 1 or not set(CHANGE_OUTPUTS) & set(job.outputs):
        return False
    for name in ("mask", "probability"):
        if name not in job.outputs:
            raise EngineError("parameter", f"A Job that looks for change must name the output {name!r}.")
    return True


def finisher_for(
    job: Job, scene: Scene, plan: RasterPlan, task: Task, scalings: Sequence[Scaling]
) -> Finisher:
    """Return what makes the outputs that a Job names out of blended rows."""
    if not task.change:
        known = ("raster", "scores", "classes", *(["probability"] if asks_for_change(job, task) else []))
        names = [name for name in known if name in job.outputs]
        return Answered(scene, plan, task, names)
    other = job.params.get("other_bands") or "copy"
    if other not in ("copy", "drop"):
        raise EngineError("parameter", f"OTHER_BANDS is {other!r}; it must be copy or drop.")
    strength = float(number(job.params, "strength", 1.0, 0, 1))
    detail, haze = "report" in job.outputs, "haze" in job.outputs
    return Restored(scene, plan, scalings, strength, other == "copy", haze, detail)
