"""What a box measures on the ground: geodesic lengths, area, place (WGS84 ellipsoid)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from .georef import GEOD, Georef

#: Corners in ring order as fractions of width and height.
CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
#: Middles of the left, right, top and bottom side.
MIDDLES = np.array([[0, 0.5], [1, 0.5], [0.5, 0], [0.5, 1]], float)


@dataclass(frozen=True, eq=False)
class Attributes:
    """Columns of N boxes; the metric ones are NaN where the raster has no place on Earth.

    ``rings``: (N, 4, 2) corners in the layer's CRS. ``long_m``, ``short_m``: the box's sides, from
    the middle of one side to that of the other. ``area_m2``: of the geodesic polygon. ``lonlat``:
    (N, 2) centre in WGS84.
    """

    rings: np.ndarray
    long_m: np.ndarray
    short_m: np.ndarray
    area_m2: np.ndarray
    lonlat: np.ndarray

    def take(self, index: np.ndarray) -> Attributes:
        """Return the rows at ``index`` (integers or booleans)."""
        return Attributes(*(getattr(self, field.name)[index] for field in fields(self)))


def measure(xyxy: np.ndarray, georef: Georef) -> Attributes:
    """Place boxes, (N, 4) in scene pixels, by the raster's own georeference."""
    rings = _place(xyxy, CORNERS, georef)
    count = len(xyxy)
    if not georef.earth or not count:
        nothing = np.full(count, np.nan)
        return Attributes(rings, nothing, nothing, nothing, np.full((count, 2), np.nan))
    middles = _lonlat(_place(xyxy, MIDDLES, georef), georef)
    across = _distance(middles[:, 0], middles[:, 1])
    down = _distance(middles[:, 2], middles[:, 3])
    centre = _lonlat(_place(xyxy, np.array([[0.5, 0.5]]), georef), georef)[:, 0]
    areas = [abs(GEOD.polygon_area_perimeter(*ring.T)[0]) for ring in _lonlat(rings, georef)]
    return Attributes(rings, np.maximum(across, down), np.minimum(across, down), np.array(areas), centre)


def _place(xyxy: np.ndarray, fractions: np.ndarray, georef: Georef) -> np.ndarray:
    """Return (N, K, 2) layer coordinates of points given as fractions of each box."""
    low, size = xyxy[:, None, :2], (xyxy[:, 2:] - xyxy[:, :2])[:, None]
    pixels = low + size * fractions
    return georef.to_layer(pixels.reshape(-1, 2)).reshape(pixels.shape)


def _lonlat(places: np.ndarray, georef: Georef) -> np.ndarray:
    lonlat = georef.to_lonlat(places.reshape(-1, 2))
    assert lonlat is not None  # only asked where georef.earth
    return lonlat.reshape(places.shape)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(GEOD.inv(a[:, 0], a[:, 1], b[:, 0], b[:, 1])[2])
