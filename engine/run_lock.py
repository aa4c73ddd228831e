"""One run per output: the operating system's lock on a small file beside it.

The lock goes with the process, however that ends; a file that is left over means nothing.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class Busy(Exception):
    """Another run holds the lock."""


class RunLock:
    """``path`` locked for this run. ``certain``: False where the file system knows no locks."""

    def __init__(self, path: Path) -> None:
        """Remember where; nothing is opened before :meth:`acquire`."""
        self.path = path
        self.certain = True
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock; raises Busy, or OSError when the folder cannot be written."""
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self.certain = _lock(handle)
            except BaseException:
                os.close(handle)
                raise
            # the holder before us removed its file: what we locked is no longer the file of this name
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(self.path)):
                    break
            os.close(handle)
        self._handle = handle

    def release(self) -> None:
        """Remove the file and give the lock back; harmless when it is not held."""
        if self._handle is None:
            return
        with suppress(OSError):  # Windows removes no open file: then after closing
            os.unlink(self.path)
        os.close(self._handle)
        self._handle = None
        if sys.platform == "win32":
            with suppress(OSError):
                os.unlink(self.path)


def _lock(handle: int) -> bool:
    """Lock an open file without waiting; return False where locks are unknown, raise Busy."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            # flock and not lockf: it also keeps two runs inside one process apart
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise Busy from None
    except OSError:
        return False  # some network drives
    return True


def alive(pid: int) -> bool:
    """Return whether a process of this number exists on this computer."""
    if sys.platform == "win32":  # os.kill would end it
        import ctypes

        query, still_active = 0x1000, 259
        handle = ctypes.windll.kernel32.OpenProcess(query, False, pid)
        if not handle:
            return False
        code = ctypes.c_ulong()
        ctypes.windll.kernel32.GetExitCodeProcess(handle, ctypes.byref(code))
        ctypes.windll.kernel32.CloseHandle(handle)
        return code.value == still_active
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
