"""What the search for a Python asks the machine; tests put simulated machines in its place."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..environment import child_environment

PROBE_S = 30.0
#: An answer has about 100 bytes, with what a site prints at start some more.
ANSWER_BYTES = 1 << 20

_PROBE = """
import importlib, json, struct, sys
missing = []
for name in ("ssl", "venv", "ensurepip"):
    try:
        importlib.import_module(name)
    except Exception:
        missing.append(name)
print("KESTREL", json.dumps({
    "version": list(sys.version_info[:2]), "bits": 8 * struct.calcsize("P"), "missing": missing,
}))
"""


@dataclass(frozen=True)
class Answer:
    """What an interpreter says of itself: (major, minor), 32 or 64, and the modules that it lacks."""

    version: tuple[int, int]
    bits: int
    missing: tuple[str, ...]


class System:
    """This machine. A subclass simulates another one."""

    platform: str = sys.platform

    @property
    def environ(self) -> Mapping[str, str]:
        """Return the environment."""
        return os.environ

    def which(self, name: str) -> str:
        """Return the program's path by PATH, or an empty string."""
        return shutil.which(name, path=self.environ.get("PATH")) or ""

    def exists(self, path: str) -> bool:
        """Whether there is such a file that may be executed."""
        return os.path.isfile(path) and os.access(path, os.X_OK)

    def size(self, path: str) -> int:
        """Return the file's size; Windows' store stubs have none."""
        try:
            return os.lstat(path).st_size
        except OSError:
            return 0

    def glob(self, pattern: str) -> list[str]:
        """Return matching paths, sorted."""
        return sorted(glob.glob(pattern))

    def registry(self) -> Iterator[tuple[str, str]]:
        """Yield (version, interpreter) as PEP 514 registers them; nothing but on Windows."""
        if sys.platform == "win32":
            yield from _registered()

    def launcher(self) -> list[str]:
        """Return what Windows' ``py`` launcher knows."""
        if self.platform != "win32" or not self.which("py"):
            return []
        try:
            told = subprocess.run(
                [self.which("py"), "-0p"],
                capture_output=True,
                timeout=PROBE_S,
                stdin=subprocess.DEVNULL,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                check=False,
            ).stdout.decode("utf-8", "replace")
        except (OSError, subprocess.SubprocessError):
            return []
        # " -V:3.12 *        C:\\Python312\\python.exe"; before Python 3.11 the star of the default came last
        return [line[line.index(":\\") - 1 :].strip(" *") for line in told.splitlines() if ":\\" in line]

    @property
    def prefix(self) -> str:
        """Return where QGIS's Python lives."""
        return sys.prefix

    @property
    def application(self) -> str:
        """Return the folder of the QGIS application itself; of use on Windows and macOS only."""
        return os.path.dirname(sys.executable)

    def os_release(self) -> str:
        """Return what Linux says of its distribution."""
        try:
            return Path("/etc/os-release").read_text("utf-8")
        except OSError:
            return ""

    def probe(self, python: str, cancelled: Callable[[], bool]) -> Answer | str:
        """Ask an interpreter in a child; return its answer, or what is wrong."""
        # a file, not a pipe: a program that leaves another one behind would hold a pipe open for ever
        with tempfile.TemporaryFile() as told_by:
            try:
                child = subprocess.Popen(
                    [python, "-I", "-c", _PROBE],
                    stdin=subprocess.DEVNULL,
                    stdout=told_by,
                    stderr=subprocess.DEVNULL,
                    env=child_environment(self.environ),
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
            except OSError as error:
                return f"does not start ({error.strerror})"
            ends = time.monotonic() + PROBE_S
            with child:
                while child.poll() is None:
                    if cancelled() or time.monotonic() > ends:
                        child.kill()
                        return f"did not answer within {PROBE_S:.0f} s"
                    time.sleep(0.02)
            told_by.seek(0)
            text = told_by.read(ANSWER_BYTES).decode("utf-8", "replace")
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
            line = [line for line in text.splitlines() if line.startswith("KESTREL ")][-1]
            told = json.loads(line[len("KESTREL ") :])
            major, minor = told["version"]
            return Answer((int(major), int(minor)), int(told["bits"]), tuple(told["missing"]))
        return "is no Python"


def _registered() -> Iterator[tuple[str, str]]:
    """Walk what PEP 514 registers for the user and for the machine."""
    import winreg  # Windows only

    for root in (winreg.HKEY_CURRENT_USER, winreg.HKEY_LOCAL_MACHINE):
        for company in _keys(winreg, root, r"Software\Python"):
            for tag in _keys(winreg, root, rf"Software\Python\{company}"):
                with contextlib.suppress(OSError):
                    key = winreg.OpenKey(root, rf"Software\Python\{company}\{tag}\InstallPath")
                    with key:
                        try:
                            path = winreg.QueryValueEx(key, "ExecutablePath")[0]
                        except OSError:
                            path = os.path.join(winreg.QueryValue(key, None), "python.exe")
                    yield tag, path


def _keys(winreg: object, root: object, path: str) -> list[str]:
    found: list[str] = []
    with contextlib.suppress(OSError), winreg.OpenKey(root, path) as key:  # type: ignore[attr-defined]
        while True:
            found.append(winreg.EnumKey(key, len(found)))  # type: ignore[attr-defined]
    return found
