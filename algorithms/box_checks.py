"""What detectors of boxes take in, and everything that can be said against it before the run."""

from __future__ import annotations

import os
import re
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessingContext,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingOutputNumber,
    QgsProperty,
    QgsRasterLayer,
    QgsWkbTypes,
)

from ..plugin import layers, sidecar
from ..plugin.destination import Destination, destination_problem, file_problem, parse_destination
from ..plugin.layers import LayerError, RasterFacts
from ..plugin.sink import GuardedOutput, SinkError, interrupted
from ..plugin.texts import tr
from .base import REPORT, KestrelAlgorithm
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


class BoxChecks(KestrelAlgorithm):
    """Parameters, readings and refusals; the run is in :mod:`.boxes`."""

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

    def own_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Return what is wrong with the subclass's own parameters."""
        raise NotImplementedError

    def own_params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return the subclass's own Job params, keys in lower case."""
        raise NotImplementedError

    def device(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        """Return the Job's device."""
        return "auto"

    # --- checks ----------------------------------------------------------------------------------

    def problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Say what is wrong before the run: outputs first, because opening inputs may touch files."""
        try:
            return self._problem(parameters, context)
        except (LayerError, SinkError) as error:
            return str(error)

    def _problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        destination = self.destination(parameters, context)
        if interrupted(destination):
            # an interrupted run left its backup or its lock: repair first, then look
            with GuardedOutput(destination, OUTPUT):
                pass
        layer = self.parameterAsRasterLayer(parameters, INPUT, context)
        if layer is None or not layer.isValid():
            if parameters.get(INPUT) in (None, ""):
                return tr("INPUT: choose a raster layer or file.")
            return layers.describe_unreadable(str(sidecar.plain(parameters[INPUT])), INPUT)
        return (
            self._input_problem(layer, parameters, context)
            or self._number_problem(parameters, context)
            or self._extent_problem(parameters, context)
            or self._polygon_problem(parameters, context)
            or self.own_problem(parameters, context)
            or self._output_problem(layer, destination, parameters, context)
        )

    def _input_problem(
        self, layer: QgsRasterLayer, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> str | None:
        source = layer.source()
        if source.lstrip().startswith("<"):
            return layers.describe_unreadable(source, INPUT)
        if layer.providerType() == "gdal" and layers.is_remote(source):
            return layers.describe_unreadable(source, INPUT)
        facts = layers.raster_facts(layer, context.transformContext())
        if not facts.bands:
            return tr("INPUT: Raster has no readable band; choose one of its subdatasets.")
        band = self.parameterAsInt(parameters, BAND, context)
        if not 1 <= band <= facts.bands:
            return tr("BAND is {band}, but {name} has {count} band(s), counted from 1.").format(
                band=band, name=layer.name(), count=facts.bands
            )
        if band in facts.complex_bands:
            return tr(
                "INPUT: Complex SAR data (band {band} of {name}): convert to amplitude or intensity first."
            ).format(band=band, name=layer.name())
        return self._crs_problem(layer, facts, parameters, context)

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
        metric += [name for name in (LAND_MASK,) if parameters.get(name) not in (None, "")]
        if not metric:
            return None
        return tr(
            "{names}: the file of {name} has no CRS, so metres and positions are unknown; "
            "assign a projection to the file first."
        ).format(names=", ".join(metric), name=layer.name())

    def number(self, parameters: dict[str, Any], name: str, context: QgsProcessingContext) -> float:
        """Return a number as typed or by default."""
        return self.parameterAsDouble(parameters, name, context)

    def out_of_range(
        self,
        parameters: dict[str, Any],
        name: str,
        low: float,
        high: float,
        context: QgsProcessingContext,
    ) -> str | None:
        """Return a sentence when a number is outside low..high, NaN included."""
        value = self.number(parameters, name, context)
        if low <= value <= high:
            return None
        return tr("{name} is {value:g}; it must lie between {low:g} and {high:g}.").format(
            name=name, value=value, low=low, high=high
        )

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

    def _extent_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        if parameters.get(EXTENT) in (None, ""):
            return None
        typed = sidecar.plain(parameters[EXTENT])
        extent = self.parameterAsExtent(parameters, EXTENT, context)
        if extent.isNull() or extent.isEmpty() or not extent.isFinite():
            # QGIS reads it as "no extent", and the whole raster would be searched
            return tr("EXTENT {value} is no area; write xmin,xmax,ymin,ymax [EPSG:code].").format(value=typed)
        code = re.search(r"\[([^\]]+)\]\s*$", str(typed))
        if code and not QgsCoordinateReferenceSystem(code.group(1)).isValid():
            return tr("EXTENT: the CRS {code} is not known; write it as EPSG:code.").format(
                code=code.group(1)
            )
        return None

    def _polygon_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        for name in (AOI, LAND_MASK):
            if parameters.get(name) in (None, ""):
                continue
            source = self.parameterAsSource(parameters, name, context)
            if source is None:
                return tr("{name}: {source} is not a polygon layer that can be read.").format(
                    name=name, source=sidecar.plain(parameters[name])
                )
            if QgsWkbTypes.geometryType(source.wkbType()) != QgsWkbTypes.GeometryType.PolygonGeometry:
                return tr("{name}: {source} holds no polygons; choose a polygon layer.").format(
                    name=name, source=source.sourceName()
                )
            if name == AOI and source.featureCount() == 0:
                return tr("AOI: {source} holds no polygons; choose a layer or a selection with some.").format(
                    source=source.sourceName()
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
        files = {INPUT: layers.layer_file(layer)}
        for name in (AOI, LAND_MASK):
            if parameters.get(name) not in (None, ""):
                vector = self.parameterAsVectorLayer(parameters, name, context)
                files[name] = layers.layer_file(vector) if vector is not None else ""
        return {name: os.path.realpath(path) for name, path in files.items() if os.path.exists(path)}

    def destination(self, parameters: dict[str, Any], context: QgsProcessingContext) -> Destination:
        """Read OUTPUT without opening anything: QGIS's own reading of it would."""
        value = parameters.get(OUTPUT)
        if isinstance(value, QgsProcessingOutputLayerDefinition):
            value = value.sink
        if isinstance(value, QgsProperty):
            value = value.valueAsString(context.expressionContext(), "")[0]
        return parse_destination(str(value or "memory:"))

    def report_path(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        """Return where the report goes, "" when none is asked for."""
        if parameters.get(REPORT) in (None, ""):
            return ""
        return self.parameterAsFileOutput(parameters, REPORT, context)
