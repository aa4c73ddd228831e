"""How raster-to-raster algorithms read what was typed: bands, stretch, outputs, files."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingOutputLayerDefinition,
    QgsProperty,
    QgsRasterLayer,
)

from ..plugin import layers, sidecar
from ..plugin.destination import Destination
from ..plugin.layers import LayerError
from ..plugin.raster_output import raster_destination, style_path, with_suffix
from ..plugin.texts import tr
from .checks import existing, given
from .raster_texts import BANDS, INPUT, OUTPUT, OUTPUT_HAZE, REFERENCE, STRETCH_MAX, STRETCH_MIN
from .scenes import SceneAlgorithm

TEMPORARY = "TEMPORARY_OUTPUT"


class RasterReadings(SceneAlgorithm):
    """Readings of parameters; the refusals are in :mod:`.raster_checks`."""

    #: Raster outputs by their ids.
    RASTERS: ClassVar[tuple[str, ...]] = (OUTPUT, OUTPUT_HAZE)

    def bands(
        self, parameters: dict[str, Any], context: QgsProcessingContext, name: str = BANDS
    ) -> list[int]:
        """Return the chosen bands as typed, [] for automatic; raises LayerError for what is no number."""
        value = parameters.get(name)
        if isinstance(value, QgsProperty):
            value = value.value(context.expressionContext(), None)[0]
        if value is None:
            return []
        entries = value if isinstance(value, (list, tuple)) else re.split(r"[,;\s]+", str(value).strip())
        texts = [str(entry).strip() for entry in entries if str(entry).strip()]
        try:
            numbers = [float(text) for text in texts]
            if any(number != int(number) for number in numbers):
                raise ValueError
        except (ValueError, OverflowError):
            raise LayerError(
                tr("{name} is {typed}; write three band numbers such as 3,2,1.").format(
                    name=name, typed=sidecar.plain(value)
                )
            ) from None
        return [int(number) for number in numbers]

    def stretch(
        self, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> tuple[list[float], list[float]]:
        """Return the stretch's lows and highs as typed; raises LayerError for what is no number."""
        return (
            _numbers(self.parameterAsString(parameters, STRETCH_MIN, context), STRETCH_MIN),
            _numbers(self.parameterAsString(parameters, STRETCH_MAX, context), STRETCH_MAX),
        )

    def destinations(
        self, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> dict[str, Destination]:
        """Return parameter -> destination of the raster outputs that a person named."""
        typed = {name: self.typed_output(parameters, name, context).strip() for name in self.RASTERS}
        return {name: raster_destination(text) for name, text in typed.items() if text and text != TEMPORARY}

    def with_endings(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return ``parameters`` with .tif added to raster outputs without an ending.

        QGIS 3.22 adds none, and would load a file that is not there.
        """
        changed = dict(parameters)
        for name in self.RASTERS:
            typed = self.typed_output(parameters, name, context).strip()
            if not typed or typed == TEMPORARY or with_suffix(typed) == typed:
                continue
            value = parameters[name]
            if isinstance(value, QgsProcessingOutputLayerDefinition):
                value = QgsProcessingOutputLayerDefinition(value)
                value.sink = QgsProperty.fromValue(with_suffix(typed))
                changed[name] = value
            else:
                changed[name] = with_suffix(typed)
        return changed

    def input_files(
        self, layer: QgsRasterLayer, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> dict[str, str]:
        """Return parameter -> real path of the files behind the layers that are read."""
        files = {INPUT: layers.layer_file(layer)}
        if given(parameters, REFERENCE):
            files[REFERENCE] = layers.layer_file(self.parameterAsRasterLayer(parameters, REFERENCE, context))
        return existing({**files, **self.polygon_files(parameters, self.POLYGONS, context)})

    def all_files(
        self, layer: QgsRasterLayer, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> Mapping[str, list[str]]:
        """Return parameter -> every file that belongs to it: sources of a VRT, world file, style."""
        files = {}
        for name, path in self.input_files(layer, parameters, context).items():
            vector = name in self.POLYGONS
            files[name] = [path] if vector else layers.source_files(path)
            # a raster without a style would take the output's, were it called alike
            if not vector or os.path.exists(style_path(path)):
                files[name].append(style_path(path))
        return files


def _numbers(text: str, label: str) -> list[float]:
    """Read ``a,b,c`` or one number, "" = none; raises LayerError."""
    entries = [entry for entry in re.split(r"[,;\s]+", text.strip()) if entry]
    try:
        numbers = [float(entry) for entry in entries]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)) or len(numbers) not in (0, 1, 3):
        raise LayerError(
            tr("{label} is {typed}; write one number, or three as a,b,c, or nothing for automatic.").format(
                label=label, typed=text.strip()
            )
        )
    return numbers
