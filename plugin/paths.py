"""Where Kestrel's files lie: the plugin's own, and KESTREL_HOME (CONTRACTS.md, section 1)."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import time
from pathlib import Path

ROOT = Path(os.path.abspath(__file__)).parent.parent
LAUNCH = ROOT / "engine" / "launch.py"
ICONS = ROOT / "resources" / "icons"

KEPT_LOGS = 20

_counter = itertools.count(1)


def home() -> Path:
    """Return KESTREL_HOME, else the platform's data folder + ``kestrel``. Not created here."""
    given = os.environ.get("KESTREL_HOME", "").strip()
    if given:
        return Path(os.path.abspath(os.path.expanduser(given)))
    user = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or user / "AppData" / "Local") / "kestrel"
    if sys.platform == "darwin":
        return user / "Library" / "Application Support" / "kestrel"
    return user / ".local" / "share" / "kestrel"


def cache_folder() -> Path:
    """Return KESTREL_HOME/cache, created; raises OSError."""
    return _folder("cache")


def runtimes_folder() -> Path:
    """Return KESTREL_HOME/runtimes, which need not exist."""
    return home() / "runtimes"


def new_log(name: str, base: Path | None = None) -> Path:
    """Create and return an empty log file for a run, and remove all but the newest 20; raises OSError.

    Names sort by time; ``name`` says what runs and may hold anything. ``base`` is KESTREL_HOME, where
    that is not this process's own.
    """
    folder = _folder("logs", base)
    label = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "run"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = folder / f"{stamp}-{os.getpid()}-{next(_counter):04d}-{label}.log"
    path.touch(mode=0o600)
    logs = sorted(folder.glob("*.log"), key=lambda log: log.name)
    for old in logs[:-KEPT_LOGS]:
        # another QGIS may have removed it, or, on Windows, still write to it
        with contextlib.suppress(OSError):
            old.unlink()
    return path


def kestrel_version() -> str:
    """Return the version that metadata.txt states, the only place that holds it."""
    for line in (ROOT / "metadata.txt").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "version":
            return value.strip()
    return "unknown"


def _folder(name: str, base: Path | None = None) -> Path:
    folder = (base or home()) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
