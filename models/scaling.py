"""The parameters SCALE_MODE, SCALE_MIN and SCALE_MAX as a Scale; used by every model that offers them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from .task import ModelError, Scale, ScaleMode


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
    if scale.mode not in get_args(ScaleMode):
        raise ModelError(f"SCALE_MODE is {scale.mode!r}, it must be one of {', '.join(get_args(ScaleMode))}.")
    low, high = scale.minimum, scale.maximum
    for name, value in (("SCALE_MIN", low), ("SCALE_MAX", high)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelError(f"{name} is {value!r}, it must be a number.")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ModelError(f"SCALE_MIN {low:g} must lie below SCALE_MAX {high:g}.")
    return scale
