"""Two dates and the changes between them as files, and a training that only keeps what it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from affine import Affine
from kestrel.engine.errors import Cancelled
from kestrel.engine.job import Job
from kestrel.engine.run import run_job
from kestrel.models.scaling import stretch_from
from kestrel.models.task import Input
from kestrel.models.trainable import Crops, Training
from pyproj import CRS, Transformer

from .jobs import Recorder
from .rasters import PLACES

ROLES = ("before", "after", "changes")
FOLDERS = dict(zip(ROLES, ("A", "B", "label"), strict=True))


class Keeper:
    """A trainer whose training keeps its crops and stops."""

    def __init__(self, crop: int = 16, least: int = 2):
        self.crop, self.least = crop, least
        self.crops: Crops | None = None

    def __call__(self, params: Any, device: str) -> Training:
        scale = stretch_from(params)
        return Training(
            name="toy",
            inputs=tuple(Input(role, bands=3, scale=scale) for role in ROLES[:2]),
            required=ROLES,
            crop=self.crop,
            least=self.least,
            learn=self.learn,
            labels="changes",
            pair=True,
            folders=FOLDERS,
        )

    def learn(self, crops: Crops, folder: Path, tell: Any, stop: Any) -> None:
        self.crops = crops


def date(height: int, width: int, seed: int, dtype: str = "uint8", low: int = 1) -> np.ndarray:
    """Return noise (3, H, W)."""
    high = 255 if dtype == "uint8" else 3000
    return np.random.default_rng(seed).integers(low, high, (3, height, width)).astype(dtype)


def write_polygons(path: Path, boxes: Any, place: str = "north_up", epsg: int | None = None) -> Path:
    """Write pixel rectangles (column, row, column, row) as a GeoPackage, in the place's CRS or another."""
    crs, transform = PLACES[place]
    if place == "bare":
        transform = Affine.scale(1, -1)  # as QGIS shows it
    shapes = []
    for box in boxes:
        ring = shapely.segmentize(shapely.box(*box), 1.0)
        shapes.append(shapely.transform(ring, lambda xy: np.stack(transform * (xy[:, 0], xy[:, 1]), axis=1)))
    if epsg is not None:
        move = Transformer.from_crs(CRS(crs.to_wkt()), CRS(epsg), always_xy=True).transform
        shapes = [shapely.transform(shape, lambda xy: np.stack(move(*xy.T), axis=1)) for shape in shapes]
    name = f"EPSG:{epsg}" if epsg else (crs.to_wkt() if crs else None)
    shapes = [shapely.multipolygons([shape]) for shape in shapes]
    wkb = np.array(shapely.to_wkb(shapes), object)
    pyogrio.raw.write(
        path, wkb, [], [], crs=name, geometry_type="MultiPolygon", driver="GPKG", layer="changes"
    )
    return path


def write_tile(folder: Path, name: str, before: np.ndarray, after: np.ndarray, label: np.ndarray) -> None:
    """Write one tile as PNG: both dates (3, H, W), label (H, W) bool, 255 = change."""
    for sub, image in zip(FOLDERS.values(), (before, after, label[None] * np.uint8(255)), strict=True):
        (folder / sub).mkdir(parents=True, exist_ok=True)
        settings = {"driver": "PNG", "count": len(image), "height": image.shape[1], "width": image.shape[2]}
        with rasterio.open(folder / sub / f"{name}.png", "w", dtype=image.dtype, **settings) as dataset:
            dataset.write(image)


def folder_inputs(folder: Path, **bands: list[int]) -> dict[str, Any]:
    """Return a Job's inputs for a tile folder."""
    return {role: {"path": str(folder / sub), "bands": bands.get(role, [])} for role, sub in FOLDERS.items()}


def layer_inputs(*paths: Path, **bands: list[int]) -> dict[str, Any]:
    """Return a Job's inputs for two dates and polygons."""
    named = zip(ROLES, paths, strict=True)
    return {role: {"path": str(path), "bands": bands.get(role, [])} for role, path in named}


def kept(inputs: dict[str, Any], out: Path, keeper: Keeper | None = None, **params: Any):
    """Run a training that only keeps its crops; return them and the events."""
    keeper, events = keeper or Keeper(), Recorder()
    job = Job("train", "toy", inputs, {"weights": str(out / "own.safetensors")}, params, device="cpu")
    try:
        run_job(job, events, trainer=keeper)
    except Cancelled:
        pass
    return keeper.crops, events


def moved(place: str, columns: float, rows: float, factor: float = 1.0) -> Affine:
    """Return the place's transform, begun elsewhere, with pixels so many times larger."""
    return PLACES[place][1] * Affine.translation(columns, rows) * Affine.scale(factor)
