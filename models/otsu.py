"""Where to cut values of 0..1 into two classes: Otsu's threshold (IEEE TSMC 9, 1979) of a histogram.

The histogram adds up over pieces of a scene, so that the scene is never needed whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Bins of the histogram: the threshold is a bin edge, a multiple of 1/1024.
BINS = 1024


def histogram(values: np.ndarray) -> np.ndarray:
    """Return the counts of values 0..1 in :data:`BINS` equal bins, int64; counts of pieces add up."""
    index = np.clip(values.astype(np.float64) * BINS, 0, BINS - 1).astype(np.int64)
    return np.bincount(index.ravel(), minlength=BINS)


def otsu(counts: Sequence[int] | np.ndarray) -> float:
    """Return the threshold 0..1 that parts a histogram into the two classes farthest apart.

    From it on is change. It is the edge of a bin, the middle one of several equally good, and 1 where all
    values share one bin or there are none: nothing stands out.
    """
    weight = np.asarray(counts, np.float64)
    bins = len(weight)
    if np.count_nonzero(weight) < 2:
        return 1.0
    centre = (np.arange(bins) + 0.5) / bins
    low = weight.cumsum()[:-1]
    high = weight.sum() - low
    sums = (weight * centre).cumsum()
    both = (low > 0) & (high > 0)
    gap = np.zeros(bins - 1)
    gap[both] = sums[:-1][both] / low[both] - (sums[-1] - sums[:-1][both]) / high[both]
    between = low * high * gap**2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float((best[len(best) // 2] + 1) / bins)
