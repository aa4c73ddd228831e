"""Build a managed runtime below KESTREL_HOME/runtimes, or say in one sentence why not.

A runtime is a virtual environment with Kestrel's packages, built in its final folder because a
virtual environment cannot be moved, and real only by its ``complete.json``, written last. Whatever
interrupts this leaves the runtime that was there before, the new one or none, never half of one.
Standard library only: it runs in a QgsTask, in qgis_process and in tests without QGIS alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .. import paths
from .installed import RuntimeInfo, State, state

if TYPE_CHECKING:
    from .interpreters import Base

__all__ = ["Events", "Options", "RuntimeInfo", "State", "install", "state"]

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
    raise NotImplementedError
