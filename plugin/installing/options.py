"""What an installation is given, and whom it tells."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .. import paths

ACCELERATORS = ("auto", "cpu", "cuda")


def _nothing(*_: object) -> None:
    """Ignore an event nobody listens to."""


@dataclass(frozen=True)
class Options:
    """What to install and how to reach it; every field has a default that suits most users."""

    #: KESTREL_HOME.
    home: Path = field(default_factory=paths.home)
    #: ``auto`` takes CUDA when the driver answers, else the CPU build.
    accelerator: str = "auto"
    #: A folder of wheels: nothing else is asked then, no network is needed.
    wheels: Path | None = None
    #: Build anew even where a complete runtime of the same packages exists.
    rebuild: bool = False
    #: QGIS's proxy as ``http://user:password@host:port``; a proxy of the environment comes first.
    proxy: str = ""
    #: Hosts that QGIS reaches without its proxy, separated by commas.
    no_proxy: str = ""
    #: QGIS's additional certificates (PEM); certificates of the environment or pip's come first.
    certificates: Path | None = None
    #: QGIS's own folders, which are dropped from PATH (application folder, ``apps/...``).
    qgis_folders: tuple[str, ...] = ()
    #: The environment to start from.
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    #: Without a line, a byte or a file from pip for this long the installation has stalled.
    stall_s: float = 120.0
    #: Where sources.json and the locks lie; tests give toy packages.
    resources: Path = paths.ROOT / "resources" / "runtime"


@dataclass(frozen=True)
class Events:
    """Who is told what; called from the thread that runs ``install``, never concurrently."""

    #: (fraction 0 to 1, what is being done now)
    progress: Callable[[float, str], None] = _nothing
    #: one line worth reading (sizes, sources, stages)
    info: Callable[[str], None] = _nothing
    #: one sentence the user should see
    warning: Callable[[str], None] = _nothing
    #: every line that venv and pip print, for a log panel
    line: Callable[[str], None] = _nothing
