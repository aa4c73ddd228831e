"""Kind ``boxes``: a scene in, polygons with attributes out."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..models.task import Task
from . import provenance
from .boxes import Boxes, from_tile
from .errors import EngineError
from .events import Track
from .features import box_features, write_features
from .forward import Forward
from .heap import give_back
from .job import Job
from .land import Land, read_land
from .loop import TILES_FROM, TILES_TO, Clock, batches, telling_how_far
from .merging import Merger
from .pipeline import read_ahead
from .plan import Plan, log_estimate, make_plan, number
from .quicklook import Quicklook
from .region import Region
from .scaling import Scaling, resolve
from .scene import Scene
from .selection import Limits, select
from .statistics import Statistics, scene_statistics
from .tiles import Loaded, Loader


@dataclass
class Counts:
    """What happened to tiles, pixels and boxes."""

    tiles_run: int = 0
    tiles_nodata: int = 0
    valid_pixels: int = 0
    invalid_pixels: int = 0


def run_boxes(
    job: Job, scene: Scene, region: Region | None, task: Task, device: str, track: Track, threads: bool
) -> dict[str, Any]:
    """Detect, merge, measure and write; return the figures of CONTRACTS.md, section 5."""
    limits = Limits.read(job.params, scene)
    plan = make_plan(scene, task, job.params, region)
    batch = int(number(job.params, "batch", 0, 0, 4096))
    with track.stage("land mask", 0.02):
        land = _land(job, scene, track)
    with track.stage("statistics", 0.03), telling_how_far(lambda: 0.0, scene):
        statistics = scene_statistics(scene, region.rect if region else None, track)
        scaling = resolve(task.inputs[0].scale, statistics)
        give_back()
    fill = _fill(task, float(scaling.apply(np.array([statistics.median]))[0]))
    track.info(f"Scaling: {scaling.mode}, {scaling.low:.4g} to {scaling.high:.4g}, from {scaling.source}.")
    _warn_of_saturation(scaling, statistics, track)

    forward = Forward(task, plan.grid, land, device, batch, track)
    log_estimate(plan, scene, forward.size, track)
    quicklook = Quicklook(plan.grid) if job.outputs.get("report") else None
    loader = Loader(plan.grid, task.inputs[0], (scaling,), fill)
    counts = Counts()
    with track.stage("tiles", TILES_FROM):
        boxes = _detect(scene, plan, loader, forward, limits, counts, quicklook, track, threads)
    with track.stage("writing", TILES_TO):
        boxes, place, dropped = select(boxes, scene, region, land, limits)
        model = provenance.model(task, job.model)
        features = box_features(boxes, place, task.outputs, model["id"])
        scene.check_unchanged()
        write_features(Path(job.outputs["boxes"]), features, scene.georef)
    used = {
        **job.params,
        "tile": plan.grid.tile[0] if plan.grid.tile[0] == plan.grid.tile[1] else list(plan.grid.tile),
        "overlap": plan.overlap,
        "batch": forward.size,
        "nms_iou": limits.nms_iou,
        "band": scene.band,
        "device": device,
    }
    figures: dict[str, Any] = {
        "count": len(features),
        "tiles_total": len(plan.grid),
        "tiles_run": counts.tiles_run,
        "tiles_skipped": len(plan.grid) - counts.tiles_run,
        "tiles_nodata": counts.tiles_nodata,
        "valid_pixels": counts.valid_pixels,
        "invalid_pixels": counts.invalid_pixels,
        "dropped": dropped,
        "scaling": {**scaling.figures(), "median": statistics.median, "dtype": str(scene.dtype)},
        "model": model,
        "params_used": used,
        "inputs": provenance.inputs(scene),
        "versions": provenance.versions(),
        "device": device,
        "crs": scene.georef.wkt,
        "pixel_m": scene.georef.pixel_m(scene.width / 2, scene.height / 2),
        "seconds": track.seconds,
    }
    if quicklook is not None:
        from .boxes_report import write_report  # matplotlib is slow to import

        with track.stage("report", 0.97):
            write_report(Path(job.outputs["report"]), figures, features, boxes, quicklook, track.warnings)
    return figures


def _warn_of_saturation(scaling: Scaling, statistics: Statistics, track: Track) -> None:
    """Warn when the given limits leave nothing to see: amplitudes in a dB range, for example."""
    ends = np.array([statistics.percentile(percent) for percent in (1.0, 99.5)])
    low, high = scaling.apply(ends)
    if scaling.low is not None and scaling.mode in ("db", "linear") and low == high:
        track.warn(
            f"SCALE_MODE {scaling.mode} from {scaling.low:g} to {scaling.high:g} dB makes nearly all pixels "
            f"equal: values run from {ends[0]:.4g} to {ends[1]:.4g}. Choose other limits or another mode."
        )


def _land(job: Job, scene: Scene, track: Track) -> Land | None:
    buffer_m = number(job.params, "land_buffer", 0.0, -1e6, 1e6)
    entry = job.inputs.get("land")
    return read_land(entry["path"], buffer_m, scene, track) if entry else None


def _fill(task: Task, median: float) -> float | None:
    return {"median": median, "zero": 0.0, "nearest": None}[task.inputs[0].fill]


def _detect(
    scene: Scene,
    plan: Plan,
    loader: Loader,
    forward: Forward,
    limits: Limits,
    counts: Counts,
    quicklook: Quicklook | None,
    track: Track,
    threads: bool,
) -> Boxes:
    """Run the tiles in reading order and merge row by row."""
    merger = Merger(limits.nms_iou)
    grid, row = plan.grid, 0
    clock = Clock(len(plan), track)
    reading = read_ahead(scene.reader, loader.load, plan.tiles(), track.cancel, threads, plan.ahead)
    with telling_how_far(clock.share, scene), closing(reading):
        for batch in batches(reading, forward):
            filled = [item for item in batch if item.image is not None]
            answers = iter(forward.run(filled))
            for item in batch:
                if item.tile.grid_row != row:
                    row = item.tile.grid_row
                    merger.advance(grid.ys[row])
                _count(item, plan, counts)
                if quicklook is not None:
                    quicklook.add(item)
                if item.image is None:
                    continue
                raw = _checked(next(answers), task_classes=len(forward.classes))
                raw = raw[raw[:, 4] >= limits.confidence]
                merger.add(from_tile(raw, item.tile, grid, plan.overlap, item.valid, limits.nms_iou))
            clock.tick(len(batch))
    return merger.finish()


def _checked(raw: np.ndarray, task_classes: int) -> np.ndarray:
    """Hold the task to its contract: (N, 6) or (N, 7), classes it declared."""
    raw = np.asarray(raw, float)
    if raw.ndim != 2 or raw.shape[1] not in (6, 7):
        raise EngineError("internal", f"The model answered an array of shape {raw.shape} for a tile.")
    if len(raw) and not ((raw[:, 5] >= 0) & (raw[:, 5] < task_classes)).all():
        raise EngineError("internal", f"The model answered a class beyond its {task_classes}.")
    return raw


def _count(item: Loaded, plan: Plan, counts: Counts) -> None:
    """Count a tile and the pixels that no earlier tile of the plan has."""
    if item.image is None:
        counts.tiles_nodata += 1
    else:
        counts.tiles_run += 1
    new = plan.first_seen(item.tile)
    valid = int(np.count_nonzero(item.valid & new))
    counts.valid_pixels += valid
    counts.invalid_pixels += int(np.count_nonzero(new)) - valid
