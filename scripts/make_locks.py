#!/usr/bin/env python3
"""Write resources/runtime/lock-<platform>-py<XY>.txt: what a managed runtime holds beside torch.

    scripts/make_locks.py                       all platforms and Pythons (about 1.5 GB of wheels)
    scripts/make_locks.py linux-x86_64 3.11     one of them

Versions: those of requirements/runtime.txt, what torch itself imports, and what Debian gives a
checkout but a managed runtime must bring along. The wheels are fetched by pip as that platform would
fetch them, then hashed, measured and read here; nothing of them is kept. Wheels only: no lock may
need a compiler. Run it with a Python that has pip 23 or newer and packaging; the index is pip's own.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")


def _glibc(newest: int, machine: str) -> list[str]:
    # pip takes these names literally: a newer glibc also runs what was built for the older ones
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, 16, -1)]
    return [*tags, f"manylinux2014_{machine}"]


#: Platform -> lists of pip's platform tags; the first decides versions, the others add the hashes of
#: the files that newer or older systems choose of the same versions. glibc 2.28 is torch's own least.
PLATFORMS = {
    "linux-x86_64": [_glibc(28, "x86_64"), _glibc(41, "x86_64")],
    "linux-aarch64": [_glibc(28, "aarch64"), _glibc(41, "aarch64")],
    "windows-x86_64": [["win_amd64"]],
    "macos-arm64": [["macosx_14_0_arm64"], ["macosx_15_0_arm64"]],  # rasterio 1.4.4 begins at macOS 14
}

#: What markers see there (pip's own see the Python that runs this script).
MARKERS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
    "windows": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"},
    "macos": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"},
}

#: Debian brings these to a checkout; a managed runtime has no Debian around it.
BESIDE = ("scipy>=1.10", "matplotlib>=3.6")

#: What torch 2.13 requires beside CUDA's libraries, which come with torch in the second call.
OF_TORCH = (
    "filelock",
    "typing-extensions>=4.10",
    "sympy>=1.13.3",
    "networkx>=2.5.1",
    "jinja2",
    "fsspec>=0.8.5",
    "setuptools>=77.0.3",
)

#: Pins of requirements/runtime.txt that have no wheel for a Python.
INSTEAD = {"3.13": {"numpy": "numpy>=2.1,<3"}}  # numpy 1.26 ends at Python 3.12


@dataclass
class Package:
    """One package of a lock."""

    version: str
    hashes: set[str] = field(default_factory=set)
    requires: list[str] = field(default_factory=list)
    download: int = 0
    installed: int = 0


def main() -> None:
    """Write the locks that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("platform", nargs="?", choices=sorted(PLATFORMS))
    parser.add_argument("python", nargs="?", choices=PYTHONS)
    asked = parser.parse_args()
    for platform in [asked.platform] if asked.platform else PLATFORMS:
        for python in [asked.python] if asked.python else PYTHONS:
            path = ROOT / "resources" / "runtime" / f"lock-{platform}-py{python.replace('.', '')}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            packages = resolve(platform, python)
            path.write_text(lock_text(platform, python, packages), encoding="utf-8")
            sys.stdout.write(f"{path.name}: {len(packages)} packages\n")


def wanted(platform: str, python: str) -> list[str]:
    """Return the requirements a lock starts from, markers evaluated."""
    lines = (ROOT / "requirements" / "runtime.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.partition("#")[0].strip() for line in lines]
    instead = INSTEAD.get(python, {})
    found = []
    for text in [pin for pin in pins if pin] + [*BESIDE, *OF_TORCH]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name != "torch" and applies(requirement, platform, python):
            found.append(instead.get(name, f"{requirement.name}{requirement.specifier}"))
    return found


def applies(requirement: Requirement, platform: str, python: str) -> bool:
    """Return whether ``requirement`` holds on that platform and Python, no extra asked for."""
    if requirement.marker is None:
        return True
    system, _, machine = platform.partition("-")
    seen = {
        **MARKERS[system],
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": "AMD64" if system == "windows" else machine,
        "extra": "",
    }
    return requirement.marker.evaluate(seen)


def resolve(platform: str, python: str) -> dict[str, Package]:
    """Return name -> Package, closed under what the packages require there."""
    tags, *others = PLATFORMS[platform]
    roots = wanted(platform, python)
    while True:
        packages = fetch(roots, tags, python)
        missing = {
            f"{requirement.name}{requirement.specifier}"
            for package in packages.values()
            for requirement in map(Requirement, package.requires)
            if applies(requirement, platform, python) and canonicalize_name(requirement.name) not in packages
        }
        if not missing:
            break
        roots += sorted(missing)
    needed = closure(roots, packages, platform, python)
    packages = {name: packages[name] for name in sorted(needed)}
    for more in others:
        pins = [f"{name}=={package.version}" for name, package in packages.items()]
        for name, package in fetch(pins, more, python, "--no-deps").items():
            packages[name].hashes |= package.hashes
    return packages


def closure(roots: Iterable[str], packages: dict[str, Package], platform: str, python: str) -> set[str]:
    """Return the names that ``roots`` lead to there; pip may have fetched others for its own platform."""
    todo = [canonicalize_name(Requirement(root).name) for root in roots]
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            required = map(Requirement, packages[name].requires)
            todo += [canonicalize_name(each.name) for each in required if applies(each, platform, python)]
    return seen


def fetch(requirements: Iterable[str], tags: Iterable[str], python: str, *options: str) -> dict[str, Package]:
    """Let pip fetch wheels as that platform would; return what they hold."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:"]
        command += ["--dest", folder, "--python-version", python, "--implementation", "cp", *options]
        for tag in tags:
            command += ["--platform", tag]
        subprocess.run([*command, *requirements], check=True)
        return {name: package for name, package in map(read_wheel, sorted(Path(folder).glob("*.whl")))}


def read_wheel(path: Path) -> tuple[str, Package]:
    """Return a wheel's canonical name, version, hash, requirements and sizes in bytes."""
    with zipfile.ZipFile(path) as wheel:
        inside = next(name for name in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        told = Parser().parsestr(wheel.read(inside).decode("utf-8"))
        installed = sum(entry.file_size for entry in wheel.infolist())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    requires = told.get_all("Requires-Dist") or []
    package = Package(told["Version"], {digest}, requires, path.stat().st_size, installed)
    return canonicalize_name(told["Name"]), package


def lock_text(platform: str, python: str, packages: dict[str, Package]) -> str:
    """Return the lock: two sizes in MB, then one package a line with the hashes of its wheels."""
    lines = [
        f"# {platform}, Python {python}; made by scripts/make_locks.py from requirements/runtime.txt.",
        f"# download_mb: {sum(package.download for package in packages.values()) / 1e6:.0f}",
        f"# installed_mb: {sum(package.installed for package in packages.values()) / 1e6:.0f}",
    ]
    for name, package in packages.items():
        hashes = " ".join(f"--hash=sha256:{digest}" for digest in sorted(package.hashes))
        lines.append(f"{name}=={package.version} {hashes}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
