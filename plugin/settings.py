"""Kestrel's keys in QGIS's settings, each with its type and default, in one place."""

from __future__ import annotations

from qgis.core import QgsSettings

PYTHON = "kestrel/python"
DEVICE = "kestrel/device"
WARM_MINUTES = "kestrel/warm_minutes"
MEMORY_MB = "kestrel/memory_mb"

DEVICES = ("auto", "cpu", "cuda", "mps")

#: Long enough to try a few thresholds, short enough that half a gigabyte does not sit there all day.
DEFAULT_WARM_MINUTES = 10.0


def python() -> str:
    """Return the interpreter the user chose, or an empty string."""
    return str(QgsSettings().value(PYTHON, "") or "").strip()


def device() -> str:
    """Return what ``auto`` means on this machine: ``auto`` (the worker decides) unless the user chose."""
    chosen = str(QgsSettings().value(DEVICE, "auto") or "auto").strip().lower()
    return chosen if chosen in DEVICES else "auto"


def warm_minutes() -> float:
    """Return how long an idle worker is kept in the GUI; 0 = not at all."""
    try:
        return max(float(QgsSettings().value(WARM_MINUTES, DEFAULT_WARM_MINUTES)), 0.0)
    except (TypeError, ValueError):
        return DEFAULT_WARM_MINUTES


def memory_mb() -> int:
    """Return how many megabytes a raster run may use beside the model; 0 = automatic."""
    try:
        return max(int(float(QgsSettings().value(MEMORY_MB, 0) or 0)), 0)
    except (TypeError, ValueError, OverflowError):
        return 0
