"""The lock of a platform and Python: exact versions and hashes of everything but torch."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import InstallError
from .sources import NO_BUILD_HINT, Build


@dataclass(frozen=True)
class Lock:
    """One lock file: pip reads it as a requirements file, its comments say how big its packages are."""

    path: Path
    sha256: str
    packages: int
    download_mb: int
    installed_mb: int


def read_lock(resources: Path, platform: str, version: tuple[int, int]) -> Lock:
    """Return the lock for ``platform`` and Python ``version``; raises InstallError (``platform``)."""
    path = resources / f"lock-{platform}-py{version[0]}{version[1]}.txt"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InstallError(
            "platform",
            f"Kestrel has no list of packages for Python {version[0]}.{version[1]} on {platform}.",
            NO_BUILD_HINT,
        ) from None
    text = data.decode("utf-8")
    return Lock(
        path=path,
        # a checkout with other line ends is the same lock
        sha256=hashlib.sha256(data.replace(b"\r\n", b"\n")).hexdigest(),
        packages=len(re.findall(r"^[\w.-]+==", text, re.MULTILINE)),
        download_mb=_size("download_mb", text),
        installed_mb=_size("installed_mb", text),
    )


def runtime_key(lock: Lock, build: Build, version: tuple[int, int]) -> str:
    """Return the 12 hex digits that name a runtime's folder: the same packages have the same name."""
    text = f"{lock.sha256} {build.plain} {build.accelerator} {version[0]}.{version[1]}"
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def _size(name: str, text: str) -> int:
    found = re.search(rf"^# {name}: (\d+)$", text, re.MULTILINE)
    return int(found.group(1)) if found else 0
