"""From pixels to the ground: affine, ground control points, RPC, or nothing.

Pixel coordinates are float64 (x, y) counted from the outer corner of the first pixel. A raster
without any georeference is laid out as QGIS shows it: x to the right, y upwards, so its first row
lies between 0 and -1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from affine import Affine
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import CRSError, ProjError
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import GCPTransformer, RPCTransformer

from .errors import EngineError

WGS84 = CRS.from_epsg(4326)
GEOD = Geod(ellps="WGS84")

#: With that many points a thin plate spline follows a whole orbit segment (Sentinel-1 has 210);
#: with fewer a low polynomial extrapolates more safely.
SPLINE_POINTS = 10

QGIS_PIXELS = Affine(1, 0, 0, 0, -1, 0)


@dataclass(frozen=True)
class Georef:
    """How a raster's pixels lie in its CRS.

    ``kind``: ``affine``, ``gcp``, ``rpc`` or ``none``. ``affine`` holds for the first and last.
    ``points``: rasterio's ground control points or RPC. ``crs`` is None without a CRS, ``earth``
    False where coordinates cannot be brought to longitude and latitude.
    """

    kind: str
    affine: Affine
    points: Any
    crs: CRS | None
    earth: bool
    notes: tuple[str, ...] = ()

    @cached_property
    def _transformer(self) -> Any:
        if self.kind == "gcp":
            return GCPTransformer(self.points, tps=len(self.points) >= SPLINE_POINTS)
        # without a terrain model all points are taken at sea level, where ships are
        return RPCTransformer(self.points, rpc_height=0.0)

    @cached_property
    def _to_lonlat(self) -> Transformer | None:
        return Transformer.from_crs(self.crs, WGS84, always_xy=True) if self.earth else None

    @property
    def wkt(self) -> str | None:
        """Return the CRS as WKT, or None."""
        return self.crs.to_wkt() if self.crs is not None else None

    def to_layer(self, pixels: np.ndarray) -> np.ndarray:
        """Return (N, 2) layer coordinates of (N, 2) pixel coordinates."""
        pixels = np.asarray(pixels, float).reshape(-1, 2)
        if self.kind in ("affine", "none"):
            a = self.affine
            matrix = np.array([[a.a, a.d], [a.b, a.e]])
            return pixels @ matrix + [a.c, a.f]
        if not len(pixels):
            return np.empty((0, 2))
        xs, ys = self._transformer.xy(pixels[:, 1], pixels[:, 0], offset="ul")
        return np.column_stack([xs, ys]).astype(float)

    def to_pixel(self, layer: np.ndarray) -> np.ndarray:
        """Return (N, 2) pixel coordinates of (N, 2) layer coordinates."""
        layer = np.asarray(layer, float).reshape(-1, 2)
        if self.kind in ("affine", "none"):
            a = ~self.affine
            matrix = np.array([[a.a, a.d], [a.b, a.e]])
            return layer @ matrix + [a.c, a.f]
        if not len(layer):
            return np.empty((0, 2))
        rows, cols = self._transformer.rowcol(layer[:, 0], layer[:, 1], op=_same)
        return np.column_stack([cols, rows]).astype(float)

    def to_lonlat(self, layer: np.ndarray) -> np.ndarray | None:
        """Return (N, 2) WGS84 longitude and latitude of layer coordinates; None without a CRS."""
        if self._to_lonlat is None:
            return None
        lon, lat = self._to_lonlat.transform(layer[:, 0], layer[:, 1])
        lon = (np.asarray(lon) + 180) % 360 - 180
        return np.column_stack([lon, lat])

    def pixel_m(self, x: float, y: float) -> tuple[float, float] | None:
        """Return (column step, row step) in metres on the ground around a pixel position."""
        cross = np.array([[x - 0.5, y], [x + 0.5, y], [x, y - 0.5], [x, y + 0.5]])
        ends = self.to_lonlat(self.to_layer(cross))
        if ends is None or not np.isfinite(ends).all():
            return None
        _, _, metres = GEOD.inv(ends[::2, 0], ends[::2, 1], ends[1::2, 0], ends[1::2, 1])
        return float(metres[0]), float(metres[1])


def read_georef(dataset: DatasetReader) -> Georef:
    """Read how an open raster is georeferenced; an affine transform wins over points."""
    name = dataset.name.replace("\\", "/").rsplit("/", 1)[-1]
    affine = dataset.transform
    gcps, gcp_crs = dataset.gcps
    if affine.is_identity and gcps and gcp_crs:
        georef = _georef("gcp", affine, _unwrapped(gcps, gcp_crs), gcp_crs.to_wkt(), name)
        _prove_points(georef, name)
        return georef
    if affine.is_identity and dataset.rpcs and not dataset.crs:
        note = f"{name} is georeferenced by RPC only; positions are computed for sea level."
        return _georef("rpc", affine, dataset.rpcs, WGS84.to_wkt(), name, note)
    wkt = dataset.crs.to_wkt() if dataset.crs else ""
    if affine.is_identity and not wkt:
        return _georef("none", QGIS_PIXELS, None, "", name)
    if affine.determinant == 0:
        raise EngineError(
            "input",
            f"{name} has a transform without area, so pixels have no place.",
            "Georeference it again.",
        )
    return _georef("affine", affine, None, wkt, name)


def _prove_points(georef: Georef, name: str) -> None:
    """Refuse control points that fix no place: one alone, all on one line or on one spot."""
    try:
        place = georef.to_layer(np.array([[0.0, 0.0]]))
    except (CPLE_BaseError, RasterioError, ValueError) as error:
        place, reason = None, str(error).rstrip(".")
    else:
        reason = "they lead nowhere"
    if place is None or not np.isfinite(place).all():
        raise EngineError(
            "input",
            f"The {len(georef.points)} ground control points of {name} do not place its pixels: {reason}.",
            "Georeference it again, with at least three points that are not on one line.",
        )


def _georef(kind: str, affine: Affine, points: Any, wkt: str, name: str, *notes: str) -> Georef:
    crs = _crs(wkt, name) if wkt else None
    earth = crs is not None and _on_earth(crs)
    if crs is None:
        notes = (
            *notes,
            f"{name}: Layer has no CRS; outputs cannot be georeferenced, metric fields stay empty.",
        )
    elif not earth:
        notes = (*notes, f"{name} has a local CRS ({crs.name}); metric fields and lon/lat stay empty.")
    return Georef(kind, affine, points, crs, earth, notes)


def _crs(wkt: str, name: str) -> CRS:
    try:
        return CRS.from_wkt(wkt)
    except CRSError as error:
        raise EngineError(
            "input", f"The CRS of {name} cannot be understood: {error}.", "Assign a CRS to the layer's file."
        ) from None


def _on_earth(crs: CRS) -> bool:
    try:
        Transformer.from_crs(crs, WGS84, always_xy=True)
    except ProjError:
        return False
    return True


def _unwrapped(gcps: list[Any], crs: Any) -> list[Any]:
    """Make longitudes of points on both sides of the antimeridian one continuous range."""
    lons = [point.x for point in gcps]
    if crs.is_geographic and max(lons) - min(lons) > 180:
        for point in gcps:
            if point.x < 0:
                point.x += 360
    return gcps


def _same(value: Any) -> Any:
    return value
