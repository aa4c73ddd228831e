"""Polygons given in pixels, on the ground: place, metric frame, geodesic area and length, tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import shapely

from .georef import GEOD, Georef
from .grid import Grid

#: Sides are followed on the ground in pieces of at most so many pixels: a side along a parallel is no
#: geodesic, and what lies between the two grows with the third power of its length.
PIECE_PX = 64.0
#: Polygons between two looks at a cancel; 1,000 simple ones take about 30 ms.
BETWEEN_LOOKS = 1000
#: A lattice of so many points a side finds the largest pixel of a scene well enough ...
LATTICE = 9
#: ... with that much to spare: between neighbours of the lattice pixels grow by far less.
SPARE = 1.1


@dataclass(frozen=True, eq=False)
class Frames:
    """A flat metric frame for each of N polygons: metres east and north of ``origin``.

    ``origin``: (N, 2) in pixels. ``matrix``: (N, 2, 2), metres per pixel; rows are east and north.
    Without a place on Earth the layer's own units stand for metres.
    """

    origin: np.ndarray
    matrix: np.ndarray

    @property
    def pixel_area(self) -> np.ndarray:
        """Return the area of a pixel, (N,)."""
        return np.abs(np.linalg.det(self.matrix))

    @property
    def pixel_side(self) -> np.ndarray:
        """Return the longer side of a pixel, (N,)."""
        return np.sqrt((self.matrix**2).sum(axis=1).max(axis=1))

    def to_metres(self, polygons: np.ndarray) -> np.ndarray:
        """Return the polygons with their coordinates in metres."""
        points, of = shapely.get_coordinates(polygons, return_index=True)
        points = np.einsum("nij,nj->ni", self.matrix[of], points - self.origin[of])
        return shapely.set_coordinates(polygons.copy(), points)

    def to_pixels(self, polygons: np.ndarray) -> np.ndarray:
        """Return polygons in metres with their coordinates in pixels."""
        points, of = shapely.get_coordinates(polygons, return_index=True)
        back = np.linalg.inv(self.matrix)
        points = np.einsum("nij,nj->ni", back[of], points) + self.origin[of]
        return shapely.set_coordinates(polygons.copy(), points)

    def take(self, index: np.ndarray | slice) -> Frames:
        """Return the frames at ``index`` (integers, booleans or a slice)."""
        return Frames(self.origin[index], self.matrix[index])


def frames(points: np.ndarray, georef: Georef) -> Frames:
    """Return the frames at (N, 2) pixel positions.

    Steps of half a pixel to the four sides are measured on the ellipsoid, so that a degree of
    longitude is as long as it is there and a right angle is one on the ground.
    """
    points = np.asarray(points, float).reshape(-1, 2)
    steps = np.array([[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]])
    cross = georef.to_layer((points[:, None] + steps).reshape(-1, 2))
    ends = cross.reshape(-1, 2, 2, 2)
    step = ends[:, :, 1] - ends[:, :, 0]
    lonlat = georef.to_lonlat(cross)
    if lonlat is not None:
        ends = lonlat.reshape(-1, 2, 2, 2)
        known = np.isfinite(ends).all(axis=(1, 2, 3))
        start, end = (ends[known, :, side].reshape(-1, 2) for side in (0, 1))
        azimuth, _, metres = GEOD.inv(start[:, 0], start[:, 1], end[:, 0], end[:, 1])
        turn = np.radians(azimuth)
        step[known] = np.stack([metres * np.sin(turn), metres * np.cos(turn)], axis=1).reshape(-1, 2, 2)
    return Frames(points, np.swapaxes(step, 1, 2))


def min_pixels(area_m2: float, georef: Georef, height: int, width: int) -> float:
    """Return how many pixels an object of that area has at least, anywhere in the scene."""
    y, x = np.meshgrid(np.linspace(0, height, LATTICE), np.linspace(0, width, LATTICE))
    largest = frames(np.column_stack([x.ravel(), y.ravel()]), georef).pixel_area.max()
    return float(area_m2 / (largest * SPARE)) if np.isfinite(largest) and largest > 0 else 0.0


def to_layer(polygons: np.ndarray, georef: Georef) -> np.ndarray:
    """Return polygons in the layer's CRS, by the whole affine or the control points."""
    return shapely.transform(polygons, georef.to_layer)


def measure(
    polygons: np.ndarray, georef: Georef, look: Callable[[], None] = lambda: None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (area in m2, length of all rings in m) on the ellipsoid; NaN without a place on Earth.

    ``polygons``: in pixels. ``look`` is called now and then and may raise to stop.
    """
    area, length = np.full(len(polygons), np.nan), np.full(len(polygons), np.nan)
    if not georef.earth:
        return area, length
    for low in range(0, len(polygons), BETWEEN_LOOKS):
        look()
        part = slice(low, low + BETWEEN_LOOKS)
        area[part], length[part] = _measure(polygons[part], georef)
    return area, length


def _measure(polygons: np.ndarray, georef: Georef) -> tuple[np.ndarray, np.ndarray]:
    rings, owner = shapely.get_rings(polygons, return_index=True)
    points, ring = shapely.get_coordinates(shapely.segmentize(rings, PIECE_PX), return_index=True)
    lonlat = georef.to_lonlat(georef.to_layer(points))
    assert lonlat is not None  # only asked where georef.earth
    cuts = np.searchsorted(ring, np.arange(1, len(rings)))
    # the last point repeats the first; geodesic polygons close by themselves
    both = [GEOD.polygon_area_perimeter(*points[:-1].T) for points in np.split(lonlat, cuts)]
    areas, lengths = np.abs(np.array(both, float).reshape(-1, 2)).T
    # a polygon's first ring is the outer one
    outer = np.diff(owner, prepend=-1) > 0
    count = len(polygons)
    area = np.bincount(owner, np.where(outer, areas, -areas), minlength=count)
    return area, np.bincount(owner, lengths, minlength=count)


def tiles_of(points: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the number of the tile whose middle is nearest, (N,), of (N, 2) pixel positions.

    Of all tiles that see the point this one sees most around it; of two alike the first.
    """
    row = _nearest(points[:, 1], np.array(grid.ys), grid.tile[0], grid.height)
    col = _nearest(points[:, 0], np.array(grid.xs), grid.tile[1], grid.width)
    return row * len(grid.xs) + col


def _nearest(place: np.ndarray, starts: np.ndarray, tile: int, size: int) -> np.ndarray:
    middles = starts + min(tile, size) / 2
    return np.searchsorted((middles[1:] + middles[:-1]) / 2, place, side="left")
