"""The ``status`` Job: which Python, versions, devices and weights there are, and whether they work."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .versions import BASE_PACKAGES, MODEL_PACKAGES, kestrel_version, package_versions

WEIGHTS = Path(__file__).parent.parent / "resources" / "weights"


def status(folder: str = "") -> tuple[dict[str, Any], list[str]]:
    """Return (figures, warnings) for a ``status`` Job; ``folder`` is where a test pixel may be written.

    Imports what a run would import, so that a broken library shows here and not in the first run.
    """
    packages = package_versions()
    checks = {
        "CRS from EPSG": _check(_check_crs),
        "write one pixel": _check(lambda: _check_write(folder)),
        "torch": _check(_check_torch),
    }
    devices, device_note = _devices()
    missing = [name for name in (*BASE_PACKAGES, *MODEL_PACKAGES) if packages[name] is None]
    warnings = [f"Missing package: {name}." for name in missing]
    warnings += [f"Check failed - {name}: {text}." for name, text in checks.items() if text != "ok"]
    figures = {
        "kestrel": kestrel_version(),
        "python": {"path": sys.executable, "version": platform.python_version(), "prefix": sys.prefix},
        "system": platform.platform(),
        "packages": packages,
        "missing": missing,
        "devices": devices,
        "device_note": device_note,
        "weights": weights_list(WEIGHTS),
        "checks": checks,
    }
    return figures, warnings


def weights_list(folder: Path) -> list[dict[str, Any]]:
    """Return one line for each entry of ``folder``/manifest.json: name, status, file, size, ``state``.

    ``state`` is ``ok``, ``missing`` or ``changed`` (sha256 differs from the manifest's).
    """
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return []
    lines = []
    for name, entry in sorted(json.loads(manifest.read_text(encoding="utf-8")).items()):
        path = folder / str(entry["file"])
        if not path.is_file():
            state = "missing"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            state = "changed"
        else:
            state = "ok"
        lines.append(
            {
                "name": name,
                "status": entry.get("status", ""),
                "file": entry["file"],
                "size": entry.get("size"),
                "sha256": entry["sha256"],
                "pack": entry.get("pack", ""),
                "state": state,
            }
        )
    return lines


def _check(action: Callable[[], None]) -> str:
    try:
        action()
    except Exception as error:  # whatever a broken library raises is the finding
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    return "ok"


def _check_crs() -> None:
    from rasterio.crs import CRS

    if CRS.from_epsg(32633).to_epsg() != 32633:
        raise ValueError("EPSG:32633 did not survive PROJ")


def _check_write(folder: str) -> None:
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    with tempfile.TemporaryDirectory(prefix="kestrel-status-", dir=folder or None) as scratch:
        path = Path(scratch) / "pixel.tif"
        profile = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8"}
        with rasterio.open(path, "w", transform=from_origin(0, 1, 1, 1), **profile) as target:
            target.write(np.array([[[7]]], dtype=np.uint8))
        with rasterio.open(path) as source:
            if int(source.read(1)[0, 0]) != 7:
                raise ValueError("the pixel written is not the pixel read")


def _check_torch() -> None:
    import torch

    if float(torch.ones(2).sum()) != 2.0:
        raise ValueError("1 + 1 is not 2")


def _devices() -> tuple[list[dict[str, str]], str]:
    """Return the devices torch can use, the CPU first, and why others are missing."""
    devices = [{"name": "cpu", "detail": platform.processor() or platform.machine()}]
    try:
        import torch
    except (ImportError, OSError) as error:
        return devices, f"torch does not load ({type(error).__name__}), only methods without torch will run"
    devices[0]["detail"] += f", {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        devices.append({"name": "cuda", "detail": torch.cuda.get_device_name(0)})
    elif torch.backends.mps.is_available():
        devices.append({"name": "mps", "detail": "Apple GPU"})
    elif torch.version.cuda is None:
        return devices, "this torch is built without CUDA"
    else:
        return devices, f"this torch is built for CUDA {torch.version.cuda} but finds no usable GPU"
    return devices, ""
