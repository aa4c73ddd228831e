"""One Job from start to result: what the worker, a notebook or a cluster calls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..models import registry
from ..models.task import Builder, ModelError, SceneInfo, Task
from .boxes_run import run_boxes
from .device import is_out_of_memory, resolve_device
from .errors import EngineError
from .events import Events, Track
from .job import Job
from .plan import check_size
from .region import read_region
from .scene import Scene, open_scene
from .stack import prove_stack

__all__ = ["Events", "Outcome", "run_job"]

#: Kind of answer -> (what runs it, the output a Job must name). Scores and rasters come later.
RUNNERS: dict[str, tuple[Callable[..., dict[str, Any]], str]] = {"boxes": (run_boxes, "boxes")}


@dataclass(frozen=True)
class Outcome:
    """A finished Job: paths written, figures for the sidecar, warnings for the user."""

    outputs: dict[str, str]
    figures: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


def run_job(job: Job, events: Events, builder: Builder | None = None, threads: bool = True) -> Outcome:
    """Run a Job of kind ``predict``.

    ``builder`` replaces the registry's (tests, notebooks); ``threads=False`` reads in this thread,
    with the same result. Raises EngineError or Cancelled; then no output is left behind.
    """
    if job.kind != "predict":
        raise EngineError("parameter", f"The engine has no Jobs of kind {job.kind!r}.")
    track = Track(events)
    try:
        figures = _predict(job, track, builder, threads)
    except BaseException as error:
        _remove(job.outputs)
        if isinstance(error, ModelError):
            raise EngineError("model", error.message, error.hint) from error
        if isinstance(error, MemoryError | RuntimeError) and is_out_of_memory(error):
            raise EngineError(
                "memory", f"There was not enough memory ({error}).", "Choose a smaller TILE."
            ) from error
        raise
    return Outcome(dict(job.outputs), figures, track.warnings)


def _predict(job: Job, track: Track, builder: Builder | None, threads: bool) -> dict[str, Any]:
    with track.stage("start", 0.0):
        prove_stack(Path(job.scratch) if job.scratch else None)
    with track.stage("opening", 0.005):
        entry = job.inputs.get("image")
        if entry is None:
            raise EngineError("parameter", "The Job names no image.")
        bands = entry.get("bands") or [1]
        if len(bands) != 1:
            raise EngineError("parameter", f"One band is needed, not {len(bands)}.", "Choose one BAND.")
        scene = open_scene(entry["path"], bands[0])
        for note in scene.notes:
            track.warn(note)
        region = read_region(scene, job.extent, job.aoi_wkt, job.crs_wkt, track)
        check_size(scene, region)
    with track.stage("model", 0.01):
        task, device = _build(job, scene, builder)
        runner, output = RUNNERS.get(task.kind, (None, ""))
        if runner is None:
            raise EngineError("model", f"The engine cannot run models of kind {task.kind!r} yet.")
        if output not in job.outputs:
            raise EngineError("parameter", f"The Job names no output {output!r}.")
        _warn_of_pixel_size(task, scene, track)
        for text in task.notes.get("warnings", ()):
            track.warn(text)
    return runner(job, scene, region, task, device, track, threads)


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
