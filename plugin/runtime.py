"""Find the Python that runs the models, say which and why, or what to do when there is none.

Order: the setting ``kestrel/python``, then KESTREL_PYTHON (IT, docker, conda); a managed runtime
below KESTREL_HOME/runtimes; QGIS's own Python, if a probe in a child imports what is needed.
A Python somebody named is taken at their word: its worker reports what is missing there. Only the
last two are probed, and a wrong name is an error, never silently replaced by another Python.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import paths, settings
from .environment import child_environment
from .errors import WorkerCancelled, WorkerError
from .installing import installed

#: What methods without torch need. A Python without torch still runs those.
NEEDED = ("numpy", "rasterio", "shapely", "geopandas", "pyogrio", "scipy")
PROBE_S = 60.0
SETTING = "setting kestrel/python"
VARIABLE = "variable KESTREL_PYTHON"

HINT = (
    "Run kestrel:installruntime, or name a Python 3.11 to 3.13 with torch, rasterio, geopandas, pyogrio, "
    "shapely, scipy, safetensors, einops and matplotlib in the setting kestrel/python or the variable "
    "KESTREL_PYTHON; the algorithm kestrel:runtimestatus shows what was looked for."
)

_PROBE = f"""
import importlib, json, sys
missing = []
for name in {NEEDED!r}:
    try:
        importlib.import_module(name)
    except Exception as error:
        missing.append(name + " (" + type(error).__name__ + ")")
print("KESTREL", json.dumps({{"version": list(sys.version_info[:2]), "missing": missing}}))
"""

#: What probes found, by (path, modification time): when, and what is wrong ("" = nothing).
_probed: dict[tuple[str, int], tuple[float, str]] = {}
#: A failure is asked again after this long: somebody may be installing what was missing. Until
#: then the toolbox, which asks for each algorithm, does not wait for a child each time.
RETRY_S = 30.0


@dataclass(frozen=True)
class Candidate:
    """One place that was looked at: the interpreter ("" = none there), and what was found."""

    source: str
    python: str
    usable: bool
    reason: str


@dataclass(frozen=True)
class Runtime:
    """The interpreter to use, where it was named, and why it was chosen."""

    python: str
    source: str
    reason: str


def find_runtime(cancelled: Callable[[], bool] = lambda: False) -> Runtime:
    """Return the interpreter that runs the models; raises WorkerError (code ``no_runtime``).

    May start one child (seconds) for the probe, asks ``cancelled`` meanwhile and then raises
    WorkerCancelled.
    """
    looked = candidates(cancelled)
    for candidate in looked:
        if candidate.usable:
            return Runtime(candidate.python, candidate.source, candidate.reason)
    last = looked[-1]
    if last.source in (SETTING, VARIABLE):
        raise WorkerError(f"The {last.source} cannot be used: {last.reason}.", HINT, code="no_runtime")
    found = "; ".join(f"{candidate.source}: {candidate.reason}" for candidate in looked)
    raise WorkerError(f"There is no Python that can run Kestrel's models ({found}).", HINT, code="no_runtime")


def candidates(cancelled: Callable[[], bool] = lambda: False) -> list[Candidate]:
    """Return what was looked at, in order, ending with the first usable one or a named one that is not."""
    looked = []
    for source, named in (
        (SETTING, settings.python()),
        (VARIABLE, os.environ.get("KESTREL_PYTHON", "").strip()),
    ):
        if named:
            looked.append(_named(source, named))
            return looked
        looked.append(Candidate(source, "", False, "not set"))
    managed = _managed()
    looked.append(managed)
    if not managed.usable:
        looked.append(_own(cancelled))
    return looked


def qgis_python() -> str:
    """Return QGIS's own interpreter, or an empty string.

    Never ``sys.executable``: inside QGIS that is QGIS itself, or the first python3 on PATH
    (CONTRACTS.md, section 3).
    """
    if os.name == "nt":
        path = Path(sys.exec_prefix) / "python.exe"
    else:
        path = Path(sys.prefix) / "bin" / "python3"
    return os.fspath(path) if path.is_file() else ""


def _named(source: str, named: str) -> Candidate:
    python = os.path.abspath(os.path.expanduser(named))
    if not os.path.isfile(python):
        return Candidate(source, python, False, f"{python} does not exist")
    if not os.access(python, os.X_OK):
        return Candidate(source, python, False, f"{python} cannot be executed")
    return Candidate(source, python, True, f"named by the {source}")


def _managed() -> Candidate:
    """Look for the newest complete runtime; a folder without complete.json does not exist."""
    source = "managed runtime"
    now = installed.state(paths.home())
    if now.status == "ready" and now.info is not None:
        return Candidate(source, os.fspath(now.info.python), True, f"installed in {now.info.folder}")
    if now.status == "none":
        return Candidate(source, "", False, f"none is installed in {paths.runtimes_folder()}")
    return Candidate(source, "", False, now.message.rstrip("."))


def _own(cancelled: Callable[[], bool]) -> Candidate:
    source = "QGIS's own Python"
    python = qgis_python()
    if not python:
        return Candidate(source, "", False, f"no interpreter below {sys.prefix}")
    key = (python, os.stat(python).st_mtime_ns)
    asked, problem = _probed.get(key, (-math.inf, "not asked yet"))
    if problem and time.monotonic() - asked > RETRY_S:
        problem = _probe(python, cancelled)
        _probed[key] = (time.monotonic(), problem)
    if problem:
        return Candidate(source, python, False, f"{python} {problem}")
    return Candidate(source, python, True, f"{python} has the packages that are needed")


def _probe(python: str, cancelled: Callable[[], bool]) -> str:
    """Import what is needed in a child; return what is wrong, or an empty string."""
    try:
        child = subprocess.Popen(
            [python, "-I", "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(os.environ),
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        return f"does not start ({error.strerror})"
    # the answer is one short line, so it fits the pipe and waiting for the end is safe
    ends = time.monotonic() + PROBE_S
    with child:
        while child.poll() is None:
            if cancelled():
                child.kill()
                raise WorkerCancelled
            if time.monotonic() > ends:
                child.kill()
                return f"did not answer within {PROBE_S:.0f} s"
            time.sleep(0.05)
        text = child.stdout.read().decode("utf-8", "replace") if child.stdout else ""
    answers = [line for line in text.splitlines() if line.startswith("KESTREL ")]
    if not answers:
        return f"fails (exit code {child.returncode})"
    answer = json.loads(answers[-1][len("KESTREL ") :])
    version = tuple(answer["version"])
    if version != sys.version_info[:2]:
        return f"is Python {version[0]}.{version[1]}, not QGIS's {sys.version_info[0]}.{sys.version_info[1]}"
    if version < (3, 11):
        return f"is Python {version[0]}.{version[1]}, the models need 3.11 or newer"
    if answer["missing"]:
        return f"lacks {', '.join(answer['missing'])}"
    return ""
