"""A raster's pixels on another grid, each the same whatever window is asked for.

GDAL's warper is not asked: it takes its kernel's width from the window (between two UTM zones, whose
grids stand askew, it blurs what needs no blurring unless XSCALE is given), knows one nodata value for all
bands and none beside NaN, and ``rasterio.warp.reproject`` approximates positions window by window. Tests
hold this to what a ``WarpedVRT`` gives with XSCALE 1 and without tolerance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from scipy import ndimage

from .errors import EngineError
from .georef import Georef
from .statistics import Rect

#: Grid pixels between two exactly transformed ones, anchored to the grid. Between UTM zones, and from
#: degrees, the line through two of them misses by h^2 / (8 R) = 5e-4 m at pixels of 10 m.
STEP = 16
#: Positions are rounded to 1/4096 pixel: then weights are exact, and the tie between two integers at
#: half a pixel does not depend on the window's origin.
FRACTION = 4096.0

#: (row, column, height, width) -> (values, valid), both (C, height, width).
Read = Callable[[int, int, int, int], tuple[np.ndarray, np.ndarray]]


def resample(
    read: Read,
    source: Georef,
    size: tuple[int, int],
    grid: Georef,
    start: tuple[float, float],
    shape: tuple[int, int],
    samples: tuple[int, int] = (1, 1),
    values: bool = True,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (float64, valid bool), both (C, h, w), of grid pixels; None where none lies on the source.

    ``size``: the source's rows and columns. ``start``: row and column of the first grid pixel, possibly
    fractions; ``shape``: (h, w). ``samples``: along rows and columns, averaged, for a finer source.
    A pixel has data where its centre lies in a source pixel with data; its value is bilinear over those
    neighbours that have data, and 0 elsewhere. ``values`` False: only ``valid`` is worked out.
    """
    centre = positions(source, size, grid, start, shape)
    around = [centre]
    if values and samples != (1, 1):
        down, right = ((np.arange(n) + 0.5) / n - 0.5 for n in samples)
        around = [
            positions(source, size, grid, (start[0] + y, start[1] + x), shape) for y in down for x in right
        ]
    window = _window([centre, *around], size)
    if window is None:
        return None
    raw, valid = read(*window)
    corner = np.array(window[:2], float)[:, None, None]
    limits = np.array(size)[:, None, None]
    inside = ((centre >= 0) & (centre < limits)).all(axis=0)
    if valid.all():
        there = np.broadcast_to(inside, (len(valid), *shape))
    else:
        at = np.floor(np.where(inside, centre - corner, 0)).astype(np.intp)
        there = valid[:, at[0], at[1]] & inside
    found = np.zeros(there.shape)
    if values and there.any():
        for each in around:
            found += _bilinear(raw, valid, np.nan_to_num(each - corner))
        found /= len(around)
        found[~there] = 0
    return found, there


def positions(
    source: Georef, size: tuple[int, int], grid: Georef, start: tuple[float, float], shape: tuple[int, int]
) -> np.ndarray:
    """Return (2, h, w): row and column of the source at centres of grid pixels.

    Counted from the edges of its first pixel; NaN or infinite where a place has none. Arguments as for
    :func:`resample`.
    """
    first = [int(np.floor(begin)) for begin in start]
    # what is left of a whole pixel moves the grid, not its knots
    more = (start[0] - first[0], start[1] - first[1])
    rows, cols = (begin + np.arange(count) for begin, count in zip(first, shape, strict=True))
    knots = [np.arange(n[0] // STEP, n[-1] // STEP + 2) * STEP for n in (rows, cols)]
    found = _exact(source, size, grid, knots[0], knots[1], more)
    found = _between(_between(found, rows, 1), cols, 2)
    found *= FRACTION
    with np.errstate(invalid="ignore"):
        np.round(found, out=found)
    found /= FRACTION
    return found


def scale_of(
    source: Georef, size: tuple[int, int], grid: Georef, middle: tuple[float, float]
) -> tuple[float, float]:
    """Return how many source pixels a grid pixel is high and wide, around a place of the grid."""
    # a pixel itself is rounded to 1/4096: over 64 the scale is not
    found = positions(source, size, grid, middle, (65, 65))
    steps = np.stack([found[:, 64, 0] - found[:, 0, 0], found[:, 0, 64] - found[:, 0, 0]]) / 64
    if not np.isfinite(steps).all():
        return 1.0, 1.0
    high, wide = np.hypot(*steps)
    return float(high), float(wide)


def _same(one: Georef, other: Georef) -> bool:
    if one.crs is None or other.crs is None:
        return True
    return bool(one.crs.equals(other.crs, ignore_axis_order=True))


def _exact(
    source: Georef,
    size: tuple[int, int],
    grid: Georef,
    rows: np.ndarray,
    cols: np.ndarray,
    more: tuple[float, float],
) -> np.ndarray:
    """Return (2, rows, cols): where pixels of the grid lie in the source."""
    y, x = np.meshgrid(rows + (more[0] + 0.5), cols + (more[1] + 0.5), indexing="ij")
    layer = grid.to_layer(np.column_stack([x.ravel(), y.ravel()]))
    if not _same(source, grid):
        move = _transformer(str(grid.wkt), str(source.wkt))
        layer = np.column_stack(move.transform(layer[:, 0], layer[:, 1]))
    if source.crs is not None and source.crs.is_geographic:
        # 181 and -179 degrees are one place: the turn that lies nearest to the source is meant
        middle = source.to_layer(np.array([[size[1] / 2, size[0] / 2]]))[0, 0]
        with np.errstate(invalid="ignore"):
            layer[:, 0] -= 360 * np.round((layer[:, 0] - middle) / 360)
    return source.to_pixel(layer)[:, ::-1].T.reshape(2, len(rows), len(cols))


@functools.lru_cache(8)
def _transformer(source: str, target: str) -> Transformer:
    try:
        return Transformer.from_crs(CRS.from_wkt(source), CRS.from_wkt(target), always_xy=True)
    except ProjError as error:
        raise EngineError(
            "input", f"No way leads from one layer's CRS to the other's: {error}.", "Reproject one first."
        ) from None


def _between(knots: np.ndarray, numbers: np.ndarray, axis: int) -> np.ndarray:
    """Return what lies at ``numbers`` along an axis whose knots are STEP apart, linearly."""
    place = numbers // STEP - numbers[0] // STEP
    part = np.expand_dims((numbers % STEP) / STEP, tuple(i for i in range(3) if i != axis))
    low, high = (knots.take(place + i, axis=axis) for i in (0, 1))
    with np.errstate(invalid="ignore"):
        return np.asarray(low + (high - low) * part)


def _window(places: list[np.ndarray], size: tuple[int, int]) -> Rect | None:
    """Return the source pixels that bilinear values at these places need, cut to the source."""
    ends: list[tuple[int, int]] = []
    for axis, limit in enumerate(size):
        found = np.stack([place[axis] for place in places])
        found = found[np.isfinite(found)]
        if not found.size:
            return None
        low, high = max(0.0, found.min() - 1), min(float(limit), found.max() + 1)
        if low >= high:
            return None
        ends.append((int(np.floor(low)), int(np.ceil(high))))
    (top, bottom), (left, right) = ends
    return top, left, bottom - top, right - left


def _bilinear(values: np.ndarray, valid: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return float64 (C, h, w): at places counted from the window's edges, over valid neighbours alone."""
    where = place - 0.5  # scipy counts from the first pixel's centre
    found = np.empty((len(values), *place.shape[1:]))
    before, weight = None, None
    for value, band, known in zip(found, values, valid, strict=True):
        if before is None or not np.array_equal(known, before):  # bands mostly share what they lack
            before, weight = known, None
            if not known.all():
                weight = ndimage.map_coordinates(known.astype(np.float64), where, order=1, mode="nearest")
        there = band if weight is None else np.where(known, band, band.dtype.type(0))
        ndimage.map_coordinates(there.astype(np.float64), where, value, order=1, mode="nearest")
        if weight is not None:
            np.divide(value, weight, out=value, where=weight > 0)
    return found
