"""Ranges of rows as units of work, through any ``concurrent.futures.Executor`` (ENGINE.md, section 4).

A unit owns output rows, multiples of the file's blocks, and runs every grid row that touches them:
same grid, same order of sums, so the pixels are those of one machine. It leaves arrays beside the
output, on the file system that both sides see, and may be run again at any time; the coordinator
writes them in order. A process pool, threads, or ``dask.distributed`` by ``Client.get_executor()``.
"""

from __future__ import annotations

import functools
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..models.task import Builder
from .blend import BLOCK
from .errors import EngineError
from .events import Track
from .finish import Written
from .job import Job
from .loop import TILES_FROM, TILES_TO
from .raster_plan import Piece
from .raster_run import Counts, Prepared, Sink, prepare, run_piece

#: Rows of one unit: at tiles of 512 about 6 % of the work is done twice.
UNIT_ROWS = 8192
POLL_S = 0.25


@dataclass(frozen=True)
class UnitResult:
    """What a unit gives back: its blocks' arrays lie in the folder, named by piece and output."""

    names: tuple[str, ...]
    written: Written
    counts: Counts
    batch: int
    warnings: tuple[str, ...]


class _Silent:
    """Events of a unit: nobody listens, warnings travel with the result."""

    def __init__(self) -> None:
        self.cancel = threading.Event()

    def progress(self, *_: Any) -> None:
        """Say nothing."""

    def log(self, level: str, text: str) -> None:
        """Say nothing."""


class _Store:
    """A sink that keeps one unit's blocks as ``.npy`` files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names: dict[str, None] = {}

    def put(self, piece: Piece, arrays: Mapping[str, tuple[np.ndarray, np.ndarray | None]]) -> None:
        """Save one block."""
        for name, (values, mask) in arrays.items():
            self.names[name] = None
            np.save(_file(self._folder, piece, name), values)
            if mask is not None:
                np.save(_file(self._folder, piece, f"{name}.mask"), mask)


def run_units(
    ready: Prepared,
    executor: Executor,
    builder: Builder | None,
    sink: Sink,
    written: Written,
    counts: Counts,
    track: Track,
    rows: int = UNIT_ROWS,
) -> int:
    """Run the whole output in units of ``rows`` and write them in order; return the tiles per batch.

    ``builder`` must be picklable where the executor runs processes. Raises EngineError when a worker
    dies; the units' files are removed in any case.
    """
    output = ready.plan.output
    pieces = list(units(output, rows))
    target = Path(next(iter(ready.job.outputs.values())))
    batch, tile = 0, ready.plan.grid.tile
    asked = max(tile) if max(tile) != ready.task.tile else 0
    prefix = f".{target.name}.{os.getpid()}.part."
    with (
        tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent) as folder,
        track.stage("tiles", TILES_FROM),
    ):
        work = functools.partial(run_unit, ready.job.to_json(), builder, asked, folder)
        futures = [executor.submit(work, piece) for piece in pieces]
        try:
            for number, (piece, future) in enumerate(zip(pieces, futures, strict=True)):
                result = _wait(future, track)
                for block in blocks(ready, piece):
                    sink.put(block, _load(Path(folder), block, result.names))
                written.merge(result.written)
                counts.merge(result.counts)
                for warning in result.warnings:
                    track.warn(warning)
                batch = result.batch
                share = (number + 1) / len(pieces)
                fraction = TILES_FROM + (TILES_TO - TILES_FROM) * share
                track.progress(fraction, number + 1, len(pieces), "tiles", None)
        finally:
            for future in futures:
                future.cancel()
    return batch


def units(output: Piece, rows: int = UNIT_ROWS) -> Iterator[Piece]:
    """Cut an output into ranges of rows, multiples of the file's blocks."""
    assert rows % BLOCK == 0
    for top in range(output.top, output.bottom, rows):
        yield Piece(top, min(output.bottom, top + rows), output.left, output.right)


def blocks(ready: Prepared, piece: Piece) -> Iterator[Piece]:
    """Yield the blocks of a piece as :func:`run_piece` hands them to its sink."""
    for panel in ready.plan.panels(piece):
        for top in range(panel.top, panel.bottom, BLOCK):
            yield Piece(top, min(panel.bottom, top + BLOCK), panel.left, panel.right)


def run_unit(job_json: str, builder: Builder | None, tile: int, folder: str, piece: Piece) -> UnitResult:
    """Run one unit wherever the executor put it; the model is built once for each process and Job."""
    ready = _prepared(job_json, builder, tile)
    track = Track(_Silent())
    store, written, counts = _Store(Path(folder)), ready.finisher.start(), Counts()
    batch = run_piece(ready, piece, store, written, counts, track, threads=True)
    return UnitResult(tuple(store.names), written, counts, batch, tuple(track.warnings))


@functools.lru_cache(maxsize=1)
def _prepared(job_json: str, builder: Builder | None, tile: int) -> Prepared:
    from .run import look  # which imports this module's neighbours

    track = Track(_Silent())
    job = Job.from_json(job_json)
    scene, region, task, device = look(job, track, builder)
    return prepare(job, scene, region, task, device, track, tile)


def _wait(future: Future[UnitResult], track: Track) -> UnitResult:
    while True:
        track.check()
        try:
            return future.result(timeout=POLL_S)
        except NotYet:
            if future.done():  # the unit's own error, not ours
                raise
        except BrokenExecutor as error:
            raise EngineError(
                "runtime",
                f"A worker process ended before its rows were done ({error or 'killed'}).",
                "Run again; with fewer workers when memory was short.",
            ) from error


def _file(folder: Path, piece: Piece, name: str) -> Path:
    return folder / f"{piece.top}-{piece.left}.{name}.npy"


def _load(
    folder: Path, block: Piece, names: tuple[str, ...]
) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Return one block's arrays and remove their files."""
    arrays = {}
    for name in names:
        files = [_file(folder, block, name), _file(folder, block, f"{name}.mask")]
        values, mask = (np.load(file) if file.exists() else None for file in files)
        assert values is not None
        arrays[name] = (values, mask)
        for file in files:
            file.unlink(missing_ok=True)
    return arrays
