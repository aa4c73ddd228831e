"""Files that come back as they were when a run does not come to its end.

Some outputs belong together, and the worker's are complete before the last one is: those that it replaced
meanwhile are kept under a hidden name. A hard link costs nothing; where there are none, a copy is made.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from types import TracebackType

from .raster_output import short_label
from .sink import SinkError, copy_whole
from .texts import tr


class KeptFiles:
    """One run's hold on files that it may replace: ``with KeptFiles(...) as kept``.

    Leaving without ``commit`` puts the old files back and removes the new ones. What a killed run kept is
    put back by the next one. Locks are the caller's.
    """

    def __init__(self, families: Iterable[Sequence[str]]) -> None:
        """``families``: real paths of files that belong together, the one named by the user first."""
        self._families = [list(family) for family in families]
        self._done = False

    def __enter__(self) -> KeptFiles:
        """Keep the files; raises SinkError where that fails, and nothing has changed then."""
        for family in self._families:
            if any(os.path.lexists(kept_path(path)) for path in family):
                _put_back(family)
        try:
            for path in self._paths():
                if os.path.exists(path):
                    _keep(path)
        except OSError as error:
            self._drop()
            raise SinkError(
                tr("{path} could not be kept while the new one is made ({reason}).").format(
                    path=error.filename or "", reason=error.strerror or error
                )
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the old files back unless committed."""
        if not self._done:
            for family in self._families:
                _put_back(family)

    def commit(self) -> None:
        """Declare the new files whole and let the old ones go."""
        self._done = True
        self._drop()

    def _paths(self) -> list[str]:
        return [path for family in self._families for path in family]

    def _drop(self) -> None:
        for path in self._paths():
            with contextlib.suppress(OSError):
                os.unlink(kept_path(path))


def kept_path(path: str) -> str:
    """Return where the old file waits."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{short_label(name)}.kestrel.old")


def _keep(path: str) -> None:
    try:
        os.link(path, kept_path(path))
    except OSError:
        copy_whole(path, kept_path(path))


def _put_back(family: Sequence[str]) -> None:
    """Put the old files back, the one named by the user last; raises SinkError."""
    for path in reversed(family):
        old = kept_path(path)
        try:
            if os.path.lexists(old):
                os.replace(old, path)
                gone = old  # of two names of one file a renaming leaves both
            else:
                gone = path  # it was not there before
            with contextlib.suppress(FileNotFoundError):
                os.unlink(gone)
        except OSError as error:
            raise SinkError(
                tr("The old {path} could not be put back ({reason}); it lies in {old}.").format(
                    path=path, reason=error.strerror or error, old=old
                )
            ) from None
