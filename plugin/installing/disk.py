"""Ask before the download whether the disk can take it."""

from __future__ import annotations

import shutil
from pathlib import Path

from .errors import InstallError
from .locks import Lock
from .sources import Build

#: For pip, compiled files and what the file system rounds up: 1297 MB of packages for the CPU took
#: 1624 MB with Python 3.11 on ext4.
MORE = 1.3


def needed_mb(lock: Lock, build: Build, *, local: bool) -> float:
    """Return the megabytes an installation takes at its largest; ``local``: the wheels lie here.

    A download lies in pip's cache and, unpacked from there, a second time beside the packages.
    """
    installed = MORE * (lock.installed_mb + build.installed_mb)
    return installed if local else installed + 2.0 * (lock.download_mb + build.download_mb)


def check_space(home: Path, needed: float) -> None:
    """Raise InstallError (``disk``) where fewer than ``needed`` megabytes are free below ``home``."""
    folder = home
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        free = shutil.disk_usage(folder).free / 1e6
    except OSError:
        return  # some network drives do not tell; a full one is reported when it happens
    if free < needed:
        raise InstallError(
            "disk",
            f"The runtime needs about {needed / 1000:.1f} GB in {home}, where only {free / 1000:.1f} GB are "
            "free.",
            "Free some space, or name a folder on another disk in the variable KESTREL_HOME.",
        )
