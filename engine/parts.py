"""Part files: the outputs of a run grow beside their places and take them together, or not at all.

An existing output stays as it is until everything new is complete on the disk (ENGINE.md, section 1,
"Atomic output"). After a power cut between two renames each file is complete, the old or the new one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from .errors import EngineError
from .output_checks import check_output
from .run_lock import Busy, RunLock, alive
from .side_files import remove_side_files

#: Bytes of an output's name that a part's name may repeat: 255 is the limit of file systems, and a
#: part's own side files add up to ".", ".4294967295", ".part.plain.tif" and ".msk.ovr.tmp".
_LONGEST_LABEL = 200

#: Without locks nothing tells a dead run from one on another computer, but no run leaves a part
#: untouched that long.
_UNCERTAIN_AGE_S = 24 * 3600


class Parts:
    """The output files of one run, by the names of the Job.

    Creating it checks every place, takes one lock per output and clears what dead runs left. Used as a
    context it abandons everything that was not committed.
    """

    def __init__(self, outputs: Mapping[str, str | Path], inputs: Iterable[Path] = ()) -> None:
        """Raise EngineError for an output that cannot be written; then nothing was changed."""
        # a link is followed, so that the file behind it is replaced and not the link
        self._places = {name: _Place(Path(os.path.realpath(path))) for name, path in outputs.items()}
        self._locks: list[RunLock] = []
        inputs = list(inputs)
        finals = [place.final for place in self._places.values()]
        for i, final in enumerate(finals):
            if final in finals[:i]:
                raise EngineError(
                    "output", f"Two outputs are to be written to {final}.", "Choose two different files."
                )
            check_output(final, inputs)
        try:
            for place in self._places.values():
                self._locks.append(_take_lock(place))
                place.clear_stale(self._locks[-1].certain)
        except BaseException:
            self._release()
            raise

    def path(self, name: str) -> Path:
        """Return the part file to write output ``name`` to; it does not exist yet."""
        return self._places[name].part

    def final(self, name: str) -> Path:
        """Return where output ``name`` will be."""
        return self._places[name].final

    def commit(self) -> None:
        """Put every part into its place; raises EngineError, and then every old output is back.

        All parts are forced to the disk before the first rename, the folders after the last. Then the
        side files of the rasters that were replaced are removed.
        """
        moves = [move for place in self._places.values() for move in place.moves()]
        try:
            for move in moves:
                sync_file(move.part)
        except OSError as error:
            self.abandon()
            raise EngineError(
                "output",
                f"{move.final} cannot be written: {(error.strerror or str(error)).lower()}.",
                "Free some space or choose another folder.",
            ) from None
        self._rename(moves)
        written = {move.final for move in moves}
        for folder in {final.parent for final in written}:
            _sync_folder(folder)
        for move in moves:
            remove_side_files(move.final, move.replaced, written)
            with suppress(OSError):
                move.backup.unlink()
        self._release()

    def abandon(self) -> None:
        """Remove all parts with their side files and give the locks back; harmless after commit."""
        if not self._locks:
            return
        for place in self._places.values():
            _remove_all(place.final.parent, place.part_prefix)
        self._release()

    def __enter__(self) -> Parts:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Abandon what was not committed."""
        self.abandon()

    def _rename(self, moves: list[_Move]) -> None:
        begun: list[_Move] = []
        try:
            for move in moves:
                begun.append(move)
                move.do()
        except BaseException as error:
            for move in reversed(begun):
                move.undo()
            self.abandon()
            if not isinstance(error, OSError):
                raise
            raise EngineError(
                "output",
                f"{begun[-1].final} cannot be replaced: {(error.strerror or str(error)).lower()}.",
                "Close it in other programs, or choose another file.",
            ) from None

    def _release(self) -> None:
        while self._locks:
            self._locks.pop().release()


def part_of(output: str | Path) -> Path:
    """Return the part file of an output of this process."""
    return _Place(Path(os.path.realpath(output))).part


@dataclass
class _Move:
    """One rename, and the way back."""

    part: Path
    final: Path
    backup: Path
    replaced: bool = False
    done: bool = False

    def do(self) -> None:
        """Set the old file aside under a second name and put the part into its place."""
        if self.final.exists():
            try:
                os.link(self.final, self.backup)  # so that the output is never missing
            except OSError:
                os.rename(self.final, self.backup)  # exFAT, some network drives
            self.replaced = True
        os.replace(self.part, self.final)
        self.done = True

    def undo(self) -> None:
        """Put the old file back, or remove the new one where there was none."""
        with suppress(OSError):
            if self.replaced:
                os.replace(self.backup, self.final)
                self.backup.unlink(missing_ok=True)  # two names of one file are left as they are
            elif self.done:
                self.final.unlink()


@dataclass(frozen=True)
class _Place:
    """Where one output goes, and the names around it."""

    final: Path

    @property
    def label(self) -> str:
        """The output's name as its hidden companions repeat it."""
        name = self.final.name.encode()
        if len(name) <= _LONGEST_LABEL:
            return self.final.name
        start = name[: _LONGEST_LABEL - 9].decode(errors="ignore")
        return f"{start}-{hashlib.sha256(name).hexdigest()[:8]}"

    @property
    def part_prefix(self) -> str:
        """What the names of this process's part and its side files begin with."""
        return f".{self.label}.{os.getpid()}.part"

    @property
    def part(self) -> Path:
        return self.final.with_name(self.part_prefix + self.final.suffix)

    @property
    def backup(self) -> Path:
        return self.final.with_name(f".{self.label}.kestrel.bak")

    @property
    def lock(self) -> Path:
        return self.final.with_name(f".{self.label}.run.lock")

    def moves(self) -> list[_Move]:
        """Return the renames: the part, and what GDAL had to put beside it (a CRS GeoTIFF cannot say)."""
        found = [_Move(self.part, self.final, self.backup)]
        aux = self.part.with_name(self.part.name + ".aux.xml")
        if aux.exists():
            backup = self.backup.with_name(self.backup.name + ".aux.xml")
            found.append(_Move(aux, self.final.with_name(self.final.name + ".aux.xml"), backup))
        return found

    def clear_stale(self, certain: bool) -> None:
        """Remove the parts of dead runs; put back an output that a crash left set aside.

        The lock is held. Where it is not ``certain`` only old parts go.
        """
        pattern = re.compile(rf"\.{re.escape(self.label)}\.(\d+)\.part(\..*)?")
        folder = self.final.parent
        for name in os.listdir(folder):
            match = pattern.fullmatch(name)
            if not match:
                continue
            pid = int(match[1])
            with suppress(OSError):
                if not certain and time.time() - (folder / name).stat().st_mtime < _UNCERTAIN_AGE_S:
                    continue
                if pid == os.getpid() or not alive(pid):  # our own number: from an earlier process
                    _remove(folder / name)
        for backup in (self.backup, self.backup.with_name(self.backup.name + ".aux.xml")):
            with suppress(OSError):
                if backup.exists() and backup == self.backup and not self.final.exists():
                    os.replace(backup, self.final)
                else:
                    backup.unlink(missing_ok=True)


def _take_lock(place: _Place) -> RunLock:
    lock = RunLock(place.lock)
    try:
        lock.acquire()
    except Busy:
        raise EngineError(
            "output", f"Another run is writing {place.final}.", "Wait for it or choose another file."
        ) from None
    except OSError as error:
        raise EngineError(
            "output",
            f"The folder {place.final.parent} cannot be written: {(error.strerror or str(error)).lower()}.",
            "Choose another folder or change its permissions.",
        ) from None
    return lock


def sync_file(path: Path) -> None:
    """Force a file's bytes to the disk; raises OSError, also when it is missing."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # Windows opens no folders, some network drives sync none
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove_all(folder: Path, prefix: str) -> None:
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(prefix):
                with suppress(OSError):
                    _remove(folder / name)


def _remove(path: Path) -> None:
    """Remove a part: a file, or the folder of a unit that ran elsewhere."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()
