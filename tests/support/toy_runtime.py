"""Toy packages for the installer: wheels of a few bytes, their lock, sources and probe, an index."""

import hashlib
import importlib.util
import json
import platform
import sys
import sysconfig
import zipfile
from pathlib import Path
from types import SimpleNamespace

from kestrel.plugin.installing.sources import platform_name

#: The interpreter itself and not the environment the tests run in.
PYTHON = str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())
BASE = SimpleNamespace(python=PYTHON, version=sys.version_info[:2], source="test")

#: Each package is many small files of one version, so that half an installation can be told.
MODULES = 40
PACKAGES = ("toyalpha", "toybeta")
TORCH = "toytorch"

PROBE = f"""
import importlib, json
versions = {{}}
for name in {(*PACKAGES, TORCH)!r}:
    found = {{importlib.import_module(f"{{name}}.part{{n}}").VERSION for n in range({MODULES})}}
    (versions[name],) = found
print("KESTREL", json.dumps({{"versions": versions, "device": "cpu"}}))
"""


def write_wheel(folder, name, version):
    """Write a pure wheel whose modules all state ``version``; return its path."""
    files = {f"{name}/__init__.py": ""}
    files.update({f"{name}/part{number}.py": f"VERSION = {version!r}\n" for number in range(MODULES)})
    info = f"{name}-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: toy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = f"{info}/RECORD"
    files[record] = "".join(f"{path},,\n" for path in [*files, record])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for inside, text in files.items():
            wheel.writestr(zipfile.ZipInfo(inside), text)
    return path


def write_toys(folder, version="1.0", indexes=()):
    """Write wheels, ``simple`` index and resources below ``folder``; return the resources' folder.

    ``indexes`` are tried for toytorch before pip's own configuration.
    """
    wheels, resources = folder / "wheels", folder / f"resources-{version}"
    lines = ["# toys", "# download_mb: 1", "# installed_mb: 1"]
    for name in (*PACKAGES, TORCH):
        path = write_wheel(wheels, name, version)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if name != TORCH:
            lines.append(f"{name}=={version} --hash=sha256:{digest}")
        page = folder / "simple" / name
        page.mkdir(parents=True, exist_ok=True)
        links = [f'<a href="../../wheels/{each.name}">{each.name}</a>' for each in wheels.glob(f"{name}-*")]
        (page / "index.html").write_text("<html><body>" + "".join(links) + "</body></html>")
    resources.mkdir()
    system = platform_name(sysconfig.get_platform(), platform.machine())
    lock = resources / f"lock-{system}-py{sys.version_info[0]}{sys.version_info[1]}.txt"
    lock.write_text("\n".join(lines) + "\n")
    sources = [{"index": index, "local": ""} for index in indexes]
    build = {
        "platform": system,
        "accelerator": "cpu",
        "download_mb": 1,
        "installed_mb": 1,
        "sources": sources,
    }
    told = {"package": TORCH, "version": version, "builds": [build]}
    (resources / "sources.json").write_text(json.dumps(told))
    (resources / "probe.py").write_text(PROBE)
    return resources


def quick_venv(filling, folder, python):
    """Make the environment with this process's pip in place of one of its own: for ``Filling._make_venv``.

    ensurepip takes most of the time of a toy's installation, and its result is always the same.
    """
    code = filling._child(
        filling.base, ["venv", "--without-pip", str(folder)], filling.environ, print, folder
    )
    assert code == 0
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "pip").symlink_to(Path(importlib.util.find_spec("pip").origin).parent)


def quiet_environ(environ, **more):
    """Return ``environ`` without the machine's own pip settings and proxies, plus ``more``."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith("PIP_") and not name.lower().endswith("_proxy") and "CA_BUNDLE" not in name
    }
    # os.devnull: pip reads no configuration file at all
    return {**kept, "PIP_CONFIG_FILE": "/dev/null", "PIP_RETRIES": "0", **more}
