"""Raw pixel values to model input, by numbers fixed once for the whole scene.

``models/task.py: Scale`` says what a task wants; :func:`resolve` looks at the scene's statistics
and returns a frozen :class:`Scaling` that every tile shares (never per tile: the pitfall of
ENGINE.md, section 6).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..models.task import Scale
from .errors import EngineError
from .statistics import Statistics

#: 10 log10 of zero power has no value; everything below is clipped anyway.
TINY = 1e-30
#: No backscatter comes near; the square of a larger one has no place in float32.
LARGEST_POWER = 1e30
#: Integers of so few values that a table of them is made at once.
TABLED = tuple(np.dtype(name) for name in ("uint8", "int8", "uint16", "int16"))


@dataclass(frozen=True)
class Scaling:
    """Numbers that turn raw values into float32 input.

    ``mode``: what was done - ``uint8``, ``percentile``, ``given``, ``db`` or ``linear``. ``low``,
    ``high``: the stretch in raw units (the first three) or in dB, None where nothing is clipped.
    ``to``: ``unit`` (0..1) or ``power``. ``source``: where the two numbers come from.
    """

    mode: str
    low: float | None
    high: float | None
    to: str
    source: str

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return float32 of the same shape; ``values`` are valid pixels only.

        Raises EngineError where ``uint8`` meets values that 8 bits cannot hold.
        """
        if self.mode == "uint8" and values.dtype != np.uint8 and values.size:
            check_8bit(float(values.min()), float(values.max()))
        if values.dtype in TABLED:
            return self._tables[values.dtype.name].take(values.view(f"u{values.dtype.itemsize}"))
        return self._calculated(values)

    @cached_property
    def _tables(self) -> dict[str, np.ndarray]:
        """Return for each small integer dtype what every value becomes: a look-up costs a sixth."""
        tables = _Tables()
        tables.scaling = self
        return tables

    def _calculated(self, values: np.ndarray) -> np.ndarray:
        if values.dtype.kind in "iu":
            # float32 holds 24 bits, so 32-bit integers are stretched in float64, as float64 itself is
            values = values.astype(np.float64 if values.dtype.itemsize > 2 else np.float32)
        if self.to == "power":
            return np.minimum(self._power(values), LARGEST_POWER).astype(np.float32)
        if self.mode == "linear":
            values = _decibel(values)
        assert self.low is not None
        assert self.high is not None
        # divided, not multiplied by the inverse: that overflows where the range is tiny
        unit = (values - values.dtype.type(self.low)) / values.dtype.type(self.high - self.low)
        return np.clip(unit, 0, 1, out=unit).astype(np.float32)

    def _power(self, values: np.ndarray) -> np.ndarray:
        if self.mode in ("uint8", "percentile"):
            return np.square(np.maximum(values, 0))
        if self.mode == "linear":
            if self.low is None:
                return np.maximum(values, 0)
            low, high = 10 ** (self.low / 10), 10 ** (float(self.high or 0) / 10)
            return np.clip(values, low, high)
        if self.low is not None:
            values = np.clip(values, self.low, self.high)
        return np.power(10.0, values / 10)

    def figures(self) -> dict[str, Any]:
        """Return the numbers for sidecar and report."""
        return asdict(self)


class _Tables(dict[str, np.ndarray]):
    """Tables by dtype name, made when first asked for."""

    scaling: Scaling

    def __missing__(self, name: str) -> np.ndarray:
        dtype = np.dtype(name)
        values = np.arange(2 ** (8 * dtype.itemsize)).astype(f"u{dtype.itemsize}").view(dtype)
        table = self[name] = self.scaling._calculated(values)
        return table


def resolve(scale: Scale, statistics: Statistics) -> Scaling:
    """Fix a task's wish for one band of this scene; raises EngineError where values do not fit the mode.

    Mode ``given`` holds numbers for each band: :func:`.stretch.resolve_stretch`.
    """
    assert scale.mode != "given"
    mode = _mode(scale, statistics)
    if mode in ("db", "linear"):
        if scale.minimum >= scale.maximum:
            raise EngineError(
                "parameter",
                f"SCALE_MIN {scale.minimum:g} must be below SCALE_MAX {scale.maximum:g}.",
                "Typical for sigma0 are -25 and 5 dB.",
            )
        if mode == "linear" and statistics.percentile(scale.percentiles[0]) < 0:
            raise EngineError(
                "parameter",
                f"SCALE_MODE linear expects power from 0, but the raster has {statistics.minimum:g}.",
                "Values in decibels need SCALE_MODE db.",
            )
        if scale.to == "power" and scale.mode == "auto":
            return Scaling(mode, None, None, scale.to, "not clipped")
        return Scaling(mode, scale.minimum, scale.maximum, scale.to, "parameters")
    if mode == "uint8":
        check_8bit(statistics.minimum, statistics.maximum)
        return Scaling(mode, 0.0, 255.0, scale.to, "data type")
    low, high = (statistics.percentile(p) for p in scale.percentiles)
    source = f"percentiles {scale.percentiles[0]:g} and {scale.percentiles[1]:g} of {statistics.source}"
    if low >= high:
        low, high = statistics.minimum, statistics.maximum
        source = f"minimum and maximum of {statistics.source}, whose percentiles are equal"
    if low == high:  # any width will do, but one that the number's own size does not swallow
        high, source = low + max(1.0, abs(low)), "the only valid pixel"
    return Scaling(mode, low, high, scale.to, source)


def check_8bit(low: float, high: float) -> None:
    """Raise EngineError unless values fit 0..255."""
    if low < 0 or high > 255:
        raise EngineError(
            "parameter",
            f"SCALE_MODE uint8 expects values from 0 to 255, but the raster has {low:g} to {high:g}.",
            "Choose SCALE_MODE percentile, or db for values in decibels.",
        )


def _mode(scale: Scale, statistics: Statistics) -> str:
    if scale.mode != "auto":
        return scale.mode
    if scale.to == "power":
        return "db" if statistics.percentile(scale.percentiles[0]) < 0 else "percentile"
    return "uint8" if statistics.dtype == np.uint8 else "percentile"


def _decibel(power: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.maximum(power, TINY))
