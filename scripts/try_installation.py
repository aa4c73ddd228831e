#!/usr/bin/env python3
"""Try the packaged plugin as a new user would: empty profile, no virtual environment, an odd home folder.

Unpacks the zip of ``make package`` into a QGIS profile made for this, installs a runtime by
``kestrel:installruntime``, finds ships in a simulated scene by ``kestrel:detectships``, all through
qgis_process, and tells each step as a transcript. Once from the index that pip is configured to use,
once from a wheel folder with every configuration of pip out of reach. Needs the system's Python only;
the scene and the wheels are made beforehand by the checkout's.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: A user's folder as it exists in the wild.
USER = "Jörg Müller"
#: Nothing of the caller's Python, QGIS, Kestrel or pip reaches the user's QGIS.
DROPPED = ("PYTHON", "VIRTUAL_ENV", "CONDA_", "KESTREL_", "QGIS_", "QT_", "PIP_", "UV_", "PYENV_")
#: pip's variables that say how this machine reaches its index; they stay where the index is asked.
REACH = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_PROXY", "PIP_CONFIG_FILE")
#: An ordinary PATH: no environment of the caller's in front.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: One step of qgis_process; installing takes a minute or two, on a busy machine many more.
STEP_S = 1800
#: Lines that tell of the machine the script runs on, not of Kestrel.
NOISE = ("QStandardPaths", "setapi() is deprecated", "-----")
#: How pip's lines begin: one per package, with this machine's folders; shown by --verbose.
PIP = ("Collecting", "Downloading", "Processing", "Requirement already", "Looking in", "Using cached")
PIP += ("WARNING: Location", "WARNING: Retrying", "Installing collected", "Attempting uninstall")
PIP += ("Found existing", "Uninstalling", "Successfully uninstalled")
#: Longer lines (versions as JSON) are cut in the transcript.
LINE = 200
SCENE = ["--height", "600", "--width", "800", "--ships", "12", "--land-share", "0", "--arrangement", "open"]


class Failure(Exception):
    """A step did not do what it should: one sentence."""


def say(text: str = "") -> None:
    """Write one line of the transcript."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class User:
    """Somebody with a fresh QGIS: their folder, their environment, what they do."""

    def __init__(self, folder: Path, reach: bool, verbose: bool) -> None:
        """``reach``: pip keeps this machine's configuration; otherwise it has none at all."""
        self.folder = folder
        self.verbose = verbose
        self.home = folder / USER / "kestrel home"
        self.config = folder / USER / "qgis profile"
        self.plugins = self.config / "profiles" / "default" / "python" / "plugins"
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(DROPPED) or (reach and name in REACH)
        }
        self.environ.update(
            PATH=PATH,
            KESTREL_HOME=str(self.home),
            QGIS_CUSTOM_CONFIG_PATH=str(self.config),
            QT_QPA_PLATFORM="offscreen",
        )
        if not reach:
            self.environ["PIP_CONFIG_FILE"] = os.devnull
        for each in (self.home.parent, self.plugins):
            each.mkdir(parents=True)
        self.program = shutil.which("qgis_process.bin", path=PATH) or shutil.which("qgis_process", path=PATH)
        if not self.program:
            raise Failure("There is no qgis_process; install QGIS.")

    def unpack(self, package: Path) -> None:
        """Install the plugin as QGIS does: unpack the zip, switch it on."""
        with zipfile.ZipFile(package) as archive:
            archive.extractall(self.plugins)
        # its exit code is 1 where the plugin is on already, so the list of algorithms tells
        self.qgis(["plugins", "enable", "kestrel"], may_fail=True)
        listed = self.qgis(["list"], shown=lambda line: "kestrel:" in line)
        if "kestrel:installruntime" not in listed:
            raise Failure("qgis_process does not list kestrel:installruntime.")

    def run(self, algorithm: str, **parameters: object) -> dict[str, Any]:
        """Run an algorithm and return its results."""
        typed = [f"{name}={value}" for name, value in parameters.items()]
        text = self.qgis(["run", algorithm, "--", *typed])
        results: dict[str, Any] = {}
        for line in text.rpartition("Results")[2].splitlines():
            name, colon, value = line.strip().partition(":\t")
            if colon:
                results[name] = value
        return results

    def qgis(
        self, arguments: list[str], may_fail: bool = False, shown: Any = lambda line: bool(line.strip())
    ) -> str:
        """Run qgis_process, tell its lines with the seconds gone, return its output."""
        say(f"$ qgis_process {' '.join(shlex.quote(self._short(each)) for each in arguments)}")
        started = time.monotonic()
        lines: list[str] = []
        with subprocess.Popen(
            [str(self.program), *arguments],
            env=self.environ,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as child:
            for line in child.stdout or ():
                lines.append(line)
                if shown(line) and self._worth(line):
                    text = self._short(line.rstrip())
                    text = text if self.verbose or len(text) <= LINE else f"{text[:LINE]} ..."
                    say(f"{time.monotonic() - started:6.1f} s | {text}")
                if time.monotonic() - started > STEP_S:
                    child.kill()
        say(f"{time.monotonic() - started:6.1f} s, exit code {child.returncode}")
        say()
        if child.returncode and not may_fail:
            say("".join(lines[-60:]))
            raise Failure(f"qgis_process {' '.join(arguments[:2])} ended with {child.returncode}.")
        return "".join(lines)

    def _worth(self, line: str) -> bool:
        return self.verbose or not (any(each in line for each in NOISE) or line.strip().startswith(PIP))

    def _short(self, text: str) -> str:
        return text.replace(str(self.folder), "~").replace(f"{self.folder.parent}/", "")


def ships_in(path: Path) -> int:
    """Return how many polygons a GeoPackage holds; its styles are a table too."""
    with sqlite3.connect(path) as base:
        (table,) = base.execute(
            "select table_name from gpkg_contents where data_type = 'features'"
        ).fetchone()
        return int(base.execute(f'select count(*) from "{table}"').fetchone()[0])  # noqa: S608 - own file


def try_once(user: User, package: Path, scene: Path, pack: Path | None, wheels: Path | None) -> None:
    """Be one user from the zip to the ships; raises Failure."""
    user.unpack(package)
    before = user.run("kestrel:runtimestatus")
    if before.get("DEVICE"):
        raise Failure("A Python that can run the models was found before one was installed.")
    more = {"WHEELS": wheels} if wheels else {}
    installed = user.run("kestrel:installruntime", ACCELERATOR="cpu", **more)
    complete = [json.loads(path.read_text("utf-8")) for path in user.home.glob("runtimes/*/complete.json")]
    if len(complete) != 1:
        raise Failure(f"{len(complete)} complete runtimes lie in {user.home}.")
    if not installed.get("FOLDER") or "torch" not in installed.get("VERSIONS", ""):
        raise Failure(f"installruntime returned {installed}.")
    after = user.run("kestrel:runtimestatus")
    if after.get("DEVICE") not in ("cpu", "cuda", "mps"):
        raise Failure(f"runtimestatus returned {after}.")
    if str(user.home) not in json.loads(after["VERSIONS"])["python"]:
        raise Failure("The models do not run in the runtime that was installed.")
    if pack:
        user.run("kestrel:installweights", PACK=pack)
    ships = user.folder / USER / "ships ü.gpkg"
    told = user.run("kestrel:detectships", INPUT=scene, OUTPUT=ships)
    found = ships_in(ships)
    if not found or str(found) != told.get("COUNT"):
        raise Failure(f"{ships.name} holds {found} ships, the results say {told.get('COUNT')}.")
    again = user.run("kestrel:installruntime", ACCELERATOR="cpu", **more)
    if again.get("FOLDER") != installed["FOLDER"]:
        raise Failure("A second installation did not keep the first.")
    used = sum(path.lstat().st_size for path in user.home.rglob("*"))
    say(f"{found} ships found in a simulated scene that holds 12; KESTREL_HOME holds {used / 1e6:,.0f} MB")


def make_scene(python: Path, path: Path) -> None:
    """Simulate a small scene by the checkout's interpreter."""
    command = [str(python), str(ROOT / "scripts" / "make_sar_scene.py"), str(path), *SCENE]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def fill_wheels(folder: Path) -> None:
    """Fill a wheel folder by ``pip download``, as the README tells users to, with the system's Python.

    torch comes as the CPU build where the configured index or folder has one.
    """
    ask = ["/usr/bin/python3", "-c", "import sys; print('%d%d' % sys.version_info[:2])"]
    version = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    lock = ROOT / "resources" / "runtime" / f"lock-linux-{os.uname().machine}-py{version}.txt"
    sources = json.loads((ROOT / "resources" / "runtime" / "sources.json").read_text("utf-8"))
    torch = f"{sources['package']}=={sources['version']}"
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    for what in (["--require-hashes", "-r", str(lock)], [torch]):
        told = shlex.join(what).replace(f"{ROOT}/", "")
        say(f"$ python3 -m pip download --no-deps -d 'wheel folder' {told}")
        command = ["/usr/bin/python3", "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder)]
        done = subprocess.run([*command, *what], capture_output=True, text=True, env=environ, check=False)
        if done.returncode:
            raise Failure(f"pip download failed: {done.stderr}")
    total = sum(path.stat().st_size for path in folder.iterdir())
    say(f"{len(list(folder.iterdir()))} wheels, {total / 1e6:,.0f} MB")
    say()


def main() -> int:
    """Try what was asked for; the exit code is 1 when a step failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="the plugin zip of `make package`")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "try", help="folder, emptied first")
    parser.add_argument("--only", choices=("index", "wheels"), help="one of the two ways")
    parser.add_argument("--pack", type=Path, help="a weight pack to install as well")
    parser.add_argument("--keep", action="store_true", help="leave what was installed (1.5 GB each)")
    parser.add_argument("--verbose", action="store_true", help="show pip's lines too")
    parser.add_argument("--python", type=Path, default=ROOT / ".venv" / "bin" / "python")
    typed = parser.parse_args()
    shutil.rmtree(typed.work, ignore_errors=True)
    work = typed.work.resolve()
    work.mkdir(parents=True)
    package, pack = typed.package.resolve(), typed.pack and typed.pack.resolve()
    try:
        make_scene(typed.python, work / "simulated scene.tif")
        for way in ("index", "wheels"):
            if typed.only in (None, way):
                say(f"== From {'the index pip is configured to use' if way == 'index' else 'a wheel folder'}")
                wheels = None
                if way == "wheels":
                    wheels = work / "wheel folder"
                    wheels.mkdir()
                    fill_wheels(wheels)
                user = User(work / way, reach=way == "index", verbose=typed.verbose)
                try_once(user, package, work / "simulated scene.tif", pack, wheels)
                if not typed.keep:
                    shutil.rmtree(work / way)
                say()
    except Failure as failure:
        say(f"FAILED: {failure}")
        return 1
    finally:
        if not typed.keep:
            shutil.rmtree(work / "wheel folder", ignore_errors=True)
    say("Everything worked.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
