"""One stretch for each band of a scene, fixed before the first tile.

A stretch of its own for every band takes most of a haze's colour away with it, so a restoration that
measures the haze says in its Scale which one it wants; here the numbers are only looked up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..models.task import Scale
from .errors import EngineError
from .scaling import Scaling, resolve
from .statistics import Statistics

#: Source of the placeholder 0..1 that stands where no pixel can ever be scaled.
NO_PIXEL = "no valid pixel"
#: Share of a band's valid pixels outside typed limits that is worth a warning; the automatic stretch
#: itself leaves 4 % outside.
MANY = 0.05


def resolve_stretch(
    scale: Scale, statistics: Sequence[Statistics | None], bands: Sequence[int] | None = None
) -> tuple[Scaling, ...]:
    """Fix one Scaling for each band.

    ``statistics``: of each band, or None where it has no valid pixel (:func:`.statistics.band_statistics`);
    ``bands``: their numbers in the file, for messages (default: counted from 1). Automatic is 0..255
    for 8-bit data, else the scale's percentiles, or the extremes where those are equal.

    Raises EngineError where a given low is not below its high, or numbers and bands do not match.
    """
    numbers = range(1, len(statistics) + 1) if bands is None else bands
    return tuple(
        _given(scale, i, len(statistics), band)
        if scale.mode == "given"
        else Scaling("percentile", 0.0, 1.0, scale.to, NO_PIXEL)
        if found is None
        else resolve(scale, found)
        for i, (found, band) in enumerate(zip(statistics, numbers, strict=True))
    )


def _given(scale: Scale, index: int, count: int, band: int) -> Scaling:
    ends = []
    for name, numbers in (("STRETCH_MIN", scale.lows), ("STRETCH_MAX", scale.highs)):
        if len(numbers) not in (1, count):
            raise EngineError(
                "parameter",
                f"{name} has {len(numbers)} numbers for {count} bands.",
                "Give one number for all bands, one for each, or leave it empty.",
            )
        ends.append(numbers[index if len(numbers) > 1 else 0])
    low, high = ends
    if not low < high:
        raise EngineError(
            "parameter",
            f"STRETCH_MIN {low:g} must be below STRETCH_MAX {high:g} of band {band}.",
            "Leave both empty for the automatic stretch.",
        )
    return Scaling("given", low, high, scale.to, "parameters")


def outside_warning(
    scalings: Sequence[Scaling],
    statistics: Sequence[Statistics | None],
    bands: Sequence[int] | None = None,
) -> str | None:
    """Return a warning where many valid pixels lie outside a given stretch, or None."""
    numbers = range(1, len(statistics) + 1) if bands is None else bands
    parts = []
    for scaling, found, band in zip(scalings, statistics, numbers, strict=True):
        share = outside(scaling, found) if scaling.mode == "given" and found is not None else 0.0
        if share > MANY:
            parts.append(f"{share:.0%} of band {band} ({scaling.low:g} to {scaling.high:g})")
    if not parts:
        return None
    return (
        f"Many valid pixels lie outside STRETCH_MIN to STRETCH_MAX: {', '.join(parts)}; "
        "they are treated as if they had the nearer limit's value."
    )


def outside(scaling: Scaling, statistics: Statistics) -> float:
    """Return the share, 0..1, of a band's samples below ``low`` or above ``high``."""
    assert scaling.low is not None
    assert scaling.high is not None
    samples = statistics.samples
    below = np.searchsorted(samples, scaling.low, "left")
    above = len(samples) - np.searchsorted(samples, scaling.high, "right")
    return float(below + above) / len(samples)
