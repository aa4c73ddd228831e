"""Kinds ``raster`` and ``scores``: a scene in, a raster on its grid out.

A run is prepared once (statistics, survey, plan) and then made in pieces: the whole output inline, or
ranges of rows through an executor (units.py). Whatever the pieces, every pixel is the same sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ..models.task import Builder, Task
from .errors import EngineError
from .events import Track
from .finish import Written, change_mask
from .forward import TileTooLarge
from .job import Job
from .loop import TILES_TO
from .network_grid import network_size, plan_network
from .network_run import run_on_network_grid, scratch_bytes
from .output_checks import check_space
from .parts import Parts
from .plan import number
from .quality import compare
from .raster_figures import file_tags, run_figures
from .raster_pieces import Counts, Sink, run_piece
from .raster_plan import Piece, RasterPlan, log_raster_estimate, plan_raster, snapped
from .raster_prepare import Prepared, asks_for_change, finisher_for, prepare
from .raster_profile import size_bound
from .raster_writer import RasterWriter
from .reference import Reference, check_reference
from .region import Region
from .scene import Scene

#: Share of the progress bar at which the outputs are complete.
QUALITY_FROM = 0.97


def run_rasters(
    job: Job,
    scene: Scene,
    region: Region | None,
    task: Task,
    device: str,
    track: Track,
    threads: bool,
    executor: Executor | None = None,
    builder: Builder | None = None,
) -> dict[str, Any]:
    """Run every tile, write, verify and put in place; return the figures of CONTRACTS.md, section 5."""
    tile = 0
    while True:
        try:
            return _run(job, scene, region, task, device, track, threads, executor, builder, tile)
        except TileTooLarge:
            tile = tile or int(number(job.params, "tile", 0, 0, 16384)) or task.tile
            # on a small raster the model has seen no more than this
            side = -(-max(network_size(scene, task, job.params)) // task.multiple) * task.multiple
            tile = _smaller(min(tile, side), task)
            track.warn(f"There was not enough memory; starting again with tiles of {tile} pixels.")


def _smaller(tile: int, task: Task) -> int:
    half = tile // 2 // task.multiple * task.multiple
    if half < task.multiple or half <= 2 * task.margin:
        raise EngineError(
            "memory",
            f"There is not enough memory for one tile of {tile} x {tile} pixels, and no smaller one will do.",
            "Close other programs, or choose another DEVICE.",
        )
    return half


def _run(
    job: Job,
    scene: Scene,
    region: Region | None,
    task: Task,
    device: str,
    track: Track,
    threads: bool,
    executor: Executor | None,
    builder: Builder | None,
    tile: int,
) -> dict[str, Any]:
    named = job.inputs.get("reference")
    change = asks_for_change(job, task)
    if named and not task.change and not change:
        raise EngineError(
            "parameter", f"{task.name} restores nothing that a reference could be compared with."
        )
    rect = snapped(region, scene) if region else None
    inputs = [stamp.path for stamp in scene.stamps]
    reference, search = None, None
    if change:
        from .change_run import Search  # pyogrio brings pandas: 59 MB and 0.3 s that rasters do not need

        search = Search(job, scene, task, rect, track)
        inputs += search.inputs
    elif named:
        reference = check_reference(scene, named["path"], named.get("bands") or [], rect)
        inputs += [stamp.path for stamp in reference.scene.stamps]
    with Parts(job.outputs, inputs) as parts:
        _check_room(job, scene, region, task, parts, track, tile)
        ready = prepare(job, scene, region, task, device, track, tile)
        counts, written = Counts(), ready.finisher.start()
        with ExitStack() as stack:
            writers = _open_writers(ready, parts, track, stack)
            sink = Writers(writers, ready.plan)

            def tiles(run: Prepared, sink: Sink, written: Written) -> int:
                if executor is None:
                    return run_piece(run, run.plan.output, sink, written, counts, track, threads)
                from .units import run_units  # which needs this module

                return run_units(run, executor, builder, sink, written, counts, track)

            if ready.network is None:
                batch = tiles(ready, sink, written)
            else:
                batch = run_on_network_grid(ready, tiles, sink, written, track)
            if written.marks.needed and written.marks.value is not None:
                writers["raster"].declare_nodata(written.marks.value)
            for place, writer in enumerate(writers.values()):
                share = (QUALITY_FROM - TILES_TO) / len(writers)
                writer.finish(track, TILES_TO + place * share, TILES_TO + (place + 1) * share)
        scene.check_unchanged()
        figures = run_figures(ready, written, counts, batch, track)
        if reference is not None:
            reference.scene.check_unchanged()
            with track.stage("quality", QUALITY_FROM):
                figures["quality"] = _quality(ready, parts, reference, figures["output_bands"], track)
        if search is not None:
            with track.stage("change", QUALITY_FROM):
                figures |= search.find(ready, parts, file_tags(ready), track)
        if "report" in job.outputs:
            with track.stage("report", 0.98):
                try:
                    if search is not None:
                        search.write_report(parts.path("report"), ready, figures, track)
                    else:
                        from .raster_report import write_report  # matplotlib is slow to import

                        write_report(parts.path("report"), figures, written.tally, track.warnings)
                except OSError as error:
                    raise EngineError(
                        "output",
                        f"{parts.final('report').name} cannot be written: {str(error.strerror).lower()}.",
                        "Free some space or choose another folder.",
                    ) from error
        track.check()
        parts.commit()
    return figures


def _check_room(
    job: Job, scene: Scene, region: Region | None, task: Task, parts: Parts, track: Track, tile: int
) -> None:
    """Refuse outputs that nothing makes or no disk holds before a pixel is read; say what the run takes."""
    plan = plan_raster(scene, task, job.params, region, tile)
    # what the outputs are does not depend on the stretch
    targets = finisher_for(job, scene, plan, task, ()).targets({}, bool(job.params.get("cog")))
    without_room = {"report"}
    if asks_for_change(job, task):
        targets["mask"] = change_mask(scene, plan, {}, bool(job.params.get("cog")))
        without_room.add("polygons")  # as many as there are; far below the rasters
    unknown = sorted(set(job.outputs) - set(targets) - without_room)
    if unknown:
        raise EngineError("parameter", f"{task.name} makes no output {unknown[0]!r}.")
    folders: dict[Path, int] = {}
    for name, target in targets.items():
        folder = parts.final(name).parent
        folders[folder] = folders.get(folder, 0) + size_bound(target)
    there = plan_network(scene, task, job.params, region, tile)
    if there is not None:
        folder = parts.final(next(iter(job.outputs))).parent
        folders[folder] = folders.get(folder, 0) + scratch_bytes(there.plan.output, len(task.outputs))
    for folder, needed in folders.items():
        check_space(folder, needed, f"The output of {scene.path.name}")
    run = plan if there is None else there.plan
    log_raster_estimate(plan, run, scene, len(task.outputs), sum(folders.values()), track)


def _open_writers(ready: Prepared, parts: Parts, track: Track, stack: ExitStack) -> dict[str, RasterWriter]:
    """Open a writer for each output."""
    targets = ready.finisher.targets(file_tags(ready), bool(ready.job.params.get("cog")))
    return {
        name: stack.enter_context(
            RasterWriter(target, parts.path(name), track.cancel, parts.final(name).name)
        )
        for name, target in targets.items()
    }


def _quality(
    ready: Prepared, parts: Parts, reference: Reference, bands: Sequence[int], track: Track
) -> dict[str, Any]:
    def wanted(row: int, col: int, height: int, width: int) -> np.ndarray | None:
        return ready.plan.wanted(Piece(row, row + height, col, col + width))

    output = parts.path("raster")
    return compare(output, bands, ready.scene, reference, ready.scalings, track, ready.plan.rect, wanted)


class Writers:
    """The writers of one run, as a sink."""

    def __init__(self, writers: Mapping[str, RasterWriter], plan: RasterPlan) -> None:
        """Blocks are written relative to the output's first pixel."""
        self._writers = dict(writers)
        self._origin = plan.output

    def put(self, piece: Piece, arrays: Mapping[str, tuple[np.ndarray, np.ndarray | None]]) -> None:
        """Write one block to every output."""
        row, col = piece.top - self._origin.top, piece.left - self._origin.left
        for name, (values, mask) in arrays.items():
            self._writers[name].write(row, col, values, mask)
