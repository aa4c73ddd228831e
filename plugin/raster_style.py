"""How raster results look: the dehazed bands with the input's stretch, the haze as a sequential ramp.

The style is a text of QGIS's own format, filled with numbers. It lies beside the raster as
``<stem>.qml``, which QGIS reads by itself, and in the GUI a post-processor gives it to the layer.
"""

from __future__ import annotations

import contextlib
import math
import os
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from osgeo import gdal
from qgis.core import (
    QgsContrastEnhancement,
    QgsMapLayer,
    QgsMultiBandColorRenderer,
    QgsProcessingLayerPostProcessorInterface,
    QgsRasterLayer,
)
from qgis.PyQt.QtXml import QDomDocument

from .styles import FOLDER, KEPT

#: Change of reflectance-like units in which most haze lies; used when the worker names no range.
HAZE_RANGE = (0.0, 0.3)


@dataclass(frozen=True)
class Stretch:
    """What is shown as red, green and blue (bands from 1), each between a low and a high value."""

    bands: tuple[int, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]


def layer_stretch(layer: QgsRasterLayer) -> Stretch | None:
    """Return a layer's own stretch (main thread), or None when it does not stretch three bands."""
    renderer = layer.renderer()
    if not isinstance(renderer, QgsMultiBandColorRenderer):
        return None
    enhancements = (
        renderer.redContrastEnhancement(),
        renderer.greenContrastEnhancement(),
        renderer.blueContrastEnhancement(),
    )
    plain = QgsContrastEnhancement.ContrastEnhancementAlgorithm.NoEnhancement
    if any(e is None or e.contrastEnhancementAlgorithm() == plain for e in enhancements):
        return None
    return _stretch(
        (renderer.redBand(), renderer.greenBand(), renderer.blueBand()),
        [enhancement.minimumValue() for enhancement in enhancements],
        [enhancement.maximumValue() for enhancement in enhancements],
    )


def result_stretch(figures: Mapping[str, Any]) -> Stretch | None:
    """Return how the output is shown by itself: its bands between the lows and highs of the stretch.

    Not between percentiles of the input: under haze the 2nd is the haze itself, and what comes out from
    behind it would be shown as black (looked at on a Sentinel-2 scene).
    """
    stretch = figures.get("stretch")
    if not isinstance(stretch, Mapping):
        return None
    return _stretch(figures.get("output_bands"), stretch.get("low"), stretch.get("high"))


def same_look(shown: Stretch | None, figures: Mapping[str, Any], copied: bool) -> Stretch | None:
    """Return the input layer's stretch for the output, or None where the output lacks a band of it.

    ``copied``: the output holds all bands of the input, in its order.
    """
    if shown is None or copied:
        return shown
    chosen, places = figures.get("bands") or [], figures.get("output_bands") or []
    where = dict(zip(chosen, places))
    if any(band not in where for band in shown.bands):
        return None
    return Stretch(tuple(where[band] for band in shown.bands), shown.lows, shown.highs)


def _stretch(bands: Any, lows: Any, highs: Any) -> Stretch | None:
    try:
        made = Stretch(tuple(map(int, bands)), tuple(map(float, lows)), tuple(map(float, highs)))
    except (TypeError, ValueError):
        return None
    threes = len(made.bands) == len(made.lows) == len(made.highs) == 3
    numbers = all(math.isfinite(value) for value in (*made.lows, *made.highs))
    return made if threes and numbers and min(made.bands) > 0 else None


def colour_style(stretch: Stretch, alpha: int = -1) -> str:
    """Return the QML of three bands between their lows and highs; ``alpha``: that band, or -1."""
    values: dict[str, Any] = {"alpha": alpha}
    for index, colour in enumerate(("red", "green", "blue")):
        values[f"{colour}_band"] = stretch.bands[index]
        values[f"{colour}_low"] = repr(stretch.lows[index])
        values[f"{colour}_high"] = repr(stretch.highs[index])
    return _fill("colour.qml", values)


def haze_style(limits: Sequence[float] | None) -> str:
    """Return the QML of a sequential ramp between ``limits`` (low, high)."""
    low, high = HAZE_RANGE
    if limits is not None and len(limits) == 2 and all(map(math.isfinite, limits)) and limits[0] < limits[1]:
        low, high = (float(value) for value in limits)
    values = {"low": low, "middle": (low + high) / 2, "high": high}
    labels = {f"{name}_label": f"{value:.3g}" for name, value in values.items()}
    return _fill("haze.qml", {**{name: repr(value) for name, value in values.items()}, **labels})


def is_ours(path: str) -> bool:
    """Whether a style file may be replaced: there is none, or it is a raster's, not a namesake layer's."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return "<rasterrenderer" in file.read()
    except FileNotFoundError:
        return True
    except OSError:
        return False


def forget(history: str, style: str) -> None:
    """Remove history and style of a raster that lay there before; a style of something else stays."""
    for path in (history, *([style] if is_ours(style) else [])):
        with contextlib.suppress(OSError):
            os.unlink(path)


def alpha_band(path: str) -> int:
    """Return a raster's alpha band, or -1: a style of QGIS's names it."""
    try:
        data = gdal.OpenEx(path, gdal.OF_RASTER)
    except RuntimeError:  # another plugin may have turned GDAL's exceptions on
        return -1
    if data is None:
        return -1
    for number in range(1, data.RasterCount + 1):
        if data.GetRasterBand(number).GetColorInterpretation() == gdal.GCI_AlphaBand:
            return number
    return -1


def _fill(name: str, values: Mapping[str, Any]) -> str:
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return string.Template(file.read()).substitute(values)


class RasterStyler(QgsProcessingLayerPostProcessorInterface):
    """Gives a layer the style that the run found; must be made in the main thread (see styles.Styler)."""

    def __init__(self) -> None:
        super().__init__()
        self.qml = ""
        KEPT.append(self)

    def postProcessLayer(self, layer: QgsMapLayer, context: Any, feedback: Any) -> None:
        """Called by QGIS; a style that cannot be read costs the looks, not the result."""
        document = QDomDocument()
        if not self.qml or not document.setContent(self.qml)[0]:
            return
        ok, message = layer.importNamedStyle(document)
        if not ok:
            feedback.pushWarning(message)
        layer.triggerRepaint()
