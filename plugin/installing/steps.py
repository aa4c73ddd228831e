"""The whole installation of a runtime, as the algorithm and the dialog run it: find a Python, build."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import InstallError
from .options import Events, Options
from .runtime_build import RuntimeInfo, install


@dataclass(frozen=True)
class Request:
    """What a user chose: an interpreter, or an archive of one with its sha256; empty = look for one."""

    python: str = ""
    archive: Path | None = None
    archive_sha256: str = ""


def install_runtime(
    request: Request, options: Options, events: Events, cancelled: Callable[[], bool]
) -> RuntimeInfo:
    """Find the base interpreter, build a runtime on it; raises InstallError, after which all is as before."""
    # brings tarfile, which QGIS's start need not wait for
    from .interpreters import System, find_base

    events.progress(0.0, "looking for a Python")
    base = find_base(
        request.python, request.archive, request.archive_sha256, options.home, System(), cancelled
    )
    if cancelled():
        raise InstallError("cancelled", "The installation was cancelled.", "Nothing was changed.")
    events.info(f"Base interpreter: {base.python} ({base.source}).")
    return install(base, options, events, cancelled)
