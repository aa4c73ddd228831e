"""Remove runtimes that nobody needs, and never one in use.

A worker's client marks its runtime by a locked file in ``<runtime>/in-use/``; the operating system
gives the lock back when that process ends, however it does, so a mark that can be locked is stale.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from pathlib import Path

from ..lockfile import Busy, LockFile
from .installed import COMPLETE, read_complete

MARKS = "in-use"
#: What a removal in progress calls complete.json: without it a runtime does not exist for anyone.
LEAVING = "leaving.json"

_counter = itertools.count(1)


def mark(python: str, runtimes: Path) -> LockFile | None:
    """Mark the runtime that ``python`` belongs to as in use; None where it is none of ``runtimes``.

    Where the folder cannot be written (one an administrator shares) there is no mark either: who may
    not write it does not remove it.
    """
    try:
        folder = runtimes / Path(python).relative_to(runtimes).parts[0]
    except (ValueError, IndexError):
        return None
    mark_file = LockFile(os.fspath(folder / MARKS / f"{os.getpid()}-{next(_counter)}.lock"))
    try:
        (folder / MARKS).mkdir(exist_ok=True)
        mark_file.acquire()
    except (OSError, Busy):
        return None
    return mark_file


def in_use(folder: Path) -> bool:
    """Return whether a living process has marked the runtime in ``folder``."""
    for path in (folder / MARKS).glob("*.lock"):
        lock = LockFile(os.fspath(path))
        try:
            lock.acquire()
        except Busy:
            return True
        except OSError:
            continue
        lock.release()
    return False


def sweep(runtimes: Path, keep: Path) -> list[Path]:
    """Remove the complete runtimes other than ``keep`` that are not in use; return their folders.

    The caller holds the installation's lock. What cannot be removed (Windows: an open file) is left
    without complete.json and goes the next time.
    """
    removed = []
    for info in read_complete(runtimes):
        if info.folder == keep or in_use(info.folder):
            continue
        complete, leaving = info.folder / COMPLETE, info.folder / LEAVING
        with contextlib.suppress(OSError):
            os.replace(complete, leaving)
            if in_use(info.folder):  # marked between the question and the answer
                os.replace(leaving, complete)
                continue
            shutil.rmtree(info.folder, ignore_errors=True)
            removed.append(info.folder)
    return removed


def remove_unfinished(runtimes: Path) -> None:
    """Remove what interrupted installations and removals left; the caller holds the lock."""
    for folder in runtimes.glob("*"):
        if folder.is_dir() and not (folder / COMPLETE).exists() and not in_use(folder):
            shutil.rmtree(folder, ignore_errors=True)
