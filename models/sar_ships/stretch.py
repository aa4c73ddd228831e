"""Scene values to 8 bit for packed chips, with the meaning of the engine's scale modes.

``uint8``: digital numbers as they are. ``percentile``: linear between two percentiles of the whole scene,
never of a chip. ``db``: decibels, linear between a minimum and a maximum. A packed chip / 255 equals what
the engine hands to the network, within half a grey level.
"""

from __future__ import annotations

import numpy as np

PERCENTILES = (1.0, 99.5)
DECIBELS = (-25.0, 5.0)


def decibels(amplitude: np.ndarray) -> np.ndarray:
    """Amplitude (square root of sigma0) to decibels, 20 log10, float32."""
    return (20 * np.log10(np.maximum(amplitude, 1e-5))).astype(np.float32)


def percentile_limits(
    values: np.ndarray, percentiles: tuple[float, float] = PERCENTILES
) -> tuple[float, float]:
    """Low and high value of a whole scene for the ``percentile`` mode."""
    low, high = np.percentile(values, percentiles)
    return float(low), float(high)


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """(values - low) / (high - low), clipped to 0..1, float32; raises ValueError unless high > low."""
    if not high > low:
        raise ValueError(f"The upper limit {high} must lie above the lower limit {low}")
    return np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1).astype(np.float32)


def to_uint8(unit: np.ndarray) -> np.ndarray:
    """0..1 to the nearest of 0..255."""
    return np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)


def stretch_db(amplitude: np.ndarray, limits: tuple[float, float] = DECIBELS) -> np.ndarray:
    """Calibrated amplitude to 8 bit by the ``db`` mode."""
    return to_uint8(stretch(decibels(amplitude), *limits))


def stretch_percentile(values: np.ndarray, percentiles: tuple[float, float] = PERCENTILES) -> np.ndarray:
    """A whole scene to 8 bit by the ``percentile`` mode."""
    return to_uint8(stretch(values, *percentile_limits(values, percentiles)))


def quantise(amplitude: np.ndarray, sea_median: float, grey: float) -> np.ndarray:
    """Amplitude to 8-bit digital numbers with the sea's median at ``grey``, as 8-bit products have it."""
    return np.rint(np.clip(amplitude * (grey / sea_median), 0, 255)).astype(np.uint8)
