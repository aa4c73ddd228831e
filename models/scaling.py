"""The parameters SCALE_MODE, SCALE_MIN, SCALE_MAX, or STRETCH_MIN and STRETCH_MAX, as a Scale.

Used by every model that offers them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from .task import ModelError, Scale, ScaleMode

#: What SCALE_MODE offers; ``given`` is chosen by typing STRETCH_MIN and STRETCH_MAX.
MODES = tuple(mode for mode in get_args(ScaleMode) if mode != "given")
#: The automatic stretch of everything but 8-bit data: clouds and shadows, some percent of a scene
#: each, must not decide over the rest.
STRETCH_PERCENTILES = (2.0, 98.0)


def scale_from(params: Mapping[str, Any], to: Literal["unit", "power"] = "unit") -> Scale:
    """Read ``scale_mode``, ``scale_min``, ``scale_max``; a missing or empty one is Scale's default.

    Raises ModelError for a mode that does not exist and for limits that enclose nothing.
    """
    typed = {
        "mode": params.get("scale_mode"),
        "minimum": params.get("scale_min"),
        "maximum": params.get("scale_max"),
    }
    scale = dataclasses.replace(Scale(to=to), **{k: v for k, v in typed.items() if v is not None})
    if scale.mode not in MODES:
        raise ModelError(f"SCALE_MODE is {scale.mode!r}, it must be one of {', '.join(MODES)}.")
    low, high = scale.minimum, scale.maximum
    for name, value in (("SCALE_MIN", low), ("SCALE_MAX", high)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelError(f"{name} is {value!r}, it must be a number.")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ModelError(f"SCALE_MIN {low:g} must lie below SCALE_MAX {high:g}.")
    return scale


def stretch_from(
    params: Mapping[str, Any],
    percentiles: tuple[float, float] = STRETCH_PERCENTILES,
    black: Literal["percentile", "zero"] = "percentile",
) -> Scale:
    """Read ``stretch_min`` and ``stretch_max``: lists of 1 or 3 numbers, or text ``a`` or ``a,b,c``.

    Both missing or empty is the automatic stretch: 0..255 for 8-bit data, else ``percentiles`` and
    ``black`` as :class:`Scale` has them. One without the other is refused: half a stretch would change
    with the scene, unseen. That each low lies below its high is the engine's to check, because it
    knows the bands. Raises ModelError.
    """
    lows, highs = (_numbers(name, params.get(name.lower())) for name in ("STRETCH_MIN", "STRETCH_MAX"))
    if bool(lows) != bool(highs):
        typed, other = ("STRETCH_MIN", "STRETCH_MAX") if lows else ("STRETCH_MAX", "STRETCH_MIN")
        raise ModelError(
            f"{typed} is given, but {other} is empty.", "Give both, or neither for the automatic stretch."
        )
    if not lows:
        return Scale(percentiles=percentiles, black=black)
    return Scale(mode="given", percentiles=percentiles, lows=lows, highs=highs)


def _numbers(name: str, typed: Any) -> tuple[float, ...]:
    if typed is None:
        return ()
    if isinstance(typed, str):
        items: list[Any] = typed.split(",") if typed.strip() else []
    else:
        items = list(typed) if isinstance(typed, list | tuple) else [typed]
    numbers = []
    for item in items:
        try:
            if isinstance(item, bool):
                raise ValueError
            number = float(item)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            shown = item.strip() if isinstance(item, str) else item
            raise ModelError(
                f"{name} holds {shown!r}, which is not a number.",
                "Write one number for all bands or three with commas between, and a point for decimals.",
            )
        numbers.append(number)
    if len(numbers) not in (0, 1, 3):
        raise ModelError(
            f"{name} has {len(numbers)} numbers, it must have 1 or 3.",
            "One for all bands, or one each for red, green and blue.",
        )
    return tuple(numbers)
