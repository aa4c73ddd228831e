"""Fill a runtime's folder: virtual environment, packages, torch, a trial, and complete.json last."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths
from ..environment import child_environment
from . import children, pip
from .errors import InstallError
from .installed import COMPLETE, FORMAT, RuntimeInfo
from .options import Events, Options
from .sources import Build
from .target import Target

#: A first import of torch under a virus scanner takes minutes.
PROBE_S = 300.0
#: Where each stage ends, by its usual share of the time.
VENV_END, PACKAGES_END, TORCH_END = 0.05, 0.4, 0.9
#: Failures after which torch's next source is worth a try.
UNREACHABLE = ("network", "proxy", "tls", "forbidden", "stall", "server", "no_wheel")
#: Bytes in pip's temporary folder that are more than index pages.
BEGUN = 1_000_000


@dataclass(frozen=True)
class _Stage:
    """One call of pip: its name, the fraction where it ends, its usual sizes."""

    label: str
    end: float
    download_mb: int
    installed_mb: int


class Filling:
    """One runtime on its way: what it is made from, its log, how far it is."""

    def __init__(
        self,
        base: Path,
        source: str,
        options: Options,
        events: Events,
        cancelled: Callable[[], bool],
        log: Path,
        kept_open: tuple[int, ...],
    ) -> None:
        """``source`` says where ``base`` was found; ``kept_open``: run_module of children.py."""
        self.base = base
        self.source = source
        self.options = options
        self.events = events
        self.cancelled = cancelled
        self.log = log
        self.kept_open = kept_open
        self.told = (0.0, "")
        self.environ = pip.installer_environment(
            options.environ,
            home=options.home,
            proxy=options.proxy,
            no_proxy=options.no_proxy,
            certificates=options.certificates,
            qgis_folders=options.qgis_folders,
        )

    def fill(self, folder: Path, target: Target) -> RuntimeInfo:
        """Fill ``folder``, which must not exist; raises InstallError, children.Cancelled, OSError."""
        python = folder / ("Scripts/python.exe" if target.platform.startswith("windows") else "bin/python")
        self._progress(0.0, "making a virtual environment")
        self._make_venv(folder, python)
        self._certificates(python)
        self._progress(VENV_END, "fetching packages")
        # the lock is closed under what its packages require, so pip has nothing to resolve
        locked = ["--require-hashes", "--no-deps", "-r", os.fspath(target.lock.path)]
        stage = _Stage("packages", PACKAGES_END, target.lock.download_mb, target.lock.installed_mb)
        self._pip(python, folder, stage, self._where(), locked)
        self._progress(PACKAGES_END, f"fetching {target.build.plain}")
        self._torch(python, folder, target.build)
        self._progress(TORCH_END, "trying the runtime")
        told = self._probe(python, folder)
        info = RuntimeInfo(
            folder=folder,
            python=python,
            versions=told["versions"],
            device=str(told["device"]),
            accelerator=target.build.accelerator,
            base=self.base,
            log=self.log,
        )
        self._complete(info, target)
        return info

    def _make_venv(self, folder: Path, python: Path) -> None:
        said: list[str] = []

        def hear(text: str) -> None:
            said.append(text)
            self._write(text)
            self.events.line(text)

        try:
            code = self._child(self.base, ["venv", os.fspath(folder)], self.environ, hear, folder)
        except children.Stalled:
            code, said = 1, ["it did nothing for a long time"]
        if code or not python.is_file():
            text = "\n".join(said)
            if "No space left" in text or "Errno 28" in text:
                raise OSError(errno.ENOSPC, "No space left on device")
            raise InstallError(
                "venv",
                f"{self.base} cannot make a virtual environment: {(said or ['no word'])[-1][:300]}",
                "On Debian and Ubuntu the package python3-venv may be missing. Otherwise choose another "
                f"Python in PYTHON. Log: {self.log}",
            )

    def _certificates(self, python: Path) -> None:
        """Let a certificate file of pip's own configuration come before QGIS's."""
        given = self.options.certificates
        if given and self.environ.get("PIP_CERT") == os.fspath(given):
            said: list[str] = []
            plain = {name: value for name, value in self.environ.items() if name != "PIP_CERT"}
            with contextlib.suppress(children.Stalled):
                self._child(python, ["pip", "config", "list"], plain, said.append, python.parent)
            if pip.configured_certificates("\n".join(said)):
                self.environ = plain

    def _where(self) -> list[str]:
        wheels = self.options.wheels
        return ["--no-index", "--find-links", os.fspath(wheels)] if wheels else []

    def _torch(self, python: Path, folder: Path, build: Build) -> None:
        """Install torch from the first source that has it."""
        stage = _Stage("torch", TORCH_END, build.download_mb, build.installed_mb)
        if self.options.wheels:
            self._pip(python, folder, stage, self._where(), [_spec_in(self.options.wheels, build)])
            return
        for index, spec in build.sources:
            try:
                self._pip(python, folder, stage, ["--index-url", index, *pip.IMPATIENT], [spec])
                return
            except InstallError as error:
                # what had begun to arrive is not fetched from elsewhere, perhaps ten times as big
                if error.code not in UNREACHABLE or pip.downloaded_bytes(self.options.home) > BEGUN:
                    raise
                self._write(f"{index}: {error.message}")
        if build.sources:
            text = (
                f"torch's own index cannot be used, so {build.plain} comes from the index that pip is "
                "configured to use"
            )
            if build.accelerator == "cpu":
                text += "; that may be the CUDA build, about 3 GB to download and 7 GB on disk"
            self.events.warning(text + ".")
            self._write(text)
        self._pip(python, folder, stage, [], [build.plain])

    def _pip(
        self, python: Path, folder: Path, stage: _Stage, where: Sequence[str], what: Sequence[str]
    ) -> None:
        """Let pip install ``what`` from ``where``; raises InstallError, children.Cancelled."""
        begin, home = self.told[0], self.options.home
        growth = _Growth(home, folder)
        before = pip.bytes_below(folder)
        most = 0

        def watch(_: int) -> None:
            nonlocal most
            most = max(most, growth.downloaded)
            installed = growth.installed - before
            share = min(most / (stage.download_mb * 1e6), 1.0) if stage.download_mb else 0.0
            share += min(installed / (stage.installed_mb * 1e6), 1.0) if stage.installed_mb else 0.0
            fraction = max(self.told[0], begin + 0.5 * share * (stage.end - begin))
            if installed > most:
                self._progress(fraction, f"installing {stage.label}")
            elif most > 1e6:
                text = f"fetching {stage.label}: {most / 1e6:.0f} of about {stage.download_mb} MB"
                self._progress(fraction, text)

        def hear(text: str) -> None:
            self._write(text)
            self.events.line(text)

        try:
            pip.run_pip(
                python,
                ["install", "--only-binary", ":all:", "--progress-bar", "off", *where, *what],
                self.environ,
                pip.debug_log(home),
                line=hear,
                cancelled=self.cancelled,
                stall_s=self.options.stall_s,
                size=growth.bytes,
                watch=watch,
                kept_open=self.kept_open,
            )
        except InstallError as error:
            self._write(pip.last_words(home))
            raise InstallError(error.code, error.message, f"{error.hint} Log: {self.log}") from error

    def _probe(self, python: Path, folder: Path) -> dict[str, Any]:
        said: list[str] = []

        def hear(text: str) -> None:
            said.append(text)
            self._write(text)

        script = os.fspath(self.options.resources / "probe.py")
        # as the worker will run, not as pip did
        environ = child_environment(self.options.environ)
        environ.update({name: self.environ[name] for name in ("TMPDIR", "TEMP", "TMP")})
        try:
            code = self._child(python, [script], environ, hear, folder, max(self.options.stall_s, PROBE_S))
        except children.Stalled:
            code, said = 1, [*said, f"no answer within {PROBE_S:.0f} s"]
        answers = [text for text in said if text.startswith("KESTREL ")]
        if not code and answers:
            return dict(json.loads(answers[-1][len("KESTREL ") :]))
        last = next((text for text in reversed(said) if text.strip()), f"exit code {code}")
        hint = f"Please report it with the log: {self.log}"
        if os.name == "nt" and "DLL" in "\n".join(said):
            hint = (
                "torch's libraries do not load: install the Microsoft Visual C++ Redistributable (x64), then "
                f"the runtime again. Log: {self.log}"
            )
        raise InstallError("probe", f"The packages were installed but do not work: {last[:300]}", hint)

    def _complete(self, info: RuntimeInfo, target: Target) -> None:
        """Write complete.json last: from here on the runtime exists."""
        told = {
            "format": FORMAT,
            # relative: the folder's own path may reach a reader by another mount
            "python": os.fspath(info.python.relative_to(info.folder)),
            "base": {
                "python": os.fspath(self.base),
                "version": ".".join(map(str, target.version)),
                "source": self.source,
            },
            "versions": dict(info.versions),
            "device": info.device,
            "accelerator": info.accelerator,
            "platform": target.platform,
            "lock": target.lock.sha256,
            "torch": target.build.plain,
            "kestrel": paths.kestrel_version(),
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        part = info.folder / (COMPLETE + ".part")
        with open(part, "w", encoding="utf-8") as file:
            json.dump(told, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, info.folder / COMPLETE)

    def _child(
        self,
        python: Path,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        line: Callable[[str], None],
        folder: Path,
        stall_s: float = 0.0,
    ) -> int:
        return children.run_module(
            python,
            arguments,
            environ,
            line=line,
            cancelled=self.cancelled,
            stall_s=stall_s or self.options.stall_s,
            size=_Growth(self.options.home, folder).bytes,
            kept_open=self.kept_open,
        )

    def _progress(self, fraction: float, text: str) -> None:
        if (fraction, text) != self.told:
            self.told = (fraction, text)
            self.events.progress(fraction, text)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError), open(self.log, "a", encoding="utf-8") as log:
            log.write(text + "\n")


class _Growth:
    """Bytes that grow while pip works: its downloads, and now and then what it has installed."""

    #: A runtime has 20 000 files; looking at them each second would be work of its own.
    EVERY = 5

    def __init__(self, home: Path, folder: Path) -> None:
        self.home = home
        self.folder = folder
        self.calls = 0
        self.installed = 0
        self.downloaded = 0

    def bytes(self) -> int:
        """Return downloaded plus installed bytes, the latter a few seconds old."""
        if self.calls % self.EVERY == 0:
            self.installed = pip.bytes_below(self.folder)
        self.calls += 1
        self.downloaded = pip.downloaded_bytes(self.home)
        return self.installed + self.downloaded


def _spec_in(wheels: Path, build: Build) -> str:
    """Return the spec of the right build of torch where the folder holds it, else any build."""
    name = build.plain.partition("==")[0]
    for _, spec in build.sources:
        version = spec.partition("==")[2]
        for written in (version, version.replace("+", "%2B")):
            if any(wheels.glob(f"{name}-{written}-*.whl")):
                return spec
    return build.plain
