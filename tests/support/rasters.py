"""Tiny rasters made by code: every way an analyst's file may lie on the ground or lack pixels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

UTM = CRS.from_epsg(32633)
WGS84 = CRS.from_epsg(4326)
#: Upper left corner in UTM 33N, 15 degrees east, about 45 degrees north: open sea is not needed.
ORIGIN = (500_000.0, 5_000_000.0)

#: name -> (CRS, transform) of a raster with pixels of about 10 m.
PLACES = {
    "north_up": (UTM, Affine(10, 0, ORIGIN[0], 0, -10, ORIGIN[1])),
    "rotated": (UTM, Affine.translation(*ORIGIN) * Affine.rotation(30) * Affine.scale(10, -10)),
    "sheared": (UTM, Affine.translation(*ORIGIN) * Affine.shear(15, 0) * Affine.scale(10, -10)),
    "south_up": (UTM, Affine(10, 0, ORIGIN[0], 0, 10, ORIGIN[1])),
    "oblong": (UTM, Affine(10, 0, ORIGIN[0], 0, -20, ORIGIN[1])),
    "degrees": (WGS84, Affine(1e-4, 0, 15.0, 0, -1e-4, 45.0)),
    "no_crs": (None, Affine(10, 0, ORIGIN[0], 0, -10, ORIGIN[1])),
    "bare": (None, Affine.identity()),
}


def sea(height: int, width: int, ships: list[tuple[int, int, int, int]], seed: int = 0) -> np.ndarray:
    """Return uint8 (height, width): noise of 10..30 with ships, (x1, y1, x2, y2), of 220."""
    image = np.random.default_rng(seed).integers(10, 31, (height, width), dtype=np.uint8)
    for x1, y1, x2, y2 in ships:
        image[y1:y2, x1:x2] = 220
    return image


def write(path: Path, image: np.ndarray, place: str = "north_up", **profile: object) -> Path:
    """Write (H, W) or (C, H, W) as a GeoTIFF at one of PLACES; ``profile`` goes to rasterio."""
    bands = image if image.ndim == 3 else image[None]
    crs, transform = PLACES[place]
    settings = {
        "driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2],
        "dtype": bands.dtype, "crs": crs, "transform": transform, **profile,
    }  # fmt: skip
    with rasterio.open(path, "w", **settings) as dataset:
        dataset.write(bands)
    return path


def gcps(height: int, width: int, place: str = "north_up", side: int = 2) -> list[GroundControlPoint]:
    """Return side x side control points in WGS84 that follow one of PLACES."""
    from pyproj import Transformer

    crs, transform = PLACES[place]
    to_lonlat = Transformer.from_crs(crs, WGS84, always_xy=True)
    points = []
    for row in np.linspace(0, height, side):
        for col in np.linspace(0, width, side):
            lon, lat = to_lonlat.transform(*(transform * (col, row)))
            points.append(GroundControlPoint(row=row, col=col, x=lon, y=lat, z=0))
    return points


def write_gcps(path: Path, image: np.ndarray, points: list[GroundControlPoint]) -> Path:
    """Write a raster georeferenced by control points alone, as raw Sentinel-1 GRD is."""
    height, width = image.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=height, width=width, dtype=image.dtype
    ) as dataset:
        dataset.write(image, 1)
        dataset.gcps = (points, WGS84)
    return path


def corners(box: tuple[float, float, float, float], transform: Affine) -> np.ndarray:
    """Return the four map corners of a pixel box by the affine transform, (4, 2)."""
    x1, y1, x2, y2 = box
    return np.array([transform * p for p in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))])


def metres_per_degree(lat: float) -> tuple[float, float]:
    """Return metres per degree of longitude and latitude on the WGS84 ellipsoid (closed formulas)."""
    a, e2 = 6_378_137.0, 0.00669437999014
    w = math.sqrt(1 - e2 * math.sin(math.radians(lat)) ** 2)
    meridian = a * (1 - e2) / w**3
    normal = a / w
    return math.radians(1) * normal * math.cos(math.radians(lat)), math.radians(1) * meridian
