"""Apply the change, not the output: what a restoring model does to the raw values of one band.

The model sees u = clip(stretch(x)) and answers f(u). Writing f(u) back through the inverse stretch
would cut everything above and below the stretch and round what was never touched. So only the
difference f(u) - u travels back: y = x + strength * (f(u) - u) * (max - min), in floating point, then
rounded and clamped to the dtype. Exact for the identity, with the headroom above the stretch kept.
"""

from __future__ import annotations

import numpy as np

from .scaling import Scaling


def apply_change(
    raw: np.ndarray, change: np.ndarray, where: np.ndarray | None, scaling: Scaling, strength: float
) -> np.ndarray:
    """Return ``raw`` (h, w) with ``change`` (h, w), float32 in stretched units, applied, in its dtype.

    ``where``: bool (h, w), pixels that may change; None for all. Everywhere else, and where the change
    is 0, the raw value comes back bit for bit.
    """
    assert scaling.low is not None
    assert scaling.high is not None
    factor = strength * (scaling.high - scaling.low)
    if raw.dtype.kind in "iu" and raw.dtype.itemsize <= 2:
        # float32 holds these integers exactly, so adding 0 gives them back
        restored = _whole(raw.astype(np.float32), change * np.float32(factor), raw.dtype)
        return restored if where is None else np.where(where, restored, raw)
    if raw.dtype.kind == "f":
        with np.errstate(invalid="ignore", over="ignore"):
            restored = raw + change.astype(raw.dtype) * raw.dtype.type(factor)
    else:
        restored = _whole(raw.astype(np.float64), change.astype(np.float64) * factor, raw.dtype)
    moved = change != 0
    if where is not None:
        moved &= where
    return restored if moved.all() else np.where(moved, restored, raw)


def _whole(values: np.ndarray, change: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return the sum rounded and clamped to an integer dtype."""
    values += change
    np.rint(values, out=values)
    limits = np.iinfo(dtype)
    # the largest 64-bit integer has no float64 of its own; the next one below has
    top = float(limits.max) if limits.max < 2**53 else float(np.nextafter(float(limits.max), 0))
    return np.clip(values, float(limits.min), top, out=values).astype(dtype)
