"""Where raster outputs go: what can be said against them before the run, and what a run leaves.

The worker writes a part file beside each output and renames all of them at the end, so an old output
stays until the new one is whole (CONTRACTS.md, section 5). This side holds the outputs' locks and
removes what workers left that did not come to their end, under the names of engine/parts.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from types import TracebackType

from .destination import Destination, busy, file_problem, same_path, unwritable
from .lockfile import Busy, LockFile
from .sink import SinkError
from .texts import tr

SUFFIXES = (".tif", ".tiff")

#: Files that GDAL and QGIS take for a part of a raster: by the whole name, by the name without ending.
_BESIDE_NAME = (".ovr", ".msk", ".aux.xml", ".kestrel.json")
_BESIDE_STEM = (".qml", ".tfw", ".wld")

#: Bytes of a name that hidden names beside it repeat (engine/parts.py).
_LONGEST_LABEL = 200

#: "provider:uri"; three letters at least, so that C:\ is no provider.
_PROVIDER = re.compile(r"^\w{3,}:")


def with_suffix(typed: str) -> str:
    """Return a typed output as it will be called: without an ending it gets ``.tif``."""
    name = os.path.basename(typed)
    return typed if not name or os.path.splitext(name)[1] or os.path.isdir(typed) else f"{typed}.tif"


def raster_destination(typed: str) -> Destination:
    """Return where a typed raster output lies; the worker gets the real path, so that links stay links."""
    typed = with_suffix(typed.strip())
    return Destination("file", typed, os.path.realpath(typed))


def style_path(path: str) -> str:
    """Return where QGIS looks for a raster's style."""
    return os.path.splitext(path)[0] + ".qml"


def family(path: str) -> list[str]:
    """Return every path that may belong to a raster output, its own first."""
    stem = os.path.splitext(path)[0]
    return [path, *(path + end for end in _BESIDE_NAME), *(stem + end for end in _BESIDE_STEM)]


def raster_problem(
    destination: Destination, label: str, inputs: Mapping[str, Iterable[str]], loaded: Iterable[str]
) -> str | None:
    """Say in one sentence why a raster cannot be written there, or return None.

    ``label``: the parameter's id. ``inputs``: parameter id -> real paths of all files that belong to it.
    ``loaded``: real paths of the files behind the current project's layers.
    """
    if _PROVIDER.match(destination.text) and not os.path.isabs(destination.text):
        return tr("{label}: {text} is no file; rasters are written as GeoTIFF files (.tif).").format(
            label=label, text=destination.text
        )
    problem = file_problem(destination.path, label, {})
    if problem:
        return problem
    if os.path.splitext(destination.path)[1].lower() not in SUFFIXES:
        return tr("{label}: {name} must end with .tif or .tiff, because only GeoTIFF is written.").format(
            label=label, name=destination.name
        )
    conflict = _conflict(destination, label, inputs)
    if conflict:
        return conflict
    if any(same_path(path, destination.path) for path in loaded):
        return tr("{label}: {path} is loaded in the current project; close the layer first.").format(
            label=label, path=destination.path
        )
    return None


def _conflict(destination: Destination, label: str, inputs: Mapping[str, Iterable[str]]) -> str | None:
    members = {os.path.normcase(os.path.realpath(path)) for path in family(destination.path)}
    for parameter, paths in inputs.items():
        for source in paths:
            if same_path(source, destination.path):
                return tr("{label} is the same file as {parameter} ({path}): choose another file.").format(
                    label=label, parameter=parameter, path=destination.path
                )
            if os.path.normcase(os.path.realpath(source)) in members:
                return tr(
                    "{label}: {name} would take over {file}, which belongs to {parameter}; "
                    "choose another file name."
                ).format(
                    label=label,
                    name=destination.name,
                    file=os.path.basename(source),
                    parameter=parameter,
                )
    return None


def outputs_problem(
    destinations: Mapping[str, Destination],
    report: tuple[str, str],
    inputs: Mapping[str, Iterable[str]],
    loaded: Iterable[str],
) -> str | None:
    """Look at all outputs of a run, each alone and against the others.

    ``destinations``: parameter id -> destination. ``report``: its parameter id and path, "" for none.
    """
    loaded = list(loaded)
    taken: dict[str, list[str]] = {}
    for label, destination in destinations.items():
        problem = raster_problem(destination, label, {**inputs, **taken}, loaded)
        if problem:
            return problem
        taken[label] = family(destination.path)
    label, path = report
    if not path:
        return None
    for parameter, paths in {**taken, **inputs}.items():
        for source in paths:
            problem = file_problem(path, label, {parameter: source})
            if problem:
                return problem
    return None


class GuardedRasters:
    """One run's hold on its outputs: ``with GuardedRasters(...) as guard``.

    Entering takes a lock for each raster and clears the parts of dead workers; leaving clears them
    again, for a worker that was killed left some, and gives the locks back.
    """

    def __init__(self, destinations: Mapping[str, Destination], report: str = "") -> None:
        """``destinations``: parameter id -> destination. ``report``: path of the report, or ""."""
        self._destinations = dict(destinations)
        self._report = os.path.realpath(report) if report else ""
        self._locks: list[LockFile] = []
        self._before: dict[str, tuple[int, int, int] | None] = {}

    def __enter__(self) -> GuardedRasters:
        """Take the locks; raises SinkError when another run has one or a folder is read-only."""
        try:
            for label, destination in self._destinations.items():
                self._lock(label, destination)
        except BaseException:
            self._release()
            raise
        self.clear()
        self._before = {label: _identity(d.path) for label, d in self._destinations.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear what a killed worker left and give the locks back."""
        self.clear()
        self._release()

    def replaced(self) -> list[Destination]:
        """Return the outputs that are no longer the files they were at the start.

        To be asked when the worker has ended: what it left is cleared first.
        """
        self.clear()
        return [d for label, d in self._destinations.items() if _identity(d.path) != self._before[label]]

    def clear(self) -> None:
        """Remove what dead processes left beside the outputs."""
        for destination in self._destinations.values():
            clear_leftovers(destination.path)
            for path in (destination.sidecar, style_path(destination.path)):
                _remove_parts(path)
        if self._report:
            clear_leftovers(self._report)

    def _lock(self, label: str, destination: Destination) -> None:
        lock = LockFile(destination.lock)
        try:
            lock.acquire()
        except Busy:
            raise SinkError(busy(destination, label)) from None
        except OSError as error:
            raise SinkError(unwritable(os.path.dirname(destination.path), label, error)) from None
        self._locks.append(lock)

    def _release(self) -> None:
        while self._locks:
            self._locks.pop().release()


def clear_leftovers(path: str) -> None:
    """Remove parts, backup and lock of a worker that was killed while it wrote ``path``.

    The output itself is whole, the old one or the new one. Nothing happens while a worker writes.
    """
    hidden = os.path.join(os.path.dirname(path), f".{short_label(os.path.basename(path))}")
    lock = LockFile(f"{hidden}.run.lock")
    held = os.path.exists(lock.path)
    try:
        if held:
            lock.acquire()
        _remove_parts(path)
        for end in ("", ".aux.xml"):
            backup, final = f"{hidden}.kestrel.bak{end}", path + end
            if os.path.exists(backup) and not end and not os.path.exists(final):
                os.replace(backup, final)
            elif os.path.exists(backup):
                os.unlink(backup)
    except (Busy, OSError):
        return  # another run writes there, or the next run will clear
    finally:
        lock.release()


def _remove_parts(path: str) -> None:
    """Remove the part files of ``path`` (``.<name>.<pid>.part*``) whose process is gone."""
    folder, name = os.path.split(path)
    pattern = re.compile(rf"\.{re.escape(short_label(name))}\.(\d+)\.part")
    with contextlib.suppress(OSError):
        found = [(entry, match) for entry in os.listdir(folder) if (match := pattern.match(entry))]
        for entry, match in found:
            if not _runs(int(match.group(1))):
                with contextlib.suppress(OSError):  # still open (Windows): the next run has it
                    os.unlink(os.path.join(folder, entry))


def short_label(name: str) -> str:
    """Return what hidden names repeat of an output's name, as engine/parts.py shortens it."""
    data = name.encode()
    if len(data) <= _LONGEST_LABEL:
        return name
    return f"{data[: _LONGEST_LABEL - 9].decode(errors='ignore')}-{hashlib.sha256(data).hexdigest()[:8]}"


def _runs(pid: int) -> bool:
    """Whether a process may still write; on Windows its open file refuses to go, so nobody asks."""
    if os.name == "nt":
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
