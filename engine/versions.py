"""What is installed beside the worker, without importing any of it: ``hello`` must be fast."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

#: Everything the engine or a model imports; the first line is enough for methods without torch.
BASE_PACKAGES = ("numpy", "rasterio", "shapely", "geopandas", "pyproj", "pyogrio", "scipy")
MODEL_PACKAGES = ("torch", "safetensors", "einops")
REPORT_PACKAGES = ("matplotlib",)
PACKAGES = BASE_PACKAGES + MODEL_PACKAGES + REPORT_PACKAGES


def kestrel_version() -> str:
    """Return the version that metadata.txt states, the only place that holds it."""
    metadata = Path(__file__).parent.parent / "metadata.txt"
    for line in metadata.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "version":
            return value.strip()
    return "unknown"


def package_versions() -> dict[str, str | None]:
    """Return name -> installed version, None where a package is missing."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def likely_devices(packages: dict[str, str | None]) -> list[str]:
    """Return the devices that may work, from traces on disk: importing torch costs seconds.

    ``cuda`` where the NVIDIA driver is loaded and torch is not the CPU build, ``mps`` on Apple
    silicon. Only a ``status`` Job asks torch itself.
    """
    devices = ["cpu"]
    torch = packages.get("torch")
    if torch is None:
        return devices
    driver = os.path.exists("/proc/driver/nvidia/version") or (
        os.name == "nt" and os.path.exists(os.path.expandvars(r"%SystemRoot%\System32\nvcuda.dll"))
    )
    if driver and not torch.endswith("+cpu"):
        devices.append("cuda")
    if sys.platform == "darwin" and os.uname().machine == "arm64":
        devices.append("mps")
    return devices
