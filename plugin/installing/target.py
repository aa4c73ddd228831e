"""What a base interpreter and the options lead to: platform, lock, build of torch, folder name."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..environment import child_environment
from .errors import InstallError
from .locks import Lock, read_lock, runtime_key
from .options import Options
from .sources import Build, choose_build, pick_accelerator, platform_name

#: torch needs glibc 2.28, which Debian 10, Ubuntu 20.04 and RHEL 8 have.
GLIBC = (2, 28)
ASK_S = 60.0

_ASK = """
import json, os, platform, sys, sysconfig
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
except (AttributeError, ValueError, OSError):
    libc = ""
told = {"tag": sysconfig.get_platform(), "machine": platform.machine(), "libc": libc}
print("KESTREL", json.dumps({**told, "version": list(sys.version_info[:3])}))
"""


@dataclass(frozen=True)
class Target:
    """What will be installed."""

    platform: str
    version: tuple[int, int]
    lock: Lock
    build: Build
    #: The runtime's folder name.
    key: str


def find_target(python: Path, options: Options) -> Target:
    """Ask ``python`` what it is and choose what it gets; raises InstallError (``platform``, ``venv``)."""
    told = _ask(python, options)
    version = (int(told["version"][0]), int(told["version"][1]))
    platform = platform_name(told["tag"], told["machine"])
    libc = told["libc"].split()
    if len(libc) == 2 and tuple(map(int, libc[1].split(".")[:2])) < GLIBC:
        raise InstallError(
            "platform",
            f"This system's C library is glibc {libc[1]}, torch needs {GLIBC[0]}.{GLIBC[1]} or newer.",
            "Use Debian 10, Ubuntu 20.04, RHEL 8 or newer, or name a Python that has an older torch in "
            "KESTREL_PYTHON.",
        )
    accelerator = pick_accelerator(options.accelerator, platform, options.resources, options.environ)
    lock = read_lock(options.resources, platform, version)
    build = choose_build(options.resources, platform, accelerator)
    return Target(platform, version, lock, build, runtime_key(lock, build, version))


def _ask(python: Path, options: Options) -> dict[str, Any]:
    # the interpreter itself: QGIS's own architecture may be another
    try:
        answer = subprocess.run(
            [os.fspath(python), "-I", "-c", _ASK],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=ASK_S,
            check=True,
            env=child_environment(options.environ),
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        ).stdout.decode("utf-8", "replace")
        return dict(json.loads(answer.rpartition("KESTREL ")[2]))
    except (OSError, ValueError, subprocess.SubprocessError):
        raise InstallError(
            "venv", f"The Python {python} does not start.", "Choose another one in PYTHON."
        ) from None
