"""Find the Python that a managed runtime is built on: the first of a fixed order that passes a probe.

The order: what was typed (PYTHON, else PYTHON_ARCHIVE), KESTREL_PYTHON, Windows' registry (PEP 514) and
``py``, macOS's framework and Homebrew, python3.11 to python3.13 on PATH, QGIS's own. What somebody typed
is used or refused, never replaced. ``sys.executable`` is not started on Windows and macOS: there it is
QGIS itself.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .archive import unpack
from .errors import InstallError
from .platforms import Answer, System

__all__ = ["Base", "System", "find_base"]

#: What torch 2.13 and the locks are there for.
VERSIONS = ((3, 11), (3, 12), (3, 13))
NEEDED = "Python 3.11 to 3.13"
HINT_NONE = {
    "linux": "Install your distribution's python3.11, 3.12 or 3.13 with its venv package",
    "win32": "Install Python 3.12 (64 bit) from python.org for your user",
    "darwin": "Install Python 3.12 from python.org or by Homebrew",
}


@dataclass(frozen=True)
class Base:
    """An interpreter that passed the probe, where it was found, and what was looked at before it."""

    python: str
    version: tuple[int, int]
    source: str
    tried: tuple[str, ...] = ()


def find_base(
    named: str,
    archive: Path | None,
    sha256: str,
    home: Path,
    system: System,
    cancelled: Callable[[], bool] = lambda: False,
) -> Base:
    """Return the interpreter to build on.

    ``named``: PYTHON as typed or the setting kestrel/python, "" = look for one. ``archive``, ``sha256``:
    PYTHON_ARCHIVE, unpacked below ``home``. Raises InstallError: ``interpreter`` where what was typed
    cannot be used, ``archive``, ``no_interpreter`` where nothing passes, ``cancelled``.
    """
    if named:
        return _typed(os.path.abspath(os.path.expanduser(named)), "PYTHON", system, cancelled)
    if archive is not None:
        return _unpacked(archive, sha256, home, system, cancelled)
    tried: list[str] = []
    seen: set[str] = set()
    for source, python in places(system):
        if python in seen:
            continue
        seen.add(python)
        answer = system.probe(python, cancelled) if system.exists(python) else "does not exist"
        _check(cancelled)
        wrong = problem(answer, system)
        if not wrong and isinstance(answer, Answer):
            return Base(python, answer.version, source, tuple(tried))
        tried.append(f"{python} ({source}) {wrong}")
    looked = f" Looked at: {'; '.join(tried)}." if tried else ""
    raise InstallError(
        "no_interpreter",
        f"No {NEEDED} that can be used was found on this machine.{looked}",
        f"{HINT_NONE.get(system.platform, HINT_NONE['linux'])}, or name one in PYTHON, or an archive of one "
        "in PYTHON_ARCHIVE.",
    )


def places(system: System) -> Iterator[tuple[str, str]]:
    """Yield (source, interpreter) in the order of the search; but for the variable only what is there."""
    variable = system.environ.get("KESTREL_PYTHON", "").strip()
    if variable:
        yield "variable KESTREL_PYTHON", os.path.expanduser(variable)
    for source, python in (
        *(_windows(system) if system.platform == "win32" else ()),
        *(_macos(system) if system.platform == "darwin" else ()),
        *_path(system),
        *_qgis(system),
    ):
        if python and system.exists(python) and not _store_stub(python, system):
            yield source, python


def problem(answer: Answer | str, system: System) -> str:
    """Say why an interpreter cannot be the base, or return an empty string."""
    if isinstance(answer, str):
        return answer
    major, minor = answer.version
    if answer.version not in VERSIONS:
        return f"is Python {major}.{minor}; {NEEDED} is needed"
    if answer.bits != 64:
        return f"is a {answer.bits}-bit Python; torch has 64-bit builds only"
    if answer.missing:
        package = _package(answer, system)
        return f"lacks {', '.join(answer.missing)}" + (f"; install {package}" if package else "")
    return ""


def _package(answer: Answer, system: System) -> str:
    """Return what the distribution calls what is missing, "" where that is not known."""
    if system.platform != "linux" or not {"venv", "ensurepip"} & set(answer.missing):
        return ""
    version = ".".join(map(str, answer.version))
    release = system.os_release().lower()
    if "debian" in release or "ubuntu" in release:
        return f"the package python{version}-venv"
    if any(name in release for name in ("fedora", "rhel", "suse")):
        return f"the package python{version} with its ensurepip wheels"
    return f"your distribution's venv package for Python {version}"


def _typed(python: str, source: str, system: System, cancelled: Callable[[], bool]) -> Base:
    answer: Answer | str = "does not exist"
    if system.exists(python):
        answer = system.probe(python, cancelled)
    _check(cancelled)
    wrong = problem(answer, system)
    if wrong or isinstance(answer, str):
        raise InstallError(
            "interpreter",
            f"{source}: {python} {wrong}.",
            f"Choose another {NEEDED} (64 bit), or leave PYTHON empty to look for one.",
        )
    return Base(python, answer.version, source)


def _unpacked(archive: Path, sha256: str, home: Path, system: System, cancelled: Callable[[], bool]) -> Base:
    """Unpack and probe; what was unpacked now and cannot be used here goes again."""
    before = set((home / "pythons").glob("*"))
    python = unpack(archive, sha256, home, cancelled)
    try:
        return _typed(os.fspath(python), "PYTHON_ARCHIVE", system, cancelled)
    except InstallError:
        folder = home / "pythons" / python.relative_to(home / "pythons").parts[0]
        if folder not in before:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
        raise


def _check(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise InstallError("cancelled", "The installation was cancelled.", "Nothing was changed.")


def _windows(system: System) -> Iterator[tuple[str, str]]:
    registered = list(system.registry())
    for version in _names():
        for tag, python in registered:
            # 3.12, 3.12-32, Python 3.12 ...: the probe tells the truth, this only sorts
            if version in tag:
                yield "Windows registry", python
    known = system.launcher()
    for version in _names():
        yield from (("py", python) for python in known if version.replace(".", "") in python)
    yield from (("py", python) for python in known)


def _macos(system: System) -> Iterator[tuple[str, str]]:
    for version in _names():
        yield (
            "Python framework",
            f"/Library/Frameworks/Python.framework/Versions/{version}/bin/python{version}",
        )
    for folder in ("/opt/homebrew", "/usr/local"):
        for version in _names():
            yield "Homebrew", f"{folder}/opt/python@{version}/bin/python{version}"
            yield "Homebrew", f"{folder}/bin/python{version}"


def _path(system: System) -> Iterator[tuple[str, str]]:
    ending = ".exe" if system.platform == "win32" else ""
    for version in _names():
        yield "PATH", system.which(f"python{version}{ending}")


def _qgis(system: System) -> Iterator[tuple[str, str]]:
    """Yield QGIS's own Python: beside the application, never the application."""
    source = "QGIS's own Python"
    if system.platform == "win32":
        # <root>\bin\qgis-bin.exe, <root>\apps\Python39\python.exe
        folder = system.application.replace("\\", "/")
        for root in (folder, posixpath.dirname(folder)):
            yield from ((source, python) for python in system.glob(f"{root}/apps/Python3*/python.exe"))
        yield source, f"{folder}/python3.exe"
        yield source, f"{folder}/python.exe"
    elif system.platform == "darwin":
        # QGIS.app/Contents/MacOS/QGIS
        yield source, f"{system.application}/bin/python3"
        yield source, f"{system.application}/python3"
    else:
        yield source, f"{system.prefix}/bin/python3"


def _names() -> list[str]:
    return [".".join(map(str, version)) for version in VERSIONS]


def _store_stub(python: str, system: System) -> bool:
    """Whether it only opens Windows' store."""
    if system.platform != "win32":
        return False
    return "\\windowsapps\\" in python.replace("/", "\\").lower() or system.size(python) == 0
