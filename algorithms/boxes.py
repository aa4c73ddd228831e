"""The run that detectors of boxes share: layers to a Job, the worker, the guarded output.

The worker finds the boxes and writes them to a scratch FlatGeobuf; only then is the sink opened
(CONTRACTS.md, section 5).
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsRasterLayer,
)

from ..engine.job import Job
from ..plugin import layers, sidecar
from ..plugin.destination import Destination
from ..plugin.fields import field_table
from ..plugin.layers import RasterFacts
from ..plugin.sink import Boxes, GuardedOutput, SinkError
from ..plugin.styles import Styler, store_style
from ..plugin.texts import tr
from ..plugin.worker import run_job
from .base import REPORT
from .box_checks import BoxChecks
from .box_texts import (
    BAND,
    COUNT,
    LAND_BUFFER,
    LAND_MASK,
    MAX_LENGTH,
    MIN_LENGTH,
    OUTPUT,
    SCALE_MAX,
    SCALE_MIN,
    SCALE_MODE,
)
from .checks import given

STYLE = "ships.qml"


class BoxAlgorithm(BoxChecks):
    """A detector whose answer is a layer of boxes."""

    #: Pixel size in metres above which this side warns; None where the weights' card has the say.
    COARSE_M: ClassVar[float | None] = None

    def __init__(self) -> None:
        super().__init__()
        self._band = 1
        self._land = ""
        self._destination = Destination("memory", "")
        self._styler: Styler | None = None

    def gather(
        self,
        layer: QgsRasterLayer,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> None:
        """Main thread: band, land mask and destination; warn of what only QGIS knows."""
        self._look(layer, layers.raster_facts(layer, context.transformContext()), feedback)
        self._band = self.parameterAsInt(parameters, BAND, context)
        self._land = self._write_land(parameters, context, feedback)
        self._destination = self.destination(parameters, context)
        self._styler = Styler(STYLE)

    def run_prepared(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run the worker, then write the output under guard."""
        with GuardedOutput(self._destination, OUTPUT) as guard:
            result = run_job(self._build_job(feedback), feedback)
            content = self.provenance(result.get("figures", {}), result.get("warnings", []))
            boxes = Boxes(result["outputs"]["boxes"])
            try:
                written = self.fill_sink(guard, boxes, field_table(), parameters, context, feedback)
                store_style(self._destination, written, STYLE)
                if self._destination.on_disk:
                    sidecar.write_sidecar(self._destination.sidecar, content)
            except (OSError, RuntimeError) as error:
                raise SinkError(_unwritten(OUTPUT, self._destination.path, error)) from error
            if self._report:
                try:
                    sidecar.copy_file(result["outputs"]["report"], self._report)
                except OSError as error:
                    raise SinkError(_unwritten(REPORT, self._report, error)) from error
            guard.commit()
        feedback.pushInfo(tr("{count} ship(s) found.").format(count=len(boxes)))
        if self._destination.on_disk:
            feedback.pushInfo(tr("History: {path}").format(path=self._destination.sidecar))
        if context.willLoadLayerOnCompletion(written):
            context.layerToLoadOnCompletionDetails(written).setPostProcessor(self._styler)
        outputs = {OUTPUT: written, COUNT: len(boxes)}
        return {**outputs, REPORT: self._report} if self._report else outputs

    def _build_job(self, feedback: QgsProcessingFeedback) -> Job:
        assert self._raster is not None
        path = self._raster.resolve(self._scratch, feedback)
        inputs: dict[str, dict[str, Any]] = {"image": {"path": path, "bands": [self._band]}}
        if self._land:
            inputs["land"] = {"path": self._land}
        outputs = {"boxes": os.path.join(self._scratch, "boxes.fgb")}
        if self._report:
            outputs["report"] = os.path.join(self._scratch, "report.html")
        return self.build_job(inputs, outputs)

    def params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return the params that all detectors have, and the subclass's own."""
        return {
            "scale_mode": self.parameterAsString(parameters, SCALE_MODE, context),
            "scale_min": self.number(parameters, SCALE_MIN, context),
            "scale_max": self.number(parameters, SCALE_MAX, context),
            "land_buffer": self.number(parameters, LAND_BUFFER, context),
            "min_length": self.number(parameters, MIN_LENGTH, context),
            "max_length": self.number(parameters, MAX_LENGTH, context),
            **self.own_params(parameters, context),
        }

    def _write_land(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> str:
        """Write the land mask to scratch and return its path, "" without one."""
        if not given(parameters, LAND_MASK):
            return ""
        source = self.parameterAsSource(parameters, LAND_MASK, context)
        path = os.path.join(self._scratch, "land.fgb")
        written = self.copy_polygons(source, path, LAND_MASK, context, feedback)
        if not written:
            self.warn(tr("LAND_MASK holds no polygon, so no land is masked."), feedback)
        return path if written else ""

    def _look(self, layer: QgsRasterLayer, facts: RasterFacts, feedback: QgsProcessingFeedback) -> None:
        if facts.pixel_m is not None and self.COARSE_M is not None and facts.pixel_m > self.COARSE_M:
            self.warn(
                tr("Pixel size is {size:.4g} m; above {limit:g} m most ships do not show.").format(
                    size=facts.pixel_m, limit=self.COARSE_M
                ),
                feedback,
            )
        self.warn_of_crs(layer, facts, feedback)


def _unwritten(label: str, path: str, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return tr("{label}: {path} could not be written ({reason}); nothing was changed.").format(
        label=label, path=path, reason=reason
    )
