"""The loop over the tiles of one piece of a raster output, and what happens behind it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..models.task import Task
from .blend import Strip
from .errors import EngineError
from .events import Track
from .finish import Written
from .forward import Forward
from .joined import Joined
from .joined_tiles import JoinedLoader
from .loop import TILES_FROM, Clock, batches, telling_how_far
from .pipeline import WriteBehind, read_ahead
from .raster_plan import Piece, RasterPlan
from .raster_prepare import Prepared
from .scene import Reader
from .tiles import Loaded, Loader


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


def _loader(ready: Prepared, panel: Piece) -> Loader | JoinedLoader:
    counts = functools.partial(ready.plan.counts, piece=panel)
    if isinstance(ready.scene, Joined):
        parts = tuple(ready.scene.parts.values())
        return JoinedLoader(ready.plan.grid, ready.task.inputs, parts, ready.scalings, counts)
    wanted = ready.task.inputs[0]
    fill = {"median": 0.5, "zero": 0.0, "nearest": None}[wanted.fill]
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
