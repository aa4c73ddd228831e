"""What detectors of boxes take in, and everything that can be said against it before the run."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingOutputNumber, QgsRasterLayer

from ..plugin import layers
from ..plugin.destination import Destination, destination_problem, file_problem, parse_destination
from ..plugin.layers import RasterFacts
from ..plugin.sink import GuardedOutput, interrupted
from ..plugin.texts import tr
from .base import REPORT
from .box_texts import (
    AOI,
    BAND,
    COUNT,
    EXTENT,
    INPUT,
    LAND_BUFFER,
    LAND_MASK,
    MAX_LENGTH,
    MIN_LENGTH,
    OUTPUT,
    SCALE_MAX,
    SCALE_MIN,
    SCALE_MODE,
    SCALE_MODES,
)
from .checks import existing, given
from .scenes import SceneAlgorithm


class BoxChecks(SceneAlgorithm):
    """Parameters, readings and refusals; the run is in :mod:`.boxes`."""

    POLYGONS = (AOI, LAND_MASK)

    def group(self) -> str:
        """Return the toolbox group."""
        return tr("Detection")

    def groupId(self) -> str:
        """Return the group's constant id."""
        return "detection"

    def output_help(self) -> list[str]:
        """Return the help about the output layer."""
        return [
            tr(
                "Polygons with the fields id, score (0 to 1), class, x_px, y_px, w_px, h_px (pixels), "
                "long_m, short_m (metres on the ground), area_m2, lon, lat (WGS84), tile, edge (touches the "
                "raster's edge or nodata) and model (what found it). Best score first."
            ),
            tr("The output COUNT is the number of ships."),
        ]

    # --- parameters ------------------------------------------------------------------------------

    def add_inputs(self) -> None:
        """Add what is read, how it is scaled, and where."""
        self.add_raster(INPUT)
        self.add_band(BAND, INPUT)
        self.add_choice(SCALE_MODE, SCALE_MODES, "auto")
        self.add_number(SCALE_MIN, -25.0, decimals=2, advanced=True)
        self.add_number(SCALE_MAX, 5.0, decimals=2, advanced=True)
        self.add_extent(EXTENT)
        self.add_polygons(AOI)
        self.add_polygons(LAND_MASK)
        self.add_number(LAND_BUFFER, 0.0, 0.0, decimals=1)

    def add_lengths(self) -> None:
        """Add the size filter."""
        self.add_number(MIN_LENGTH, 0.0, 0.0, decimals=1)
        self.add_number(MAX_LENGTH, 0.0, 0.0, decimals=1)

    def add_outputs(self) -> None:
        """Add the polygons, the report and the count."""
        self.add_polygon_sink(OUTPUT)
        self.add_report()
        self.addOutput(QgsProcessingOutputNumber(COUNT, tr("Number of ships")))

    # --- checks ----------------------------------------------------------------------------------

    def find_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Look at outputs first, because opening inputs may touch files."""
        destination = self.destination(parameters, context)
        if interrupted(destination):
            # an interrupted run left its backup or its lock: repair first, then look
            with GuardedOutput(destination, OUTPUT):
                pass
        layer, facts = self.open_raster(parameters, INPUT, context)
        return (
            self._band_problem(layer, facts, parameters, context)
            or self._crs_problem(layer, facts, parameters, context)
            or self._number_problem(parameters, context)
            or self.extent_problem(parameters, context)
            or self.polygon_problem(parameters, context)
            or self.own_problem(parameters, context)
            or self._output_problem(layer, destination, parameters, context)
        )

    def _band_problem(
        self,
        layer: QgsRasterLayer,
        facts: RasterFacts,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
    ) -> str | None:
        band = self.parameterAsInt(parameters, BAND, context)
        if not 1 <= band <= facts.bands:
            return tr("BAND is {band}, but {name} has {count} band(s), counted from 1.").format(
                band=band, name=layer.name(), count=facts.bands
            )
        if band in facts.complex_bands:
            return tr(
                "INPUT: Complex SAR data (band {band} of {name}): convert to amplitude or intensity first."
            ).format(band=band, name=layer.name())
        return None

    def _crs_problem(
        self,
        layer: QgsRasterLayer,
        facts: RasterFacts,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
    ) -> str | None:
        if facts.has_crs:
            return None
        metric = [name for name in (MIN_LENGTH, MAX_LENGTH) if self.number(parameters, name, context) > 0]
        metric += [name for name in (LAND_MASK,) if given(parameters, name)]
        if not metric:
            return None
        return tr(
            "{names}: the file of {name} has no CRS, so metres and positions are unknown; "
            "assign a projection to the file first."
        ).format(names=", ".join(metric), name=layer.name())

    def _number_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        for name, low, high in (
            (SCALE_MIN, -1000.0, 1000.0),
            (SCALE_MAX, -1000.0, 1000.0),
            (LAND_BUFFER, 0.0, 1e6),
            (MIN_LENGTH, 0.0, 1e6),
            (MAX_LENGTH, 0.0, 1e6),
        ):
            problem = self.out_of_range(parameters, name, low, high, context)
            if problem:
                return problem
        low, high = (self.number(parameters, name, context) for name in (SCALE_MIN, SCALE_MAX))
        if low >= high:
            return tr("SCALE_MIN ({low:g} dB) must be less than SCALE_MAX ({high:g} dB).").format(
                low=low, high=high
            )
        low, high = (self.number(parameters, name, context) for name in (MIN_LENGTH, MAX_LENGTH))
        if high > 0 and low > high:
            return tr("MIN_LENGTH ({low:g} m) is more than MAX_LENGTH ({high:g} m).").format(
                low=low, high=high
            )
        return None

    def _output_problem(
        self,
        layer: QgsRasterLayer,
        destination: Destination,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
    ) -> str | None:
        inputs = self.input_files(layer, parameters, context)
        loaded = layers.loaded_files(context.project())
        problem = destination_problem(destination, OUTPUT, inputs, loaded)
        report = self.report_path(parameters, context)
        if problem or not report:
            return problem
        outputs = destination.family() if destination.on_disk else []
        # each of them: the sidecar, or what belongs to a shapefile, is written after the report
        problems = (file_problem(report, REPORT, {**inputs, OUTPUT: path}) for path in outputs)
        return next(filter(None, problems), None) or file_problem(report, REPORT, inputs)

    def input_files(
        self, layer: QgsRasterLayer, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> dict[str, str]:
        """Return parameter -> real path of the files behind the layers that are read."""
        polygons = self.polygon_files(parameters, self.POLYGONS, context)
        return existing({INPUT: layers.layer_file(layer), **polygons})

    def destination(self, parameters: dict[str, Any], context: QgsProcessingContext) -> Destination:
        """Read OUTPUT without opening anything: QGIS's own reading of it would."""
        return parse_destination(self.typed_output(parameters, OUTPUT, context) or "memory:")
