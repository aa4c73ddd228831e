"""Which build of torch a runtime gets, and where it comes from: resources/runtime/sources.json.

That file alone names an index. Everything else, and torch where an entry names no index, comes from
what pip is configured to use on the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import InstallError

#: A driver that does not answer a plain question in this time is not one to rely on.
DRIVER_S = 15.0

NO_BUILD_HINT = (
    "Name a Python 3.11 to 3.13 that has torch in the setting kestrel/python or the variable KESTREL_PYTHON, "
    "or use the algorithms that need no runtime."
)


@dataclass(frozen=True)
class Build:
    """One build of torch for one platform."""

    #: What pip is asked for without an index of torch's own: ``torch==2.13.0``, whatever its build.
    plain: str
    accelerator: str
    #: (index, what it is asked for) in the order they are tried, ``torch==2.13.0+cpu``: the local
    #: version keeps pip from taking another build from an index the user has configured beside it.
    #: Empty: pip's own configuration has the right build.
    sources: tuple[tuple[str, str], ...]
    download_mb: int
    installed_mb: int


def platform_name(tag: str, machine: str = "") -> str:
    """Return Kestrel's name of a platform from ``sysconfig.get_platform()`` and ``platform.machine()``.

    ``linux-x86_64``, ``windows-x86_64``, ``macos-arm64``, ...; a universal2 Python runs as ``machine``.
    """
    if tag.startswith("win"):
        return {"win-amd64": "windows-x86_64", "win-arm64": "windows-arm64"}.get(tag, "windows-32bit")
    if tag.startswith("macosx"):
        last = tag.rpartition("-")[2]
        return f"macos-{machine if last.startswith('universal') and machine else last}"
    return tag


def choose_build(resources: Path, platform: str, accelerator: str) -> Build:
    """Return the build for ``platform`` and ``cpu`` or ``cuda``; raises InstallError (``platform``)."""
    told = json.loads((resources / "sources.json").read_text(encoding="utf-8"))
    package, version = told["package"], told["version"]
    for build in told["builds"]:
        if build["platform"] == platform and build["accelerator"] == accelerator:
            return Build(
                plain=f"{package}=={version}",
                accelerator=accelerator,
                sources=tuple(
                    (source["index"], f"{package}=={version}{source['local']}") for source in build["sources"]
                ),
                download_mb=int(build["download_mb"]),
                installed_mb=int(build["installed_mb"]),
            )
    what = f"for {accelerator.upper()} on {platform}"
    raise InstallError("platform", f"There is no build of {package} {version} {what}.", NO_BUILD_HINT)


def pick_accelerator(wanted: str, platform: str, resources: Path, environ: Mapping[str, str]) -> str:
    """Return ``cpu`` or ``cuda``: ``auto`` is CUDA where a build exists and the driver answers."""
    if wanted != "auto":
        return wanted
    try:
        choose_build(resources, platform, "cuda")
    except InstallError:
        return "cpu"
    return "cuda" if driver_answers(environ) else "cpu"


def driver_answers(environ: Mapping[str, str]) -> bool:
    """Return whether nvidia-smi, which comes with the driver, lists a GPU."""
    tool = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if tool is None and os.name == "nt":
        # older drivers put it there and not on PATH
        tool = os.path.join(
            environ.get("ProgramFiles", r"C:\Program Files"), "NVIDIA Corporation", "NVSMI", "nvidia-smi.exe"
        )
    if tool is None:
        return False
    try:
        answer = subprocess.run(
            [tool, "-L"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=DRIVER_S,
            check=False,
            env=dict(environ),
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and answer.stdout.lstrip().startswith(b"GPU ")
