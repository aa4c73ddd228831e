"""What is installed below KESTREL_HOME/runtimes: read ``complete.json``, judge, say so."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMPLETE = "complete.json"
#: Raised when a reader of today could misread what another version wrote.
FORMAT = 1


@dataclass(frozen=True)
class RuntimeInfo:
    """A complete runtime."""

    folder: Path
    #: The runtime's interpreter, absolute.
    python: Path
    #: Package name -> version, ``python`` and ``pip`` included.
    versions: Mapping[str, str]
    #: ``cpu``, ``cuda`` or ``mps``: what the probe found usable.
    device: str
    #: The build of torch that was asked for: ``cpu`` or ``cuda``.
    accelerator: str = "cpu"
    #: The interpreter it was built on; without it the runtime does not start.
    base: Path = Path()
    #: The log of its installation, where it was made in this call.
    log: Path | None = None


@dataclass(frozen=True)
class State:
    """What the newest runtime is like.

    ``status`` is ``ready``, ``base_missing`` (its base interpreter has vanished), ``broken`` (its own
    interpreter has) or ``none``; ``message`` says it in one sentence, ``hint`` what to do.
    """

    status: str
    message: str
    hint: str = ""
    info: RuntimeInfo | None = None
    #: Complete runtimes, newest first; the first ready one is used.
    complete: tuple[RuntimeInfo, ...] = field(default=())


def state(home: Path) -> State:
    """Return what is installed below ``home``; starts no child, writes nothing, raises nothing."""
    folder = home / "runtimes"
    complete = tuple(read_complete(folder))
    for info in complete:
        if not problem(info):
            return State("ready", f"A runtime is installed in {info.folder}.", "", info, complete)
    if complete:
        status = problem(complete[0])
        return State(status, *_texts(status, complete[0]), complete[0], complete)
    return State("none", f"No runtime is installed in {folder}.", "Run kestrel:installruntime.")


def read_complete(folder: Path) -> list[RuntimeInfo]:
    """Return the complete runtimes below ``folder``, newest first; unreadable ones do not exist."""
    found = []
    for path in folder.glob("*/" + COMPLETE):
        try:
            written = path.stat().st_mtime_ns
            told = json.loads(path.read_text(encoding="utf-8"))
            found.append((written, path.name, _info(path.parent, told)))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return [info for _, _, info in sorted(found, key=lambda item: item[:2], reverse=True)]


def problem(info: RuntimeInfo) -> str:
    """Return ``base_missing``, ``broken`` or an empty string."""
    if info.base != Path() and not os.path.isfile(info.base):
        return "base_missing"
    if not (os.path.isfile(info.python) and os.access(info.python, os.X_OK)):
        return "broken"
    return ""


def _info(folder: Path, told: Mapping[str, Any]) -> RuntimeInfo:
    # relative to the runtime's own folder, or absolute
    python = Path(os.path.join(folder, str(told["python"])))
    base = told.get("base") or {}
    return RuntimeInfo(
        folder=folder,
        python=python,
        versions={str(name): str(version) for name, version in (told.get("versions") or {}).items()},
        device=str(told.get("device") or "cpu"),
        accelerator=str(told.get("accelerator") or "cpu"),
        base=Path(str(base.get("python") or "")),
    )


def _texts(status: str, info: RuntimeInfo) -> tuple[str, str]:
    if status == "base_missing":
        return (
            f"The runtime in {info.folder} no longer starts: the Python it was built on, {info.base}, "
            "has vanished.",
            "Run kestrel:installruntime: it builds a new one on another Python.",
        )
    return (
        f"The runtime in {info.folder} is damaged: {info.python} is missing.",
        "Run kestrel:installruntime: it builds a new one.",
    )
