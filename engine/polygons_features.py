"""From outlines in pixels to the features that a user gets: size, shape, place, columns.

Everything here acts on whole objects, after the seams are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import shapely

from .features import Features
from .georef import Georef
from .grid import Grid
from .polygons import Outlines
from .polygons_ground import BETWEEN_LOOKS, Frames, frames, measure, tiles_of, to_layer
from .polygons_regular import regularise

#: Name -> dtype, in the issue's order; NaN and None become null.
POLYGON_FIELDS = {
    "id": np.int32,
    "class": object,
    "area_m2": np.float64,
    "perim_m": np.float64,
    "p_mean": np.float64,
    "p_max": np.float64,
    "date1": object,
    "date2": object,
    "tile": np.int32,
    "model": object,
}


@dataclass(frozen=True)
class ShapeRules:
    """What becomes of outlines; lengths and areas in metres (the layer's units without a place).

    ``min_area_m2``: smaller objects are left out, by their pixels and the holes that are filled, so
    that the next two do not change which objects there are. ``max_hole_m2``: holes up to that size
    are filled. ``simplify_m``: tolerance, 0 = none. ``regularise``: right angles where they fit.
    """

    min_area_m2: float = 0.0
    max_hole_m2: float = 0.0
    simplify_m: float = 0.0
    regularise: bool = False


@dataclass(frozen=True)
class Labels:
    """What every feature of a run carries: its class, the two dates (None = unknown), the model."""

    name: str
    date1: str | None
    date2: str | None
    model: str


def polygon_features(
    outlines: Outlines,
    georef: Georef,
    grid: Grid,
    rules: ShapeRules,
    labels: Labels,
    look: Callable[[], None] = lambda: None,
    steps: tuple[float, float] = (1.0, 1.0),
) -> Features:
    """Return the features of all outlines of a scene, ids from 1 in their order.

    ``grid``: of the tiles, whose pixels are ``steps`` (x, y) pixels of the outlines wide and high.
    ``look`` is called now and then and may raise to stop.
    """
    points = _inner_points(outlines.polygons)
    local = frames(points, georef)
    polygons = fill_holes(outlines.polygons, rules.max_hole_m2 / local.pixel_area)
    area, length = measure(polygons, georef, look)
    size = area if georef.earth else shapely.area(polygons) * local.pixel_area
    keep = np.flatnonzero(size >= rules.min_area_m2) if rules.min_area_m2 > 0 else np.arange(len(polygons))
    outlines, polygons, local = outlines.take(keep), polygons[keep], local.take(keep)
    area, length = area[keep], length[keep]
    if rules.simplify_m > 0 or rules.regularise:
        polygons = reshape(polygons, local, rules, look)
        area, length = measure(polygons, georef, look)
    count = len(polygons)
    columns = {
        "id": np.arange(1, count + 1),
        "class": _same(labels.name, count),
        "area_m2": area,
        "perim_m": length,
        "p_mean": outlines.p_mean,
        "p_max": outlines.p_max,
        "date1": _same(labels.date1, count),
        "date2": _same(labels.date2, count),
        "tile": tiles_of(_inner_points(polygons) / np.array(steps), grid),
        "model": _same(labels.model, count),
    }
    placed = to_layer(polygons, georef)
    return Features(placed, {name: columns[name].astype(kind) for name, kind in POLYGON_FIELDS.items()})


def fill_holes(polygons: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Return polygons without holes of up to ``largest`` (N,) square pixels."""
    filled = polygons.copy()
    for i in np.flatnonzero(shapely.get_num_interior_rings(polygons) * (largest > 0)):
        rings = shapely.get_rings(polygons[i])
        keep = shapely.area(shapely.polygons(rings[1:])) > largest[i]
        filled[i] = shapely.Polygon(rings[0], list(rings[1:][keep]))
    return filled


def reshape(
    polygons: np.ndarray, local: Frames, rules: ShapeRules, look: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Return polygons in pixels, each regularised where it can be, else simplified; all valid.

    Each is simplified for itself and keeps its topology; two that meet at a corner may then share
    ground, at most the tolerance wide.
    """
    metres = local.to_metres(polygons)
    result = shapely.simplify(metres, rules.simplify_m) if rules.simplify_m > 0 else metres.copy()
    # a polygon smaller than the tolerance keeps its pixels
    lost = shapely.is_empty(result) | (shapely.get_type_id(result) != shapely.GeometryType.POLYGON)
    result[lost] = metres[lost]
    if rules.regularise:
        for low in range(0, len(polygons), BETWEEN_LOOKS):
            look()
            part = slice(low, low + BETWEEN_LOOKS)
            regular = regularise(polygons[part], local.take(part))
            found = ~shapely.is_missing(regular)
            result[part][found] = regular[found]
    return local.to_pixels(result)


def _inner_points(polygons: np.ndarray) -> np.ndarray:
    """Return a point inside each polygon, (N, 2)."""
    if not len(polygons):
        return np.empty((0, 2))
    return shapely.get_coordinates(shapely.point_on_surface(polygons))


def _same(value: str | None, count: int) -> np.ndarray:
    return np.full(count, value, object)
