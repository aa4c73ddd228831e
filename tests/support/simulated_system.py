"""Simulated machines for the search for a Python: paths of any system, fake interpreters behind them.

A fake interpreter is a script that writes its own name into a list when it is started, and then says
what it was given to say, so a test knows both the answer and who was asked.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from kestrel.plugin.installing.platforms import Answer, System

GOOD = {"version": [3, 12], "bits": 64, "missing": []}


def says(**different: object) -> str:
    """Return what a good Python 3.12 prints in the probe, but for ``different``."""
    return "KESTREL " + json.dumps({**GOOD, **different})


class SimulatedSystem(System):
    """A machine of ``platform`` that has exactly the ``programs`` (path -> what it prints)."""

    def __init__(
        self,
        folder: Path,
        platform: str,
        programs: Mapping[str, str],
        *,
        environ: Mapping[str, str] | None = None,
        path: Mapping[str, str] | None = None,
        registered: tuple[tuple[str, str], ...] = (),
        launcher: tuple[str, ...] = (),
        application: str = "",
        release: str = "",
    ) -> None:
        self.platform = platform
        self._environ = dict(environ or {})
        self._path = dict(path or {})
        self._registered = registered
        self._launcher = launcher
        self._application = application
        self._release = release
        self._started = folder / "started"
        self._scripts: dict[str, Path] = {}
        for number, (name, text) in enumerate(programs.items()):
            script = folder / f"program{number}"
            script.write_text(f"#!/bin/sh\nprintf '%s\\n' '{name}' >> '{self._started}'\necho '{text}'\n")
            script.chmod(0o755)
            self._scripts[name] = script

    @property
    def started(self) -> list[str]:
        """Return the programs that were started, in this order."""
        return self._started.read_text().splitlines() if self._started.exists() else []

    @property
    def environ(self) -> Mapping[str, str]:
        """Return the simulated environment."""
        return self._environ

    @property
    def prefix(self) -> str:
        """Return where QGIS's Python lives."""
        return "/usr"

    @property
    def application(self) -> str:
        """Return the folder of the simulated QGIS."""
        return self._application

    def which(self, name: str) -> str:
        """Return what PATH has."""
        return self._path.get(name, "")

    def exists(self, path: str) -> bool:
        """Whether the simulated machine has it."""
        return path in self._scripts

    def size(self, path: str) -> int:
        """Return 0 for a program that has nothing to say: a store stub."""
        return self._scripts[path].stat().st_size if path in self._scripts else 0

    def glob(self, pattern: str) -> list[str]:
        """Return the simulated paths that match."""
        return sorted(name for name in self._scripts if fnmatch.fnmatch(name, pattern))

    def registry(self) -> Iterator[tuple[str, str]]:
        """Yield what is registered."""
        yield from self._registered

    def launcher(self) -> list[str]:
        """Return what ``py`` lists."""
        return list(self._launcher)

    def os_release(self) -> str:
        """Return the distribution."""
        return self._release

    def probe(self, python: str, cancelled: Callable[[], bool]) -> Answer | str:
        """Start the script behind ``python``, as the real machine starts an interpreter."""
        return super().probe(os.fspath(self._scripts[python]), cancelled)
