"""A clear raster and the same ground under haze, made by code, and Jobs that train on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from kestrel.engine.job import Job
from kestrel.models.classical.haze import cloud_field, simulate

from .rasters import write


def ground(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return float32 (3, H, W) in 0..1: smooth fields with edges, coloured."""
    fields = [cloud_field((height, width), seed * 10 + i, 12.0) for i in range(3)]
    steps = np.round(cloud_field((height, width), seed * 10 + 3, 30.0) * 4) / 4
    return np.stack([0.1 + 0.3 * field + 0.3 * steps for field in fields]).astype(np.float32)


def write_pair(
    folder: Path, height: int = 160, width: int = 192, dtype: str = "uint8", **profile: Any
) -> tuple[Path, Path]:
    """Write ``hazy.tif`` and ``clear.tif`` on one grid; 16-bit values have ten times the range."""
    clear = ground(height, width)
    hazy = simulate(clear, 1, thinnest=0.7, thickest=0.4, width_px=80.0).image
    most = 255 if dtype == "uint8" else 2550
    paths = []
    for name, image in (("hazy", hazy), ("clear", clear)):
        values = np.rint(np.clip(image, 0, 1) * most).astype(dtype)
        paths.append(write(folder / f"{name}.tif", values, **profile))
    return paths[0], paths[1]


def training_job(hazy: Path | None, clear: Path | None, out: Path, **fields: Any) -> Job:
    """Return a train Job of seconds; ``bands``, ``report``, ``device``, ``scratch`` by name, rest params."""
    bands = list(fields.pop("bands", ()))
    inputs = {
        role: {"path": str(path), "bands": bands}
        for role, path in (("hazy", hazy), ("clear", clear))
        if path is not None
    }
    outputs = {"weights": str(out / "own.safetensors")}
    if fields.pop("report", False):
        outputs["report"] = str(out / "report.html")
    known = {name: fields.pop(name) for name in ("device", "scratch") if name in fields}
    params = {"crop": 32, "epochs": 2, "batch": 4, "preset": "small", **fields}
    return Job("train", "dehazing", inputs, outputs, params, **{"device": "cpu", **known})
