"""One stretch for each band of a scene, fixed before the first tile.

A low percentile for black takes an even haze away with it, and a stretch of its own for every band the
haze's colour: a restoration that measures the haze asks for ``black="zero"`` in its Scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..models.task import Scale
from .errors import EngineError
from .scaling import Scaling, resolve
from .statistics import Statistics

#: QGIS's cumulative count cut for new layers of more than 8 bits.
SHOWN = (2.0, 98.0)
#: Source of the placeholder 0..1 that stands where no pixel can ever be scaled.
NO_PIXEL = "no valid pixel"
#: Share of a band's valid pixels outside typed limits that is worth a warning; the automatic stretch
#: itself leaves 4 % outside.
MANY = 0.05


def resolve_stretch(
    scale: Scale, statistics: Sequence[Statistics | None], bands: Sequence[int | str] | None = None
) -> tuple[Scaling, ...]:
    """Fix one Scaling for each band.

    ``statistics``: of each band, or None where it has no valid pixel (:func:`.statistics.band_statistics`);
    ``bands``: their numbers or labels, for messages (default: counted from 1). Automatic is 0..255
    for 8-bit data, else the scale's percentiles, or the extremes where those are equal.

    Raises EngineError where a given low is not below its high, or numbers and bands do not match.
    """
    numbers = range(1, len(statistics) + 1) if bands is None else bands
    known = [found for found in statistics if found is not None]
    if scale.mode == "auto" and scale.black == "zero" and known and known[0].dtype != np.uint8:
        return (_light(scale, known),) * len(statistics)
    return tuple(
        _given(scale, i, len(statistics), band)
        if scale.mode == "given"
        else Scaling("percentile", 0.0, 1.0, scale.to, NO_PIXEL)
        if found is None
        else resolve(scale, found)
        for i, (found, band) in enumerate(zip(statistics, numbers, strict=True))
    )


def _light(scale: Scale, statistics: Sequence[Statistics]) -> Scaling:
    """Return one stretch for all bands, from no light to the brightest band's high percentile."""
    first, last = scale.percentiles
    darkest = min(found.percentile(first) for found in statistics)
    low = min(0.0, darkest)
    high = max(found.percentile(last) for found in statistics)
    if low >= high:
        high = low + 1
    source = (
        f"{'0' if low == 0 else f'percentile {first:g}'} and percentile {last:g} of {statistics[0].source}"
    )
    return Scaling("percentile", low, high, scale.to, f"{source}, the same for all bands")


def _given(scale: Scale, index: int, count: int, band: int | str) -> Scaling:
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


def display(
    scalings: Sequence[Scaling], statistics: Sequence[Statistics | None]
) -> tuple[tuple[float, float], ...]:
    """Return for each band the raw values that a viewer shows as black and white.

    Those of the stretch where it was given or is that of 8-bit data; else the input's percentiles 2 and
    98, which QGIS takes for new layers, so that before and after look alike.
    """
    shown = []
    for scaling, found in zip(scalings, statistics, strict=True):
        ends = (float(scaling.low or 0), float(scaling.high or 0))
        if found is not None and scaling.mode == "percentile":
            low, high = (found.percentile(percent) for percent in SHOWN)
            ends = (low, high) if low < high else ends
        shown.append(ends)
    return tuple(shown)


def outside_warning(
    scalings: Sequence[Scaling],
    statistics: Sequence[Statistics | None],
    bands: Sequence[int | str] | None = None,
) -> str | None:
    """Return a warning where many valid pixels lie outside a given stretch, or None.

    Values that are brought to another raster's before they are stretched cannot be told.
    """
    numbers = range(1, len(statistics) + 1) if bands is None else bands
    parts = []
    for scaling, found, band in zip(scalings, statistics, numbers, strict=True):
        own = type(scaling) is Scaling and scaling.mode == "given"
        share = outside(scaling, found) if own and found is not None else 0.0
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
