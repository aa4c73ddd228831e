"""The run that detectors of boxes share: layers to a Job, the worker, the guarded output.

The worker finds the boxes and writes them to a scratch FlatGeobuf; only then is the sink opened
(CONTRACTS.md, section 5).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingUtils,
    QgsRasterLayer,
    QgsRectangle,
    QgsWkbTypes,
)
from qgis.PyQt import sip

from ..engine.job import Job
from ..plugin import layers, sidecar
from ..plugin.destination import Destination
from ..plugin.errors import WorkerCancelled, WorkerError
from ..plugin.layers import LayerError, RasterFacts
from ..plugin.sink import Boxes, GuardedOutput, SinkError, sink_fields, verify
from ..plugin.styles import Styler, store_style
from ..plugin.texts import tr
from ..plugin.worker import run_job
from .base import REPORT
from .box_checks import BoxChecks
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
)

STYLE = "ships.qml"

#: The spec's limit (section 10): the models were made for 0.5 to 10 m, 20 m still shows large ships.
COARSE_M = 20.0


class BoxAlgorithm(BoxChecks):
    """A detector whose answer is a layer of boxes."""

    MODEL = ""

    def __init__(self) -> None:
        super().__init__()
        self._scratch = ""
        self._job: dict[str, Any] = {}
        self._raster: layers.RasterSource | None = None
        self._typed: dict[str, Any] = {}
        self._destination = Destination("memory", "")
        self._report = ""
        self._styler: Styler | None = None

    def prepareAlgorithm(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> bool:
        """Main thread: turn layers into plain data, so that the run touches no layer."""
        self.refuse(parameters, context)
        layer = self.parameterAsRasterLayer(parameters, INPUT, context)
        self._scratch = tempfile.mkdtemp(prefix="kestrel-", dir=QgsProcessingUtils.tempFolder())
        try:
            self._warn(layer, layers.raster_facts(layer, context.transformContext()), feedback)
            self._raster = layers.RasterSource(layer)
            self._job = {
                "params": self._params(parameters, context),
                "land": self._land(parameters, context, feedback),
                "device": self.device(parameters, context),
                "band": self.parameterAsInt(parameters, BAND, context),
                **self._region(parameters, context),
            }
        except LayerError as error:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise QgsProcessingException(str(error)) from None
        self._typed = {
            definition.name(): sidecar.plain(parameters.get(definition.name(), definition.defaultValue()))
            for definition in self.parameterDefinitions()
        }
        self._destination = self.destination(parameters, context)
        self._report = self.report_path(parameters, context)
        self._styler = Styler(STYLE)
        return True

    def processAlgorithm(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> dict[str, Any]:
        """Run the worker, then write the output under guard; raises QgsProcessingException."""
        try:
            return self._run(parameters, context, feedback)
        except WorkerCancelled:
            raise QgsProcessingException(tr("Cancelled; nothing was written.")) from None
        except WorkerError as error:
            raise QgsProcessingException(error.text()) from None
        except (SinkError, LayerError) as error:
            raise QgsProcessingException(str(error)) from None
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _run(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        with GuardedOutput(self._destination, OUTPUT) as guard:
            result = run_job(self._build_job(feedback), feedback)
            content = sidecar.provenance(
                self.id(), self._typed, result.get("figures", {}), result.get("warnings", [])
            )
            boxes = Boxes(result["outputs"]["boxes"])
            try:
                written = self._write(guard, boxes, parameters, context, feedback)
                store_style(self._destination, written, STYLE)
                if self._destination.on_disk:
                    sidecar.write_sidecar(self._destination.sidecar, content)
                if self._report:
                    sidecar.copy_file(result["outputs"]["report"], self._report)
            except (OSError, RuntimeError) as error:
                raise SinkError(
                    tr("{path} could not be written ({reason}).").format(
                        path=self._destination.path or self._report, reason=error
                    )
                ) from error
            guard.commit()
        feedback.pushInfo(tr("{count} ship(s) found.").format(count=len(boxes)))
        if self._destination.on_disk:
            feedback.pushInfo(tr("History: {path}").format(path=self._destination.sidecar))
        if context.willLoadLayerOnCompletion(written):
            context.layerToLoadOnCompletionDetails(written).setPostProcessor(self._styler)
        outputs = {OUTPUT: written, COUNT: len(boxes)}
        return {**outputs, REPORT: self._report} if self._report else outputs

    def _write(
        self,
        guard: GuardedOutput,
        boxes: Boxes,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> str:
        """Set the old output aside, open the sink, copy, close, read again; return the layer's id."""
        fields = sink_fields()
        crs = QgsCoordinateReferenceSystem()
        if boxes.crs_wkt:
            crs = QgsCoordinateReferenceSystem.fromWkt(boxes.crs_wkt)
        guard.set_aside()
        sink, written = self.parameterAsSink(
            parameters, OUTPUT, context, fields, QgsWkbTypes.Type.Polygon, crs
        )
        if sink is None:
            raise SinkError(self.invalidSinkError(parameters, OUTPUT))
        try:
            count = boxes.copy_to(sink, fields, feedback)
        finally:
            # closes the file now; a plain del would leave it open while an error travels up,
            # and the guard would put the old file back under an open one
            sip.delete(sink)
        verify(self._destination, written, count)
        return written

    def _build_job(self, feedback: QgsProcessingFeedback) -> Job:
        assert self._raster is not None
        path = self._raster.resolve(self._scratch, feedback)
        inputs: dict[str, dict[str, Any]] = {"image": {"path": path, "bands": [self._job["band"]]}}
        if self._job["land"]:
            inputs["land"] = {"path": self._job["land"]}
        outputs = {"boxes": os.path.join(self._scratch, "boxes.fgb")}
        if self._report:
            outputs["report"] = os.path.join(self._scratch, "report.html")
        return Job(
            kind="predict",
            model=self.MODEL,
            inputs=inputs,
            outputs=outputs,
            params=self._job["params"],
            scratch=self._scratch,
            device=self._job["device"],
            extent=self._job["extent"],
            aoi_wkt=self._job["aoi_wkt"],
            crs_wkt=self._job["crs_wkt"],
        )

    def _params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        return {
            "scale_mode": self.parameterAsString(parameters, SCALE_MODE, context),
            "scale_min": self.number(parameters, SCALE_MIN, context),
            "scale_max": self.number(parameters, SCALE_MAX, context),
            "land_buffer": self.number(parameters, LAND_BUFFER, context),
            "min_length": self.number(parameters, MIN_LENGTH, context),
            "max_length": self.number(parameters, MAX_LENGTH, context),
            **self.own_params(parameters, context),
        }

    def _region(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return extent and area of interest in one CRS: the extent's, else the area's."""
        extent = QgsRectangle()
        crs = QgsCoordinateReferenceSystem()
        if parameters.get(EXTENT) not in (None, ""):
            extent = self.parameterAsExtent(parameters, EXTENT, context)
            crs = self.parameterAsExtentCrs(parameters, EXTENT, context)
        has_extent = not extent.isNull() and not extent.isEmpty()
        area = None
        if parameters.get(AOI) not in (None, ""):
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

    def _land(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> str:
        """Write the land mask to scratch and return its path, "" without one."""
        if parameters.get(LAND_MASK) in (None, ""):
            return ""
        source = self.parameterAsSource(parameters, LAND_MASK, context)
        path = os.path.join(self._scratch, "land.fgb")
        written, skipped = layers.write_polygons(source, path, context.transformContext())
        if skipped:
            feedback.pushWarning(
                tr("LAND_MASK: {count} feature(s) without a usable polygon were skipped.").format(
                    count=skipped
                )
            )
        if not written:
            feedback.pushWarning(tr("LAND_MASK holds no polygon, so no land is masked."))
        return path if written else ""

    def _warn(self, layer: QgsRasterLayer, facts: RasterFacts, feedback: QgsProcessingFeedback) -> None:
        if facts.looks_optical:
            feedback.pushWarning(
                tr("{name} looks like an optical colour picture; the model expects SAR data.").format(
                    name=layer.name()
                )
            )
        if facts.pixel_m is not None and facts.pixel_m > COARSE_M:
            feedback.pushWarning(
                tr("Pixel size is {size:.4g} m; the model was trained on 0.5-10 m.").format(
                    size=facts.pixel_m
                )
            )
        if not facts.has_crs and layer.crs().isValid():
            feedback.pushWarning(
                tr(
                    "The CRS {crs} is set in QGIS but not stored in the file, so it is not used; "
                    "assign the projection to the file."
                ).format(crs=layer.crs().authid())
            )
        elif not facts.has_crs:
            feedback.pushWarning(tr("Layer has no CRS; outputs cannot be georeferenced."))
