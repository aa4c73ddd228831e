"""What algorithms of two dates take in, and everything that can be said against it before the run.

What only the pixels tell - shared ground, units of the values - the worker refuses before it writes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from qgis.core import (
    QgsMapLayer,
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingParameterMapLayer,
    QgsRasterLayer,
    QgsVectorLayer,
    QgsWkbTypes,
)

from ..plugin import layers, sidecar
from ..plugin.destination import Destination, destination_problem, file_problem, parse_destination
from ..plugin.layers import RasterFacts
from ..plugin.raster_output import outputs_problem, style_path
from ..plugin.sink import GuardedOutput, interrupted
from ..plugin.texts import tr
from .base import REPORT
from .change_texts import (
    AFTER,
    ALIGN,
    ALIGNMENTS,
    AOI,
    BANDS_AFTER,
    BANDS_BEFORE,
    BEFORE,
    EXTENT,
    MATCH_RADIOMETRY,
    MIN_AREA,
    OUTPUT,
    OUTPUT_MASK,
    OUTPUT_PROBABILITY,
    OVERLAP,
    REFERENCE,
    REGULARISE,
    SIMPLIFY,
    STRETCH_MAX,
    STRETCH_MIN,
    THRESHOLD,
    TILE,
)
from .checks import existing, given
from .raster_checks import bands_problem, georeference_problem, kind_problem, stretch_problem
from .raster_readings import RasterReadings

#: A tenth of the globe's surface: more is a typing error.
LARGEST_AREA_M2 = 5e13
LARGEST_TOLERANCE_M = 1e6


class ChangeChecks(RasterReadings):
    """Parameters and refusals; the run is in :mod:`.change`."""

    MAIN = BEFORE
    RASTERS = (OUTPUT_MASK, OUTPUT_PROBABILITY)
    #: A tile is a multiple of this, which a network's layers may ask for.
    STRIDE: ClassVar[int] = 1
    TILES: ClassVar[tuple[int, int]] = (64, 16384)
    #: Both dates with the parameter that chooses their bands.
    DATES: ClassVar[dict[str, str]] = {BEFORE: BANDS_BEFORE, AFTER: BANDS_AFTER}

    def group(self) -> str:
        """Return the toolbox group."""
        return tr("Change")

    def groupId(self) -> str:
        """Return the group's constant id."""
        return "change"

    def output_help(self) -> list[str]:
        """Return the help about the outputs."""
        return [
            tr(
                "Fields: id, class (change), area_m2 and perim_m (on the ellipsoid; null without a CRS), "
                "p_mean and p_max (mean and largest value of the polygon's pixels), date1 and date2 (from "
                "the layers' temporal settings, else from the files' tags, else empty), tile, model (what "
                "found it)."
            ),
            tr(
                "The mask means: 1 = the ground differs between the dates, 0 = it does not, 255 = one of the "
                "dates has no data there. It does not tell the direction: whether a building was built or "
                "demolished has to be looked up in the rasters. All outputs lie on the grid of BEFORE; "
                "polygons follow the mask, those below the smallest area left out."
            ),
        ]

    # --- parameters ------------------------------------------------------------------------------

    def add_dates(self) -> None:
        """Add what is compared."""
        self.add_raster(BEFORE)
        self.add_raster(AFTER)
        for name, bands in self.DATES.items():
            self.add_bands(bands, name)

    def add_radiometry(self) -> None:
        """Add how values and places of the dates are made comparable."""
        self.add_text(STRETCH_MIN, advanced=True)
        self.add_text(STRETCH_MAX, advanced=True)
        self.add_flag(MATCH_RADIOMETRY)
        self.add_choice(ALIGN, ALIGNMENTS, "none")

    def add_shapes_and_area(self) -> None:
        """Add what counts as change, what becomes of outlines, and where."""
        self.add_number(THRESHOLD, 0.0, 0.0, 1.0, decimals=4)
        self.add_number(MIN_AREA, -1.0, -1.0, decimals=1)
        self.add_number(SIMPLIFY, 0.0, 0.0, decimals=2)
        self.add_flag(REGULARISE)
        self.add_extent(EXTENT)
        self.add_polygons(AOI)

    def add_tiles(self) -> None:
        """Add the tiles."""
        self.add_number(TILE, 256, *self.TILES, advanced=True)
        self.add_number(OVERLAP, 64, 0, advanced=True)

    def add_outputs(self) -> None:
        """Add the reference and all outputs."""
        kinds = [QgsProcessing.SourceType.TypeRaster, QgsProcessing.SourceType.TypeVectorPolygon]
        reference = QgsProcessingParameterMapLayer(
            REFERENCE, self.label(REFERENCE), optional=True, types=kinds
        )
        self.add(reference, advanced=True)
        self.add_polygon_sink(OUTPUT)
        self.add_raster_output(OUTPUT_MASK, optional=True)
        self.add_raster_output(OUTPUT_PROBABILITY, optional=True)
        self.add_report()

    # --- checks ----------------------------------------------------------------------------------

    def find_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Look at the interrupted output, rasters, numbers, areas and outputs in turn."""
        destination = self.destination(parameters, context)
        if interrupted(destination):
            # an interrupted run left its backup or its lock: repair first, then look
            with GuardedOutput(destination, OUTPUT):
                pass
        return (
            self._dates_problem(parameters, context)
            or self._number_problem(parameters, context)
            or stretch_problem(*self.stretch(parameters, context))
            or self.extent_problem(parameters, context)
            or self.polygon_problem(parameters, context)
            or self.own_problem(parameters, context)
            or self._reference_problem(parameters, context)
            or self._output_problem(destination, parameters, context)
        )

    def _dates_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        found: dict[str, tuple[QgsRasterLayer, RasterFacts]] = {}
        why = tr("change is looked for in visible bands only")
        for name, bands in self.DATES.items():
            layer, facts = found[name] = self.open_raster(parameters, name, context)
            problem = (
                kind_problem(name, layer, facts, why)
                or bands_problem(self.bands(parameters, context, bands), layer, facts, bands, why)
                or georeference_problem(name, layer, facts)
            )
            if problem:
                return problem
        placed = [name for name, (_, facts) in found.items() if facts.has_crs]
        if len(placed) != 1:
            return None
        bare = next(name for name in found if name not in placed)
        return tr(
            "{bare}: the file of {name} has no CRS, but that of {placed} has, so they cannot be laid on each "
            "other; assign the projection to the file."
        ).format(bare=bare, name=found[bare][0].name(), placed=placed[0])

    def _number_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        low, high = self.TILES
        for name, least, most in (
            (THRESHOLD, 0.0, 1.0),
            (MIN_AREA, -1.0, LARGEST_AREA_M2),
            (SIMPLIFY, 0.0, LARGEST_TOLERANCE_M),
            (TILE, low, high),
        ):
            problem = self.out_of_range(parameters, name, least, most, context)
            if problem:
                return problem
        area = self.number(parameters, MIN_AREA, context)
        if -1 < area < 0:
            return tr("MIN_AREA is {area:g}; it must be 0 or more, or -1 for the default.").format(area=area)
        tile = self.parameterAsInt(parameters, TILE, context)
        if tile % self.STRIDE:
            lower = tile // self.STRIDE * self.STRIDE
            return tr("TILE is {tile}; it must be a multiple of {stride}, such as {low} or {high}.").format(
                tile=tile, stride=self.STRIDE, low=lower, high=lower + self.STRIDE
            )
        overlap = self.number(parameters, OVERLAP, context)
        if not 0 <= overlap < tile:
            return tr("OVERLAP is {overlap:g}; it must be less than TILE ({tile}), 0 = automatic.").format(
                overlap=overlap, tile=tile
            )
        return None

    def _reference_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        layer = self.reference(parameters, context)
        if layer is None:
            if not given(parameters, REFERENCE):
                return None
            return tr(
                "REFERENCE: {source} is no layer that can be read; choose polygons or a raster."
            ).format(source=sidecar.plain(parameters[REFERENCE]))
        if isinstance(layer, QgsVectorLayer):
            if layer.geometryType() == QgsWkbTypes.GeometryType.PolygonGeometry:
                return None
            return tr("REFERENCE: {name} holds no polygons; choose polygons or a raster.").format(
                name=layer.name()
            )
        if not isinstance(layer, QgsRasterLayer):
            return tr("REFERENCE: {name} is neither polygons nor a raster.").format(name=layer.name())
        _, facts = self.open_raster(parameters, REFERENCE, context)
        return georeference_problem(REFERENCE, layer, facts)

    def _output_problem(
        self, destination: Destination, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> str | None:
        layer = self.parameterAsRasterLayer(parameters, BEFORE, context)
        inputs = self.input_files(layer, parameters, context)
        loaded = layers.loaded_files(context.project())
        problem = destination_problem(destination, OUTPUT, inputs, loaded)
        if problem:
            return problem
        own = [*destination.family(), style_path(destination.path)] if destination.on_disk else []
        report = self.report_path(parameters, context)
        # the sidecar, or what belongs to a shapefile, is written after the report
        problems = (file_problem(report, REPORT, {OUTPUT: path}) for path in own if report)
        return next(filter(None, problems), None) or outputs_problem(
            self.destinations(parameters, context),
            (REPORT, report),
            {**self.all_files(layer, parameters, context), **({OUTPUT: own} if own else {})},
            loaded,
        )

    # --- readings --------------------------------------------------------------------------------

    def reference(self, parameters: dict[str, Any], context: QgsProcessingContext) -> QgsMapLayer | None:
        """Return the layer of REFERENCE, None where there is none or it cannot be read."""
        if not given(parameters, REFERENCE):
            return None
        layer = self.parameterAsLayer(parameters, REFERENCE, context)
        return layer if layer is not None and layer.isValid() else None

    def destination(self, parameters: dict[str, Any], context: QgsProcessingContext) -> Destination:
        """Read OUTPUT without opening anything: QGIS's own reading of it would."""
        return parse_destination(self.typed_output(parameters, OUTPUT, context) or "memory:")

    def input_files(
        self, layer: QgsRasterLayer, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> dict[str, str]:
        """Return parameter -> real path of the files behind the layers that are read."""
        files = {
            name: layers.layer_file(self.parameterAsRasterLayer(parameters, name, context))
            for name in self.DATES
        }
        reference = self.reference(parameters, context)
        if reference is not None:
            files[REFERENCE] = layers.layer_file(reference)
        return existing({**files, **self.polygon_files(parameters, self.POLYGONS, context)})

    def all_files(
        self, layer: QgsRasterLayer, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> Mapping[str, list[str]]:
        """Return parameter -> every file that belongs to it; polygons of REFERENCE are one file."""
        files = dict(super().all_files(layer, parameters, context))
        reference = self.reference(parameters, context)
        if isinstance(reference, QgsVectorLayer) and REFERENCE in files:
            path = files[REFERENCE][0]
            files[REFERENCE] = [path] if not os.path.exists(style_path(path)) else [path, style_path(path)]
        return files
