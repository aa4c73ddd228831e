"""Guided filter over valid pixels only (He, Sun and Tang, IEEE TPAMI 35, 2013).

In every window the filtered values are a straight line of the guide, so edges of the guide stay
edges and the rest becomes smooth. Windows count their valid pixels alone: neither nodata nor what
lies outside the array has a part, so a pixel's result depends on the valid pixels within twice the
radius and on nothing else, whatever tile it is computed in.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def guided_filter(
    guide: np.ndarray, values: np.ndarray, valid: np.ndarray, radius: int, eps: float
) -> np.ndarray:
    """Return ``values`` (H, W) smoothed along ``guide`` (H, W): float64 (H, W), finite on valid pixels.

    ``valid``: bool (H, W); guide and values must be finite there, elsewhere they are not looked at.
    ``radius``: half side of the square windows, pixels. ``eps``: variance of the guide, in its units
    squared, under which a window counts as flat. The result is a linear function of ``values`` and
    keeps constants.
    """
    box = _Boxes(valid, radius)
    guide, values = box.masked(guide), box.masked(values)
    mean_guide, mean_values = box.mean(guide), box.mean(values)
    # float64 throughout: a small difference of large means, and the running sums of two tiles must agree
    slope = box.mean(guide * values)
    slope -= mean_guide * mean_values
    variance = box.mean(guide * guide)
    variance -= mean_guide * mean_guide
    np.maximum(variance, 0.0, out=variance)
    variance += eps
    slope /= variance
    mean_guide *= slope
    mean_values -= mean_guide
    result = box.mean(box.masked(slope))
    result *= guide
    result += box.mean(box.masked(mean_values))
    return result


class _Boxes:
    """Means over square windows, of valid pixels only."""

    def __init__(self, valid: np.ndarray, radius: int) -> None:
        self._size = 2 * radius + 1
        self._hidden = None if valid.all() else ~valid
        if self._hidden is None:
            rows, cols = (self._inside(n, radius) for n in valid.shape)
            count = rows[:, None] * cols
        else:
            # rounded: running sums leave 1e-17 where there is nothing
            count = np.rint(self._filtered(valid.astype(np.float64)) * self._size**2)
        self._weight = self._size**2 / np.maximum(count, 1.0)

    @staticmethod
    def _inside(length: int, radius: int) -> np.ndarray:
        """Return how many cells of each window along an axis lie inside it: float64 (length,)."""
        at = np.arange(length)
        return (np.minimum(at + radius + 1, length) - np.maximum(at - radius, 0)).astype(np.float64)

    def _filtered(self, array: np.ndarray) -> np.ndarray:
        """Return the sum over each window, divided by the cells of a whole one."""
        return ndimage.uniform_filter(array, self._size, mode="constant", cval=0.0)

    def masked(self, array: np.ndarray) -> np.ndarray:
        """Return ``array`` as float64 with zeros where it is not valid."""
        array = np.asarray(array, np.float64)
        return array if self._hidden is None else np.where(self._hidden, 0.0, array)

    def mean(self, masked: np.ndarray) -> np.ndarray:
        """Return the mean around every pixel; 0 where a window holds no valid pixel."""
        mean = self._filtered(masked)
        mean *= self._weight
        return mean
