"""Kinds ``raster`` and ``scores``: a scene in, a raster on its grid out.

A run is prepared once (statistics, survey, plan) and then made in pieces: the whole output inline, or
ranges of rows through an executor (units.py). Whatever the pieces, every pixel is the same sum.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..models.task import Builder, Task
from . import provenance
from .bands import refuse_sar
from .blend import Strip
from .errors import EngineError
from .events import Track
from .finish import Answered, Finisher, Restored, Written, ground
from .forward import Forward, TileTooLarge
from .heap import give_back
from .job import Job
from .loop import TILES_FROM, TILES_TO, Clock, batches, telling_how_far
from .output_checks import check_space
from .parts import Parts
from .pipeline import WriteBehind, read_ahead
from .plan import number
from .quality import compare
from .raster_plan import Piece, RasterPlan, log_raster_estimate, plan_raster, snapped
from .raster_profile import size_bound
from .raster_writer import RasterWriter
from .reference import Reference, check_reference
from .region import Region
from .scaling import Scaling
from .scene import Reader, Scene
from .statistics import band_statistics
from .stretch import display, outside_warning, resolve_stretch
from .survey import survey
from .tiles import Loaded, Loader
from .versions import kestrel_version

#: Share of the progress bar at which the outputs are complete.
QUALITY_FROM = 0.97


class Sink(Protocol):
    """Where finished blocks go: writers, or a unit's own file."""

    def put(self, piece: Piece, arrays: Mapping[str, tuple[np.ndarray, np.ndarray | None]]) -> None:
        """Take the arrays of one block, by output."""


@dataclass
class Counts:
    """Numbers of the tiles that ran and of those without data; two panels or units may share a tile."""

    run: set[int] = field(default_factory=set)
    nodata: set[int] = field(default_factory=set)

    @property
    def tiles_run(self) -> int:
        """Return how many tiles ran at least once."""
        return len(self.run)

    @property
    def tiles_nodata(self) -> int:
        """Return how many tiles were read in vain."""
        return len(self.nodata - self.run)

    def merge(self, other: Counts) -> None:
        """Add another part's tiles."""
        self.run |= other.run
        self.nodata |= other.nodata


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything a piece needs to know; the same on every machine that prepares the same Job.

    ``display``: for each band the raw values that a viewer shows as black and white.
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
        # bytes are stretched from 0 to 255 whatever they are: their percentiles are worth no second
        plain = task.inputs[0].scale.mode == "auto" and all(
            scene.dtypes[b - 1] == np.uint8 for b in scene.bands
        )
        statistics = band_statistics(scene, rect, track, brief=plain)
        if task.change:
            refuse_sar(scene, statistics)
        scalings = resolve_stretch(task.inputs[0].scale, statistics, scene.bands)
        warning = outside_warning(scalings, statistics, scene.bands)
        if warning:
            track.warn(warning)
        if all(found is None for found in statistics):
            track.warn(f"{scene.path.name} has no valid pixel in the chosen bands; nothing was computed.")
    for band, scaling in zip(scene.bands, scalings, strict=True):
        track.info(f"Stretch of band {band}: {scaling.low:.6g} to {scaling.high:.6g}, from {scaling.source}.")
    with track.stage("survey", 0.05), telling_how_far(lambda: 0.0, scene):
        task = survey(task, scene, scalings, rect, track)
        give_back()
    for text in task.notes.get("log", ()):
        track.info(text)
    finisher = _finisher(job, scene, plan, task, scalings)
    shown = display(scalings, statistics)
    return Prepared(job, scene, region, task, device, scalings, plan, finisher, shown, tile)


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
            side = -(-max(scene.height, scene.width) // task.multiple) * task.multiple
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
    if named and not task.change:
        raise EngineError(
            "parameter", f"{task.name} restores nothing that a reference could be compared with."
        )
    rect = snapped(region, scene) if region else None
    reference = check_reference(scene, named["path"], named.get("bands") or [], rect) if named else None
    inputs = [stamp.path for stamp in scene.stamps]
    if reference is not None:
        inputs += [stamp.path for stamp in reference.scene.stamps]
    with Parts(job.outputs, inputs) as parts:
        _check_room(job, scene, region, task, parts, track, tile)
        ready = prepare(job, scene, region, task, device, track, tile)
        counts, written = Counts(), ready.finisher.start()
        with ExitStack() as stack:
            writers = _open_writers(ready, parts, track, stack)
            sink = Writers(writers, ready.plan)
            if executor is None:
                batch = run_piece(ready, ready.plan.output, sink, written, counts, track, threads)
            else:
                from .units import run_units  # which needs this module

                batch = run_units(ready, executor, builder, sink, written, counts, track)
            if written.marks.needed and written.marks.value is not None:
                writers["raster"].declare_nodata(written.marks.value)
            for place, writer in enumerate(writers.values()):
                share = (QUALITY_FROM - TILES_TO) / len(writers)
                writer.finish(track, TILES_TO + place * share, TILES_TO + (place + 1) * share)
        scene.check_unchanged()
        figures = _figures(ready, written, counts, batch, track)
        if reference is not None:
            reference.scene.check_unchanged()
            with track.stage("quality", QUALITY_FROM):
                figures["quality"] = _quality(ready, parts, reference, figures["output_bands"], track)
        if "report" in job.outputs:
            from .raster_report import write_report  # matplotlib is slow to import

            with track.stage("report", 0.98):
                try:
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
    targets = _finisher(job, scene, plan, task, ()).targets({}, bool(job.params.get("cog")))
    unknown = sorted(set(job.outputs) - set(targets) - {"report"})
    if unknown:
        raise EngineError("parameter", f"{task.name} makes no output {unknown[0]!r}.")
    folders: dict[Path, int] = {}
    for name, target in targets.items():
        folder = parts.final(name).parent
        folders[folder] = folders.get(folder, 0) + size_bound(target)
    for folder, needed in folders.items():
        check_space(folder, needed, f"The output of {scene.path.name}")
    log_raster_estimate(plan, scene, len(task.outputs), sum(folders.values()), track)


def _open_writers(ready: Prepared, parts: Parts, track: Track, stack: ExitStack) -> dict[str, RasterWriter]:
    """Open a writer for each output."""
    targets = ready.finisher.targets(_tags(ready), bool(ready.job.params.get("cog")))
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


def run_piece(
    ready: Prepared,
    piece: Piece,
    sink: Sink,
    written: Written,
    counts: Counts,
    track: Track,
    threads: bool,
) -> int:
    """Run the tiles of one piece in reading order, panel by panel; return the tiles per batch at the end."""
    plan, task, scene = ready.plan, ready.task, ready.scene
    smaller = task.shrinkable
    forward = Forward(task, plan.grid, None, ready.device, ready.batch, track, smaller_tiles=smaller)
    panels = [(panel, plan.tiles(panel)) for panel in plan.panels(piece)]
    clock = Clock(sum(len(tiles) for _, tiles in panels), track)

    with telling_how_far(clock.share, scene), track.stage("tiles", TILES_FROM):
        for panel, tiles in panels:
            blender = _Blender(ready, panel, sink, written)
            loader = _loader(ready, panel)
            reading = read_ahead(scene.reader, loader.load, tiles, track.cancel, threads, plan.ahead)
            behind = WriteBehind(scene.reader, blender.take, track.cancel, threads)
            with (
                behind,
                closing(reading),
                closing(forward.prepared(batches(reading, forward), threads)) as under_way,
            ):
                for batch, prepared in under_way:
                    answers = iter(forward.run([i for i in batch if i.image is not None], prepared))
                    answered = []
                    for item in batch:
                        if item.image is None:
                            counts.nodata.add(item.tile.number)
                        else:
                            counts.run.add(item.tile.number)
                            answered.append((item, _checked(next(answers), task, plan)))
                    if answered:
                        behind.put(answered)
                    clock.tick(len(batch))
                behind.put(None)
    return forward.size


class _Blender:
    """What happens behind the loop: answers into the strip, finished blocks into the sink."""

    def __init__(self, ready: Prepared, panel: Piece, sink: Sink, written: Written) -> None:
        plan = ready.plan
        rows, cols = (panel.top, panel.bottom), (panel.left, panel.right)
        height = plan.grid.tile[0] * plan.factor
        self._strip = Strip(len(ready.task.outputs), rows, cols, plan.output.top, height)
        self._ready, self._panel, self._sink, self._written = ready, panel, sink, written

    def take(self, reader: Reader, answered: list[tuple[Loaded, np.ndarray]] | None) -> None:
        """Add the answers of one batch, in reading order; None: there are no more."""
        for item, answer in answered or ():
            rows, cols = self._ready.plan.windows(item.tile)
            self._finish(reader, rows.start)
            self._strip.add(answer - item.image if self._ready.task.change else answer, rows, cols)
        if answered is None:
            self._finish(reader, self._panel.bottom)

    def _finish(self, reader: Reader, until: int) -> None:
        for top, bottom, sums in self._strip.finish(until):
            piece = Piece(top, bottom, self._panel.left, self._panel.right)
            self._sink.put(piece, self._ready.finisher.finish(reader, piece, sums, self._written))


def _loader(ready: Prepared, panel: Piece) -> Loader:
    wanted = ready.task.inputs[0]
    fill = {"median": 0.5, "zero": 0.0, "nearest": None}[wanted.fill]
    counts = functools.partial(ready.plan.counts, piece=panel)
    return Loader(ready.plan.grid, wanted, ready.scalings, fill, counts)


def _checked(answer: np.ndarray, task: Task, plan: RasterPlan) -> np.ndarray:
    """Hold the task to its contract: one band for each output, the tile's size, finite values."""
    shape = (len(task.outputs), plan.grid.tile[0] * plan.factor, plan.grid.tile[1] * plan.factor)
    answer = np.asarray(answer)
    if answer.shape != shape:
        raise EngineError("internal", f"{task.name} answered {answer.shape} for a tile, not {shape}.")
    # the sum is not finite where a value is not: one pass instead of two
    if not np.isfinite(answer.sum()) and not np.isfinite(answer).all():
        raise EngineError(
            "model",
            f"{task.name} answered values that are no numbers.",
            "The weights are damaged, or the values lie far outside what the model knows.",
        )
    return answer


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


def _finisher(job: Job, scene: Scene, plan: RasterPlan, task: Task, scalings: Sequence[Scaling]) -> Finisher:
    if not task.change:
        names = [name for name in ("raster", "scores", "classes") if name in job.outputs]
        return Answered(scene, plan, task, names)
    other = job.params.get("other_bands") or "copy"
    if other not in ("copy", "drop"):
        raise EngineError("parameter", f"OTHER_BANDS is {other!r}; it must be copy or drop.")
    strength = float(number(job.params, "strength", 1.0, 0, 1))
    detail, haze = "report" in job.outputs, "haze" in job.outputs
    return Restored(scene, plan, scalings, strength, other == "copy", haze, detail)


def _tags(ready: Prepared) -> dict[str, str]:
    """Return what a file should say of its making, for whoever finds it without its sidecar."""
    model = provenance.model(ready.task, ready.job.model)
    params = {name: value for name, value in ready.job.params.items() if value not in (None, "", [])}
    return {
        "KESTREL_MODEL": str(model["id"]),
        "KESTREL_SHA256": str(model["sha256"]),
        "KESTREL_VERSION": kestrel_version(),
        "KESTREL_PARAMETERS": ", ".join(f"{name}={value}" for name, value in sorted(params.items())),
        "KESTREL_STRETCH": ", ".join(f"{s.low:.9g}..{s.high:.9g}" for s in ready.scalings),
    }


def _figures(ready: Prepared, written: Written, counts: Counts, batch: int, track: Track) -> dict[str, Any]:
    plan, scene, task, finisher = ready.plan, ready.scene, ready.task, ready.finisher
    total = len(plan.grid)
    stretch = {
        "mode": ready.scalings[0].mode,
        "low": [s.low for s in ready.scalings],
        "high": [s.high for s in ready.scalings],
        "source": ready.scalings[0].source,
    }
    used = {
        **ready.job.params,
        "tile": plan.grid.tile[0] if plan.grid.tile[0] == plan.grid.tile[1] else list(plan.grid.tile),
        "overlap": plan.overlap,
        "batch": batch,
        "bands": list(scene.bands),
        "device": ready.device,
    }
    figures: dict[str, Any] = {
        "tiles_total": total,
        "tiles_run": counts.tiles_run,
        "tiles_skipped": total - counts.tiles_run,
        "tiles_nodata": counts.tiles_nodata,
        "valid_pixels": written.valid_pixels,
        "invalid_pixels": written.invalid_pixels,
        "bands": list(scene.bands),
        "scaling": {**stretch, "dtype": str(scene.dtype)},
        "stretch": stretch,
        "display": {"low": [low for low, _ in ready.display], "high": [high for _, high in ready.display]},
        "size": list(reversed(plan.shape)),
        "model": provenance.model(task, ready.job.model),
        "params_used": used,
        "inputs": provenance.inputs(scene),
        "versions": provenance.versions(),
        "device": ready.device,
        "crs": scene.georef.wkt,
        "pixel_m": scene.georef.pixel_m(scene.width / 2, scene.height / 2),
        "seconds": track.seconds,
    }
    if isinstance(finisher, Restored):
        assert written.tally is not None
        figures["valid_pixels"] = written.tally.valid_pixels
        figures["invalid_pixels"] = written.tally.invalid_pixels
        figures["output_bands"] = [position + 1 for position in finisher.positions]
        figures["tally"] = written.tally.figures()
        figures["haze_range"] = [0.0, written.haze_max]
    return figures
