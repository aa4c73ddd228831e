"""Change-vector analysis: how far apart two dates lie in colour, pixel by pixel, and where to cut.

The magnitude of the difference of two co-registered images (Malila, LARS 1980), raw or after each date
has been standardised by its own mean and deviation over the scene. The threshold is Otsu's (IEEE TSMC 9,
1979) or given. Statistics and histogram add up over pieces of a scene, so that it is never needed whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..otsu import BINS as BINS
from ..otsu import histogram as histogram
from ..otsu import otsu as otsu

#: A deviation below one 8-bit level is no contrast to standardise by.
FLAT = 1 / 255
#: Deviations from the mean beyond this many count as this many: a few bright roofs must not be the scale.
FARTHEST = 4.0


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the jointly valid pixels of one date: ``count``, ``total`` and ``squares`` float64 (C,)."""

    count: int
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, valid: np.ndarray) -> Moments:
        """Count a piece: float32 (C, H, W) and bool (H, W)."""
        values = image[:, valid].astype(np.float64)
        return cls(values.shape[1], values.sum(axis=1), np.square(values).sum(axis=1))

    def __add__(self, other: Moments) -> Moments:
        """Return the sums over both pieces."""
        return Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> np.ndarray:
        """Mean of each band, float64 (C,)."""
        return self.total / max(self.count, 1)

    @property
    def deviation(self) -> np.ndarray:
        """Population standard deviation of each band, float64 (C,), at least :data:`FLAT`."""
        variance = self.squares / max(self.count, 1) - self.mean**2
        return np.sqrt(np.maximum(variance, FLAT**2))


def magnitude(
    before: np.ndarray, after: np.ndarray, moments: tuple[Moments, Moments] | None = None
) -> np.ndarray:
    """Return the length of the change vectors over :func:`largest`, float32 (H, W) in 0..1.

    ``before``, ``after``: float32 (C, H, W) in 0..1. ``moments``: of both dates over the whole scene, to
    standardise by; None compares the values as they are.
    """
    if moments is not None:
        before, after = (_standardised(image, m) for image, m in zip((before, after), moments, strict=True))
    difference = after - before
    return np.sqrt(np.square(difference).sum(axis=0)) / np.float32(largest(len(before), moments is not None))


def largest(bands: int, standardised: bool) -> float:
    """Return the longest vector there can be: the scale of :func:`magnitude`."""
    return float(np.sqrt(bands)) * (2 * FARTHEST if standardised else 1.0)


def _standardised(image: np.ndarray, moments: Moments) -> np.ndarray:
    """Return the image with mean 0 and deviation 1 over the scene, float32, cut at :data:`FARTHEST`."""
    mean, deviation = (v.astype(np.float32)[:, None, None] for v in (moments.mean, moments.deviation))
    return np.clip((image - mean) / deviation, -FARTHEST, FARTHEST)
