"""What algorithms that read a scene share: readings of parameters and refusals before the run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessingContext,
    QgsProcessingOutputLayerDefinition,
    QgsProperty,
    QgsRasterLayer,
    QgsRectangle,
    QgsWkbTypes,
)

from ..plugin import layers, sidecar
from ..plugin.layers import LayerError, RasterFacts
from ..plugin.sink import SinkError
from ..plugin.texts import tr
from .base import REPORT, KestrelAlgorithm

INPUT = "INPUT"
EXTENT = "EXTENT"
AOI = "AOI"
OUTPUT = "OUTPUT"


class SceneChecks(KestrelAlgorithm):
    """Readings and refusals; a subclass says in :meth:`find_problem` what it looks at."""

    #: Polygon inputs by their ids; of an area of interest at least one polygon is wanted.
    POLYGONS: tuple[str, ...] = (AOI,)

    def problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Say what is wrong before the run, in one sentence, or return None."""
        try:
            return self.find_problem(parameters, context)
        except (LayerError, SinkError) as error:
            return str(error)

    def find_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Return a sentence or raise one as LayerError or SinkError; None means that all is well."""
        raise NotImplementedError

    def own_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Return what is wrong with the subclass's own parameters."""
        raise NotImplementedError

    def own_params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return the subclass's own Job params, keys in lower case."""
        raise NotImplementedError

    def device(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        """Return the Job's device."""
        return "auto"

    # --- rasters ---------------------------------------------------------------------------------

    def open_raster(
        self, parameters: dict[str, Any], name: str, context: QgsProcessingContext
    ) -> tuple[QgsRasterLayer, RasterFacts]:
        """Return a raster parameter's layer and header; raises LayerError with a sentence."""
        layer = self.parameterAsRasterLayer(parameters, name, context)
        if layer is None or not layer.isValid():
            if not given(parameters, name):
                raise LayerError(tr("{label}: choose a raster layer or file.").format(label=name))
            raise LayerError(layers.describe_unreadable(str(sidecar.plain(parameters[name])), name))
        source = layer.source()
        if source.lstrip().startswith("<") or (layer.providerType() == "gdal" and layers.is_remote(source)):
            raise LayerError(layers.describe_unreadable(source, name))
        facts = layers.raster_facts(layer, context.transformContext(), name)
        if not facts.bands:
            raise LayerError(
                tr("{label}: Raster has no readable band; choose one of its subdatasets.").format(label=name)
            )
        return layer, facts

    # --- numbers ---------------------------------------------------------------------------------

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
        return tr("{name} is {value:.10g}; it must lie between {low:.10g} and {high:.10g}.").format(
            name=name, value=value, low=low, high=high
        )

    # --- where -----------------------------------------------------------------------------------

    def extent_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Return what is wrong with EXTENT as text."""
        if not given(parameters, EXTENT):
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

    def polygon_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Return what is wrong with the polygon inputs."""
        for name in self.POLYGONS:
            if not given(parameters, name):
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

    def region(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return extent and area of interest in one CRS: the extent's, else the area's.

        The Job's fields ``extent``, ``aoi_wkt`` and ``crs_wkt``. Raises LayerError for an area without
        a polygon.
        """
        extent = QgsRectangle()
        crs = QgsCoordinateReferenceSystem()
        has_extent = given(parameters, EXTENT)
        if has_extent:
            extent = self.parameterAsExtent(parameters, EXTENT, context)
            crs = self.parameterAsExtentCrs(parameters, EXTENT, context)
        area = None
        if given(parameters, AOI):
            source = self.parameterAsSource(parameters, AOI, context)
            if not has_extent:
                crs = source.sourceCrs()
            area = layers.area_wkt(source, crs, context.transformContext())
        bounds = [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()]
        wkt = crs.toWkt(QgsCoordinateReferenceSystem.WktVariant.WKT_PREFERRED)
        return {
            "extent": bounds if has_extent else None,
            "aoi_wkt": area,
            "crs_wkt": wkt if (has_extent or area) and crs.isValid() else None,
        }

    # --- files -----------------------------------------------------------------------------------

    def polygon_files(
        self, parameters: dict[str, Any], names: Iterable[str], context: QgsProcessingContext
    ) -> dict[str, str]:
        """Return parameter -> path of the file behind each polygon layer that is given."""
        files = {}
        for name in names:
            if given(parameters, name):
                vector = self.parameterAsVectorLayer(parameters, name, context)
                files[name] = layers.layer_file(vector) if vector is not None else ""
        return files

    def typed_output(self, parameters: dict[str, Any], name: str, context: QgsProcessingContext) -> str:
        """Return what was typed for an output, "" for nothing, without opening anything."""
        value = parameters.get(name)
        if isinstance(value, QgsProcessingOutputLayerDefinition):
            value = value.sink
        if isinstance(value, QgsProperty):
            value = value.valueAsString(context.expressionContext(), "")[0]
        return str(value) if value else ""

    def report_path(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        """Return where the report goes, "" when none is asked for."""
        if not given(parameters, REPORT):
            return ""
        return self.parameterAsFileOutput(parameters, REPORT, context)


def given(parameters: dict[str, Any], name: str) -> bool:
    """Whether an optional parameter has a value; an empty text has none."""
    return parameters.get(name) not in (None, "")


def existing(files: dict[str, str]) -> dict[str, str]:
    """Return parameter -> real path of those ``files`` that exist."""
    return {name: os.path.realpath(path) for name, path in files.items() if os.path.exists(path)}
