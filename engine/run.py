"""One Job from start to result: what the worker, a notebook or a cluster calls."""

from __future__ import annotations

from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..models import registry
from ..models.task import Builder, ModelError, SceneInfo, Task
from ..models.trainable import Trainer
from .bands import bands_for
from .device import is_out_of_memory, resolve_device
from .errors import EngineError
from .events import Events, Track
from .job import Job
from .joined import Joined
from .loop import telling_how_far
from .pairs import register
from .plan import check_size
from .raster_plan import whole_pixels
from .raster_prepare import asks_for_change
from .raster_run import run_rasters
from .region import Region, read_region
from .roles import open_rasters, settle
from .scene import Scene
from .stack import prove_stack

__all__ = ["Events", "Outcome", "run_job"]

#: Kind of answer -> the outputs of which a Job must name one.
OUTPUTS: dict[str, tuple[str, ...]] = {
    "boxes": ("boxes",),
    "raster": ("raster",),
    "scores": ("scores", "classes"),
}


@dataclass(frozen=True)
class Outcome:
    """A finished Job: paths written, figures for the sidecar, warnings for the user."""

    outputs: dict[str, str]
    figures: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


def run_job(
    job: Job,
    events: Events,
    builder: Builder | None = None,
    threads: bool = True,
    executor: Executor | None = None,
    trainer: Trainer | None = None,
) -> Outcome:
    """Run a Job of kind ``predict`` or ``train``.

    ``builder`` and ``trainer`` replace the registry's (tests, notebooks); ``threads=False`` reads and
    writes in this thread, ``executor`` runs ranges of rows wherever it runs things (rasters only;
    ``builder`` must be picklable then): the result is the same. Raises EngineError or Cancelled; then no
    output is left behind, and a file that was there before is still there.
    """
    if job.kind not in ("predict", "train"):
        raise EngineError("parameter", f"The engine has no Jobs of kind {job.kind!r}.")
    track = Track(events)
    try:
        if job.kind == "train":
            figures = _train(job, track, trainer)
        else:
            figures = _predict(job, track, builder, threads, executor)
    except BaseException as error:
        if "boxes" in job.outputs:
            _remove(job.outputs)  # scratch files: the algorithm's guarded sink has not seen them yet
        _tell(error)
        raise
    return Outcome(dict(job.outputs), figures, track.warnings)


def _tell(error: BaseException) -> None:
    """Raise what a user understands in place of ``error``, where there is something."""
    if isinstance(error, ModelError):
        raise EngineError("model", error.message, error.hint) from error
    if isinstance(error, MemoryError | RuntimeError) and is_out_of_memory(error):
        raise EngineError(
            "memory", f"There was not enough memory ({error}).", "Choose a smaller TILE, CROP or BATCH."
        ) from error


def _predict(
    job: Job, track: Track, builder: Builder | None, threads: bool, executor: Executor | None
) -> dict[str, Any]:
    with track.stage("start", 0.0):
        prove_stack(Path(job.scratch) if job.scratch else None)
    scene, region, task, device = look(job, track, builder)
    named = any(name in job.outputs for name in OUTPUTS[task.kind])
    if not named and not asks_for_change(job, task):
        raise EngineError("parameter", f"The Job names no output {' or '.join(OUTPUTS[task.kind])!r}.")
    if task.kind != "boxes":
        return run_rasters(job, scene, region, task, device, track, threads, executor, builder)
    from .boxes_run import run_boxes  # pyogrio brings pandas: 59 MB and 0.3 s that rasters do not need

    return run_boxes(job, scene, region, task, device, track, threads)


def _train(job: Job, track: Track, trainer: Trainer | None) -> dict[str, Any]:
    with track.stage("start", 0.0):
        prove_stack(Path(job.scratch) if job.scratch else None)
    from .train_run import run_training  # predictions need none of it

    return run_training(job, track, trainer)


def look(job: Job, track: Track, builder: Builder | None) -> tuple[Scene, Region | None, Task, str]:
    """Open the scene and build the task for it; return both with the region and the device."""
    with track.stage("opening", 0.005):
        scene = open_rasters(job)
        region = read_region(scene, job.extent, job.aoi_wkt, job.crs_wkt, track)
    with track.stage("model", 0.01):
        task, device = _build(job, scene, builder)
        if task.kind not in OUTPUTS:
            raise EngineError("model", f"The engine cannot run models of kind {task.kind!r} yet.")
        if task.kind == "boxes":
            check_size(scene, region)
        elif region is not None and job.aoi_wkt is None:
            region = whole_pixels(region, scene)
        if isinstance(scene, Joined):
            scene = settle(task, scene, job, track)
        else:
            scene = bands_for(task, scene, job.inputs["image"].get("bands") or [], track)
        if task.kind == "boxes":
            for note in (*scene.band_notes, *scene.notes):
                track.warn(note)
        elif scene.georef.crs is None and not isinstance(scene, Joined):
            track.warn(f"{scene.path.name} has no CRS, so the output has none either.")
        if not job.params.get("resample"):  # else roles.py tells what becomes of it
            _warn_of_pixel_size(task, scene, track)
        for text in task.notes.get("warnings", ()):
            track.warn(text)
    if isinstance(scene, Joined) and task.pair:
        with track.stage("registration", 0.015), telling_how_far(lambda: 0.0, scene):
            scene = register(scene, job, track)
    return scene, region, task, device


def _build(job: Job, scene: Scene, builder: Builder | None) -> tuple[Task, str]:
    """Return the task and the device it was built for."""
    if builder is None:
        builder = registry.builder(job.model)
        device = resolve_device(job.device, weights=bool(registry.entry(job.model).weights))
    else:  # what a builder of the caller's own needs is unknown: torch is asked only where it must be
        device = resolve_device(job.device, weights=job.device not in ("auto", "cpu"))
    pixel_m = scene.georef.pixel_m(scene.width / 2, scene.height / 2)
    info = SceneInfo(scene.width, scene.height, str(scene.dtype), pixel_m)
    return builder(job.params, str(job.params.get("weights") or ""), device, info), device


def _warn_of_pixel_size(task: Task, scene: Scene, track: Track) -> None:
    gsd = task.inputs[0].gsd
    pixel_m = scene.georef.pixel_m(scene.width / 2, scene.height / 2)
    if gsd is None or pixel_m is None:
        return
    size = (pixel_m[0] * pixel_m[1]) ** 0.5
    if not gsd[0] <= size <= gsd[1]:
        track.warn(f"Pixel size is {size:.3g} m; the model was trained on {gsd[0]:g}-{gsd[1]:g} m.")


def _remove(outputs: dict[str, str]) -> None:
    for path in outputs.values():
        with suppress(OSError):
            Path(path).unlink()
