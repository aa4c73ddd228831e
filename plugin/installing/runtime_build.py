"""Build a managed runtime below KESTREL_HOME/runtimes, or say in one sentence why not.

A runtime is a virtual environment with Kestrel's packages, built in its final folder because a
virtual environment cannot be moved, and real only by its ``complete.json``, written last. Whatever
interrupts this leaves the runtime that was there before, the new one or none, never half of one.
Standard library only: it runs in a QgsTask, in qgis_process and in tests without QGIS alike.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .. import paths
from ..lockfile import Busy, LockFile
from . import children, pip
from .disk import check_space, needed_mb
from .errors import InstallError
from .filling import Filling
from .installed import COMPLETE, RuntimeInfo, State, problem, read_complete, state
from .options import ACCELERATORS, Events, Options
from .sweep import remove_unfinished, sweep
from .target import Target, find_target

if TYPE_CHECKING:
    from .interpreters import Base

__all__ = ["Events", "Options", "RuntimeInfo", "State", "install", "state"]

#: An installer that was just killed may hold the lock for a moment, until its child has noticed.
BUSY_S = 3.0
#: These failures are a full disk's when so little is left: ensurepip, for one, keeps the cause to itself.
UNCLEAR, FULL_BYTES = ("venv", "pip", "probe"), 50_000_000


def install(
    base: Base,
    options: Options,
    events: Events | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> RuntimeInfo:
    """Return a complete runtime on ``base``, building it where there is none.

    ``cancelled`` is asked ten times a second. Raises InstallError, whose codes are ``busy`` (another
    installation runs), ``home``, ``platform``, ``wheels``, ``disk``, ``network``, ``proxy``, ``tls``,
    ``forbidden``, ``stall``, ``no_wheel``, ``hash``, ``locked``, ``pip``, ``venv``, ``probe`` and
    ``cancelled``; whatever is raised, complete runtimes are as they were. The log of an attempt lies
    in KESTREL_HOME/logs; ``RuntimeInfo.log`` and the error's hint name it.
    """
    events = events or Events()
    build = _Build(base, options, events, cancelled)
    try:
        return build.run()
    except children.Cancelled:
        raise InstallError(
            "cancelled", "The installation was cancelled.", "What was downloaded is kept."
        ) from None
    except OSError as error:
        raise build.explain(error) from error


class _Build:
    """One installation: its lock, its log, its stages."""

    def __init__(self, base: Base, options: Options, events: Events, cancelled: Callable[[], bool]) -> None:
        self.base = Path(base.python)
        self.source = str(getattr(base, "source", ""))
        self.options = options
        self.events = events
        self.cancelled = cancelled
        self.runtimes = options.home / "runtimes"
        self.lock = LockFile(os.fspath(self.runtimes / "install.lock"))

    def run(self) -> RuntimeInfo:
        """Return a complete runtime; raises InstallError, children.Cancelled, OSError."""
        self._check_options()
        target = find_target(self.base, self.options)
        self.base = _versioned(self.base, target.version)
        self.runtimes.mkdir(parents=True, exist_ok=True)
        self._acquire()
        try:
            if not self.options.rebuild:
                for info in read_complete(self.runtimes):
                    if info.folder.name.partition("-")[0] == target.key and not problem(info):
                        os.utime(info.folder / COMPLETE)  # the newest is the one that is used
                        self.events.progress(1.0, "already installed")
                        return info
            remove_unfinished(self.runtimes)
            return self._install(target)
        finally:
            shutil.rmtree(pip.temporary_folder(self.options.home), ignore_errors=True)
            self.lock.release()

    def explain(self, error: OSError) -> InstallError:
        """Return the sentence for what the file system refused."""
        where = error.filename or self.options.home
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            return InstallError(
                "disk",
                f"The disk is full ({self.options.home}).",
                "Free some space, or name a folder on another disk in the variable KESTREL_HOME.",
            )
        return InstallError(
            "home",
            f"Kestrel cannot write {where} ({error.strerror or error}).",
            "Make the folder writable, close programs that use it, or name another one in the variable "
            "KESTREL_HOME.",
        )

    def _check_options(self) -> None:
        options = self.options
        if options.accelerator not in ACCELERATORS:
            raise InstallError(
                "platform",
                f"ACCELERATOR is {options.accelerator!r}.",
                f"Choose one of {', '.join(ACCELERATORS)}.",
            )
        if options.wheels and not any(options.wheels.glob("*.whl")):
            raise InstallError(
                "wheels",
                f"The wheel folder {options.wheels} holds no file that ends in .whl.",
                "Fill it on a machine with a network by `pip download` for the same system and Python.",
            )

    def _acquire(self) -> None:
        ends = time.monotonic() + BUSY_S
        while True:
            try:
                self.lock.acquire()
                return
            except Busy:
                if time.monotonic() > ends:
                    raise InstallError(
                        "busy",
                        "Another QGIS is installing a runtime right now.",
                        "Wait until it has finished; the result serves both.",
                    ) from None
            if self.cancelled():
                raise children.Cancelled
            time.sleep(0.1)

    def _install(self, target: Target) -> RuntimeInfo:
        options = self.options
        needed = needed_mb(target.lock, target.build, local=options.wheels is not None)
        check_space(options.home, needed)
        log = paths.new_log("install-runtime", options.home)
        self.events.info(
            f"Building a runtime on Python {target.version[0]}.{target.version[1]} ({self.base}) with "
            f"{target.build.plain} for {target.build.accelerator.upper()}."
        )
        if options.wheels is None:
            download = target.lock.download_mb + target.build.download_mb
            self.events.info(f"About {download} MB to download, at most {needed / 1000:.1f} GB of disk.")
        shutil.rmtree(pip.temporary_folder(options.home), ignore_errors=True)
        pip.temporary_folder(options.home).mkdir(parents=True)
        handle = self.lock.handle
        kept_open = () if handle is None else (handle,)
        filling = Filling(self.base, self.source, options, self.events, self.cancelled, log, kept_open)
        folder = self._free_folder(target.key)
        try:
            info = filling.fill(folder, target)
        except InstallError as error:
            full = error.code in UNCLEAR and shutil.disk_usage(options.home).free < FULL_BYTES
            shutil.rmtree(folder, ignore_errors=True)
            if full:
                raise self.explain(OSError(errno.ENOSPC, error.message)) from error
            raise
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        # kept after a failure: the next attempt finds what was downloaded
        shutil.rmtree(pip.cache_folder(options.home), ignore_errors=True)
        for old in sweep(self.runtimes, folder):
            self.events.info(f"Removed the older runtime in {old}.")
        self.events.progress(1.0, "ready")
        self.events.info(f"The runtime in {folder} is ready; it runs on {info.device}.")
        return info

    def _free_folder(self, key: str) -> Path:
        """Return a folder that is not there yet: a complete runtime stays until the new one is."""
        number = 1
        while True:
            folder = self.runtimes / (key if number == 1 else f"{key}-{number}")
            if not folder.exists():
                return folder
            number += 1


def _versioned(python: Path, version: tuple[int, int]) -> Path:
    """Return the name beside ``python`` that states its version, where it is the same file.

    A system's upgrade lets ``python3`` point to another version, and the runtime's packages would be
    gone for it; ``python3.11`` stays what it is or vanishes, which is noticed.
    """
    named = python.with_name(f"python{version[0]}.{version[1]}{python.suffix if os.name == 'nt' else ''}")
    try:
        return named if os.path.samefile(named, python) else python
    except OSError:
        return python
