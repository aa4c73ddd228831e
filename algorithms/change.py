"""The run that algorithms of two dates share: layers to a Job, the worker, rasters and guarded polygons.

The worker puts mask and probability at their final places itself, both at once when they are whole;
the polygons come in a scratch FlatGeobuf, and only then is their sink opened (CONTRACTS.md, section 5).
When that fails the rasters go too, and what they replaced comes back: all outputs appear, or none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from qgis.core import (
    Qgis,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import Qt

from ..engine.job import Job
from ..plugin import layers, settings, sidecar
from ..plugin.destination import Destination
from ..plugin.fields import change_table
from ..plugin.kept_files import KeptFiles
from ..plugin.raster_output import GuardedRasters, family, raster_destination
from ..plugin.raster_style import RasterStyler
from ..plugin.sink import Boxes, GuardedOutput, SinkError
from ..plugin.styles import Styler, static_style, store_style
from ..plugin.texts import tr
from ..plugin.worker import run_job
from .base import REPORT
from .change_checks import ChangeChecks
from .change_texts import (
    AFTER,
    ALIGN,
    BEFORE,
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
from .checks import AOI, given

STYLE = "change.qml"
#: Raster outputs by their ids: the name the worker knows each by, and its style.
RASTERS = {
    OUTPUT_MASK: ("mask", "change_mask.qml"),
    OUTPUT_PROBABILITY: ("probability", "change_probability.qml"),
}
#: The role of each date for the worker.
ROLES = {BEFORE: "before", AFTER: "after"}
#: What of the worker's figures the history holds beside that of every output.
FIGURES = (
    "stretch",
    "layers",
    "dates",
    "registration",
    "network_grid",
    "radiometry_matched",
    "change",
    "quality",
)


class ChangeAlgorithm(ChangeChecks):
    """Two dates of one ground in; polygons, mask and probability of change out."""

    def __init__(self) -> None:
        super().__init__()
        self._dates: dict[str, tuple[layers.RasterSource, list[int]]] = {}
        self._reference: layers.RasterSource | str | None = None
        self._zones = ""
        self._destination = Destination("memory", "")
        self._styler: Styler | None = None
        self._stylers: dict[str, RasterStyler] = {}

    def gather(
        self,
        layer: QgsRasterLayer,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> None:
        """Main thread: both dates with their bands, reference and destination."""
        for name, bands in self.DATES.items():
            date = self.parameterAsRasterLayer(parameters, name, context)
            self._dates[name] = (layers.RasterSource(date), self.bands(parameters, context, bands))
            self.warn_of_crs(date, layers.raster_facts(date, context.transformContext(), name), feedback)
        reference = self.reference(parameters, context)
        if isinstance(reference, QgsVectorLayer):
            self._reference = self._write_reference(parameters, context, feedback)
        elif reference is not None:
            self._reference = layers.RasterSource(reference)
        if given(parameters, AOI):
            self._zones = self._write_zones(parameters, context)
        self._destination = self.destination(parameters, context)
        self._styler = Styler(STYLE)
        for name, (_, style) in RASTERS.items():
            self._stylers[name] = RasterStyler()
            self._stylers[name].qml = static_style(style)

    def params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return the params that both algorithms have, and the subclass's own."""
        params: dict[str, Any] = {
            "match_radiometry": self.parameterAsBool(parameters, MATCH_RADIOMETRY, context),
            "align": self.parameterAsString(parameters, ALIGN, context),
            "threshold": self.number(parameters, THRESHOLD, context),
            "min_area": self.number(parameters, MIN_AREA, context),
            "simplify": self.number(parameters, SIMPLIFY, context),
            "regularise": self.parameterAsBool(parameters, REGULARISE, context),
            "tile": self.parameterAsInt(parameters, TILE, context),
            "overlap": self.parameterAsInt(parameters, OVERLAP, context),
            "memory_mb": settings.memory_mb(),
        }
        for name, numbers in zip((STRETCH_MIN, STRETCH_MAX), self.stretch(parameters, context)):
            if numbers:
                params[name.lower()] = numbers
        for name, role in ROLES.items():
            date = layer_date(self.parameterAsRasterLayer(parameters, name, context))
            if date:
                params[f"date_{role}"] = date
        return {**params, **self.own_params(parameters, context)}

    def run_prepared(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run the worker, then leave styles and history, and write the polygons under guard."""
        parameters = self.with_endings(parameters, context)
        rasters = self.asked_rasters(RASTERS, parameters, context)
        places = {name: raster_destination(place) for name, place in rasters.items()}
        families = [family(place.path) for place in places.values()]
        if self._report:
            families.append([os.path.realpath(self._report)])
        with GuardedOutput(self._destination, OUTPUT) as guard, GuardedRasters(places, self._report):
            with KeptFiles(families) as kept:  # without its polygons no raster stays either
                result = run_job(self._build_job(places, feedback), feedback)
                content = self.history(result, FIGURES)
                for name, place in places.items():
                    self.leave_beside(name, place, self._stylers[name].qml, content, feedback)
                found = Boxes(result["outputs"]["polygons"], change_table())
                written = self._write_polygons(guard, found, content, parameters, context, feedback)
                kept.commit()
        feedback.pushInfo(tr("{count} polygon(s) of change found.").format(count=len(found)))
        if self._destination.on_disk:
            feedback.pushInfo(tr("History: {path}").format(path=self._destination.sidecar))
        stylers = {written: self._styler, **{place: self._stylers[name] for name, place in rasters.items()}}
        for place, styler in stylers.items():
            if context.willLoadLayerOnCompletion(place):
                context.layerToLoadOnCompletionDetails(place).setPostProcessor(styler)
        outputs = {OUTPUT: written, **rasters}
        return {**outputs, REPORT: self._report} if self._report else outputs

    def _build_job(self, places: Mapping[str, Destination], feedback: QgsProcessingFeedback) -> Job:
        inputs: dict[str, dict[str, Any]] = {}
        for name, (source, bands) in self._dates.items():
            inputs[ROLES[name]] = {
                "path": source.resolve(self._folder(ROLES[name]), feedback),
                "bands": bands,
            }
        if isinstance(self._reference, str):
            inputs["reference"] = {"path": self._reference}
        elif self._reference is not None:
            path = self._reference.resolve(self._folder("reference"), feedback)
            inputs["reference"] = {"path": path, "bands": [1]}
        if self._zones:
            inputs["zones"] = {"path": self._zones}
        outputs = {"polygons": os.path.join(self._scratch, "polygons.fgb")}
        for name, (role, _) in RASTERS.items():
            # the polygons are made from both rasters, wanted or not
            unwanted = os.path.join(self._scratch, f"{role}.tif")
            outputs[role] = places[name].path if name in places else unwanted
        if self._report:
            outputs["report"] = os.path.realpath(self._report)
        return self.build_job(inputs, outputs)

    def _folder(self, name: str) -> str:
        """Return a folder of its own in scratch: two layers may be called alike."""
        folder = os.path.join(self._scratch, name)
        os.makedirs(folder, exist_ok=True)
        return folder

    def _write_reference(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> str:
        """Write the polygons of REFERENCE to scratch and return the path."""
        source = self.parameterAsSource(parameters, REFERENCE, context)
        # log, history and report call it by the file's name
        name = re.sub(r"[^\w-]+", "_", source.sourceName())[:60] or "reference"
        path = os.path.join(self._folder("reference"), f"{name}.fgb")
        self.copy_polygons(source, path, REFERENCE, context, feedback)
        return path

    def _write_zones(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        """Write the polygons of AOI to scratch, named as QGIS labels them, and return the path."""
        source = self.parameterAsSource(parameters, AOI, context)
        layer = self.parameterAsVectorLayer(parameters, AOI, context)
        shown = layer.displayField() if layer is not None else ""
        names = [field for field in source.fields().names() if field == shown or field.lower() == "name"]
        path = os.path.join(self._folder("zones"), "zones.fgb")
        field = shown if shown in names else (names or [""])[0]
        layers.write_polygons(source, path, context.transformContext(), AOI, field)
        return path

    def _write_polygons(
        self,
        guard: GuardedOutput,
        found: Boxes,
        content: Mapping[str, Any],
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> str:
        """Copy the polygons into the sink with style and history; return the layer's id."""
        try:
            written = self.fill_sink(guard, found, change_table(), parameters, context, feedback)
            store_style(self._destination, written, STYLE)
            if self._destination.on_disk:
                sidecar.write_sidecar(self._destination.sidecar, content)
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise SinkError(
                tr("{label}: {path} could not be written ({reason}); what was there stays.").format(
                    label=OUTPUT, path=self._destination.path, reason=reason
                )
            ) from error
        guard.commit()
        return written


def layer_date(layer: QgsRasterLayer) -> str:
    """Return when a layer was taken by its temporal settings, as ISO text, "" where they do not say."""
    times = layer.temporalProperties()
    if not times.isActive() or times.mode() != Qgis.RasterTemporalMode.FixedTemporalRange:
        return ""
    begin = times.fixedTemporalRange().begin()
    return begin.toString(Qt.DateFormat.ISODate) if begin.isValid() else ""
