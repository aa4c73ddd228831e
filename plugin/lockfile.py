"""One run per output: a lock file beside it that also remembers how far the run came.

The operating system's lock is the truth (it goes with the process, however that ends); the text in
the file tells the next run what an interrupted one had begun.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

if os.name == "nt":
    import msvcrt
else:
    import fcntl

#: Windows locks byte ranges and keeps others from reading them, so the range lies past the text.
_WINDOWS_OFFSET = 1 << 30

#: Every note takes this many bytes, so that a later one needs no new block on a full disk.
_NOTE_BYTES = 128


class Busy(Exception):
    """Another run holds the lock."""


class LockFile:
    """``path`` locked for this process, with a small JSON note that survives a crash."""

    def __init__(self, path: str) -> None:
        """Remember where; nothing is opened before ``acquire``."""
        self.path = path
        self._handle: int | None = None

    def acquire(self) -> dict[str, Any]:
        """Take the lock and return the note an interrupted run left, or {}.

        Raises Busy when another run holds it, OSError when the folder cannot be written.
        """
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _lock(handle)
            except BaseException:
                os.close(handle)
                raise
            # the holder before us removed its file: what we locked is no longer the file with this name
            if _same_file(handle, self.path):
                break
            os.close(handle)
        self._handle = handle
        return self._read()

    @property
    def handle(self) -> int | None:
        """Return the locked handle: a child that keeps it open keeps the lock."""
        return self._handle

    def note(self, **fields: Any) -> None:
        """Replace the note and force it to the disk, because it must be there after a power cut."""
        assert self._handle is not None
        text = json.dumps(fields).encode("utf-8").ljust(_NOTE_BYTES)
        assert len(text) == _NOTE_BYTES
        os.lseek(self._handle, 0, os.SEEK_SET)
        os.write(self._handle, text)
        os.fsync(self._handle)

    def release(self) -> None:
        """Remove the file and give the lock back; harmless when it is not held."""
        if self._handle is None:
            return
        with contextlib.suppress(OSError):  # Windows removes no open file: then after closing
            os.unlink(self.path)
        os.close(self._handle)
        self._handle = None
        if os.name == "nt":
            with contextlib.suppress(OSError):
                os.unlink(self.path)

    def abandon(self) -> None:
        """Give the lock back but leave file and note, as a crash would: the next run reads them."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _read(self) -> dict[str, Any]:
        assert self._handle is not None
        os.lseek(self._handle, 0, os.SEEK_SET)
        try:
            note = json.loads(os.read(self._handle, _NOTE_BYTES).decode("utf-8"))
        except ValueError:
            return {}
        return note if isinstance(note, dict) else {}


def _lock(handle: int) -> None:
    """Lock an open file without waiting; raises Busy."""
    try:
        if os.name == "nt":
            os.lseek(handle, _WINDOWS_OFFSET, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            # flock and not lockf: it also keeps two runs inside one QGIS apart
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise Busy from None
    except OSError:
        return  # a file system without locks (some network drives): run without


def _same_file(handle: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
