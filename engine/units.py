"""Ranges of rows as units of work, through any ``concurrent.futures.Executor`` (ENGINE.md, section 4).

A unit owns output rows, multiples of the file's blocks, and runs every grid row that touches them:
same grid, same order of sums, so the pixels are those of one machine. It leaves arrays beside the
output, on the file system that both sides see, and may be run again at any time; the coordinator
writes them in order. A process pool, threads, or ``dask.distributed`` by ``Client.get_executor()``.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
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
from .parts import part_of
from .raster_pieces import Counts, Sink, run_piece
from .raster_plan import Piece
from .raster_prepare import Prepared, prepare
from .scene import Stamp

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
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Unit:
    """What a worker must know; the same for all units of a run but for the rows.

    ``tile``: replaces TILE where memory was short, else 0. ``stamps``, ``model_id``: the raster and the
    model as the coordinator found them, so that a worker keeps neither beyond a change.
    """

    job: str
    builder: Builder | None
    tile: int
    stamps: tuple[Stamp, ...]
    model_id: str


class _Wanted(threading.Event):
    """A unit's cancel flag: set when the folder for its blocks is gone, and with it the run."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def is_set(self) -> bool:
        """Look for the folder; every queue and every tile asks."""
        return not self._folder.exists()


class _Silent:
    """Events of a unit: nobody listens, warnings travel with the result."""

    def __init__(self, folder: Path) -> None:
        self.cancel: threading.Event = _Wanted(folder)

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
        """Save one block; raises EngineError where the disk has no room for it."""
        for name, (values, mask) in arrays.items():
            self.names[name] = None
            try:
                np.save(_file(self._folder, piece, name), values)
                if mask is not None:
                    np.save(_file(self._folder, piece, f"{name}.mask"), mask)
            except OSError as error:  # numpy's own has no errno: it counts the bytes that were not written
                raise EngineError(
                    "output",
                    f"Finished rows cannot be kept in {self._folder.parent}: "
                    f"{(error.strerror or str(error)).lower()}.",
                    "Free some space or choose another folder.",
                ) from error


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

    ``builder`` must be picklable where the executor runs processes. The units' files lie beside the output
    and are removed in any case. Raises EngineError when a worker dies.
    """
    pieces = list(units(ready.plan.output, rows))
    unit = Unit(ready.job.to_json(), builder, ready.tile, ready.scene.stamps, ready.task.model_id)
    part = part_of(next(iter(ready.job.outputs.values())))
    with (
        _folder_beside(part) as folder,
        track.stage("tiles", TILES_FROM),
        _telling_of_death(),
    ):
        futures: list[Future[UnitResult]] = []
        try:
            for piece in pieces:
                futures.append(executor.submit(run_unit, unit, str(folder), piece))
            for number, (piece, future) in enumerate(zip(pieces, futures, strict=True)):
                result = _wait(future, track)
                for block in blocks(ready, piece):
                    sink.put(block, _load(folder, block, result.names))
                written.merge(result.written)
                counts.merge(result.counts)
                for warning in result.warnings:
                    track.warn(warning)
                for name in ("prepare", "predict"):
                    track.add(name, result.seconds.get(name, 0.0))
                batch = result.batch
                share = (number + 1) / len(pieces)
                fraction = TILES_FROM + (TILES_TO - TILES_FROM) * share
                track.progress(fraction, number + 1, len(pieces), "tiles", None)
        finally:
            for future in futures:
                future.cancel()
    return batch


@contextmanager
def _folder_beside(part: Path) -> Iterator[Path]:
    """Make a folder that the next run clears as it clears part files, should this one be killed."""
    folder = part.with_suffix(".units")
    folder.mkdir()
    try:
        yield folder
    finally:
        # a unit that still runs may be about to save a block: under another name it finds no folder
        gone = part.with_suffix(".gone")
        with suppress(OSError):
            folder.rename(gone)
        shutil.rmtree(gone if gone.exists() else folder, ignore_errors=True)


@contextmanager
def _telling_of_death() -> Iterator[None]:
    try:
        yield
    except BrokenExecutor as error:
        raise EngineError(
            "runtime",
            f"A worker process ended before its rows were done ({str(error).rstrip('.') or 'killed'}).",
            "Run again with new workers; with fewer of them when memory was short.",
        ) from error


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


def run_unit(unit: Unit, folder: str, piece: Piece) -> UnitResult:
    """Run one unit wherever the executor put it; the model is built once for each process and Job."""
    events = _Silent(Path(folder))
    with _PREPARING:  # threads of one process share it
        ready = _prepared(unit, Track(events)).tiled
    track = Track(events)
    store, written, counts = _Store(Path(folder)), ready.finisher.start(), Counts()
    batch = run_piece(ready, piece, store, written, counts, track, threads=True)
    return UnitResult(tuple(store.names), written, counts, batch, tuple(track.warnings), dict(track.seconds))


_PREPARING = threading.Lock()
#: The last unit's preparation in this process: a worker has one run at a time.
_LAST: dict[Unit, Prepared] = {}


def _prepared(unit: Unit, track: Track) -> Prepared:
    from .run import look  # which imports this module's neighbours

    if unit not in _LAST:
        _LAST.clear()
        job = Job.from_json(unit.job)
        scene, region, task, device = look(job, track, unit.builder)
        replace(scene, stamps=unit.stamps).check_unchanged()
        _LAST[unit] = prepare(job, scene, region, task, device, track, unit.tile)
    return _LAST[unit]


def _wait(future: Future[UnitResult], track: Track) -> UnitResult:
    while True:
        track.check()
        try:
            return future.result(timeout=POLL_S)
        except NotYet:
            if future.done():  # meanwhile, or by an error of that name
                return future.result()


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
