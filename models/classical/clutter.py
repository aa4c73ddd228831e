"""Sea clutter around every pixel, and the threshold that keeps the false-alarm rate.

Multi-look intensity of a homogeneous sea is gamma distributed with shape L, the equivalent number of
looks, and L = mean^2 / variance (Oliver and Quegan, Understanding SAR Images, 2004, chapter 4).
Texture (swell, wind streaks) raises the variance. So the shape is fitted in each pixel's own window:
on pure speckle it is L, on a rough sea it is less and the threshold rises. No number of looks is
asked from the user.

For N training cells of gamma power with shape v, a sea pixel over their mean is F(2v, 2vN)
distributed; the threshold factor is that law's upper quantile at the false-alarm probability. For
v = 1 it is Finn and Johnson's N (P^(-1/N) - 1) (RCA Review 29, 1968), of which this is the
multi-look form.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, stats

#: Cells so many standard deviations above the local mean of power^(1/4) train nothing: they belong to
#: other ships, or to land without a mask. The fourth root of gamma power is nearly normal. For 1 and
#: 4 looks the limit is 10 and 4.5 times the mean, passed by 3e-5 and 3e-6 of sea cells.
CENSOR_SIGMAS = 3.5
#: Shapes outside are not sea: structures below, rounding to a constant above.
SHAPES = (0.2, 200.0)
_SERIES_FROM = 5e3
#: Grid of the quantile table; interpolation in logarithms is then within 0.4 % from 100 cells on (tested).
_TABLE_SHAPES = np.geomspace(*SHAPES, 160)
_TABLE_CELLS = np.geomspace(4, 1e7, 80)


@dataclass(frozen=True)
class Clutter:
    """Per pixel, float32 (H, W): ``mean`` power, gamma ``shape``, number of training ``cells``."""

    mean: np.ndarray
    shape: np.ndarray
    cells: np.ndarray


def measure(
    power: np.ndarray,
    usable: np.ndarray,
    guard: tuple[int, int],
    background: tuple[int, int],
    quantum: float = 0.0,
) -> Clutter:
    """Return the clutter around every pixel of ``power`` (H, W), float32 >= 0.

    ``usable``: bool (H, W), False on nodata and land. ``guard``, ``background``: half sides (rows,
    columns) of two windows of 2h + 1; training cells lie in the outer one but not in the inner one.
    A pixel's result depends on the pixels within twice the background's half side. ``quantum``: the
    power of one rounding step of integer data, added to mean and deviation so that a sea rounded to
    zero is not a perfectly quiet one.
    """
    # scaling by a power of two is exact: squares cannot overflow, and no result depends on the tile
    exponent = math.frexp(float(power.max(initial=0.0)))[1]
    power = np.ldexp(power, -exponent, dtype=np.float32)
    step = math.ldexp(quantum, -exponent)
    training = usable & ~_outliers(power, usable, background)
    value = np.where(training, power, np.float32(0))
    cells = np.rint(_ring(training.astype(np.float32), guard, background))
    divisor = np.maximum(cells, 1)
    mean = np.maximum(_ring(value, guard, background), 0) / divisor
    variance = np.maximum(_ring(np.square(value), guard, background) / divisor - np.square(mean), 0)
    mean += np.float32(step)
    variance += np.float32(step * step)
    shape = np.square(mean) / np.maximum(variance, np.finfo(np.float32).tiny)
    return Clutter(np.ldexp(mean, exponent), np.clip(shape, *SHAPES), cells)


def threshold_factor(pfa: float, shape: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return threshold / mean (float64, shape of the inputs) for gamma ``shape`` and ``cells``."""
    table = _log_table(pfa)
    row, row_part = _position(shape, _TABLE_SHAPES)
    col, col_part = _position(cells, _TABLE_CELLS)
    low = table[row, col] * (1 - col_part) + table[row, col + 1] * col_part
    high = table[row + 1, col] * (1 - col_part) + table[row + 1, col + 1] * col_part
    return np.exp(low * (1 - row_part) + high * row_part)


@functools.lru_cache(maxsize=8)
def _log_table(pfa: float) -> np.ndarray:
    """Return log quantiles of F(2v, 2vN) over the grid of shapes and cells.

    scipy's F quantile is wrong by powers of ten where vN exceeds some 10 000 (seen in 1.10). From
    ``_SERIES_FROM`` on the gamma quantile t of perfectly known clutter is corrected for the variance
    1/(vN) of the estimated mean: P(X > tY) = E[S(tY)] = S(t) + S''(t) t^2 / (2vN), solved for t to
    first order. The next order is below 2e-4 there.
    """
    shape, cells = np.broadcast_arrays(_TABLE_SHAPES[:, None], _TABLE_CELLS[None])
    known = stats.gamma.isf(pfa, _TABLE_SHAPES)[:, None] / shape
    factor = known * (1 + (shape * known - shape + 1) / (2 * shape * cells))
    few = shape * cells < _SERIES_FROM
    factor[few] = stats.f.isf(pfa, 2 * shape[few], 2 * shape[few] * cells[few])
    return np.log(factor)


def _position(values: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index below each value on a geometric grid and the part of the step beyond it."""
    step = math.log(grid[1] / grid[0])
    at = np.log(np.clip(values, grid[0], grid[-1], dtype=np.float64) / grid[0]) / step
    index = np.minimum(at.astype(np.intp), len(grid) - 2)
    return index, at - index


def _outliers(power: np.ndarray, usable: np.ndarray, half: tuple[int, int]) -> np.ndarray:
    """Return bool (H, W): pixels far above the mean of power^(1/4) in the window around them."""
    root = np.sqrt(np.sqrt(np.where(usable, power, np.float32(0))))
    cells = np.maximum(_box(usable.astype(np.float32), half), np.finfo(np.float32).tiny)
    mean = _box(root, half) / cells
    variance = _box(np.square(root), half) / cells - np.square(mean)
    return root > mean + np.float32(CENSOR_SIGMAS) * np.sqrt(np.maximum(variance, 0))


def _ring(image: np.ndarray, guard: tuple[int, int], background: tuple[int, int]) -> np.ndarray:
    """Return the sum over the hollow window around every pixel; outside the image counts as 0."""
    outer, inner = (np.prod([2 * h + 1 for h in half]) for half in (background, guard))
    return np.float32(outer) * _box(image, background) - np.float32(inner) * _box(image, guard)


def _box(image: np.ndarray, half: tuple[int, int]) -> np.ndarray:
    """Return the mean over the window of 2h + 1 around every pixel; outside counts as 0."""
    size = tuple(2 * h + 1 for h in half)
    return ndimage.uniform_filter(image, size, output=np.float32, mode="constant")
