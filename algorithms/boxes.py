"""The run that detectors of boxes share: layers to a Job, the worker, the guarded output.

The worker finds the boxes and writes them to a scratch FlatGeobuf; only then is the sink opened
(CONTRACTS.md, section 5).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from typing import Any, ClassVar

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


class BoxAlgorithm(BoxChecks):
    """A detector whose answer is a layer of boxes."""

    MODEL = ""
    #: Pixel size in metres above which this side warns; None where the weights' card has the say.
    COARSE_M: ClassVar[float | None] = None

    def __init__(self) -> None:
        super().__init__()
        self._scratch = ""
        self._job: dict[str, Any] = {}
        self._raster: layers.RasterSource | None = None
        self._typed: dict[str, Any] = {}
        self._files: list[dict[str, Any]] = []
        self._destination = Destination("memory", "")
        self._report = ""
        self._styler: Styler | None = None
        self._warnings: list[str] = []

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
            self._look(layer, layers.raster_facts(layer, context.transformContext()), feedback)
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
        self._files = sidecar.stamps(self.input_files(layer, parameters, context))
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
        except QgsProcessingException:
            raise
        except Exception as error:
            # any other exception that leaves a virtual method crashes QGIS 3.22 later (observed)
            feedback.reportError(traceback.format_exc())
            raise QgsProcessingException(
                tr("Unexpected {kind}: {error}. Nothing was written; please report it with the log.").format(
                    kind=type(error).__name__, error=error
                )
            ) from None
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _run(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        with GuardedOutput(self._destination, OUTPUT) as guard:
            result = run_job(self._build_job(feedback), feedback)
            warnings = [*self._warnings, *result.get("warnings", [])]
            figures = result.get("figures", {})
            inputs = sidecar.all_inputs(self._files, figures.get("inputs") or [], self._scratch)
            content = sidecar.provenance(self.id(), self._typed, inputs, figures, warnings)
            boxes = Boxes(result["outputs"]["boxes"])
            try:
                written = self._write(guard, boxes, parameters, context, feedback)
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
        if not crs.isValid() and self._destination.kind == "memory":
            # QGIS gives a memory layer without a CRS EPSG:4326, which would put pixels on the map
            QgsProcessingUtils.mapLayerFromString(written, context).setCrs(crs)
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
        has_extent = parameters.get(EXTENT) not in (None, "")
        if has_extent:
            extent = self.parameterAsExtent(parameters, EXTENT, context)
            crs = self.parameterAsExtentCrs(parameters, EXTENT, context)
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
            self._warn(
                tr("LAND_MASK: {count} feature(s) without a usable polygon were skipped.").format(
                    count=skipped
                ),
                feedback,
            )
        if not written:
            self._warn(tr("LAND_MASK holds no polygon, so no land is masked."), feedback)
        return path if written else ""

    def _warn(self, text: str, feedback: QgsProcessingFeedback) -> None:
        """Say what the worker cannot know; the sidecar keeps it beside the worker's own warnings."""
        self._warnings.append(text)
        feedback.pushWarning(text)

    def _look(self, layer: QgsRasterLayer, facts: RasterFacts, feedback: QgsProcessingFeedback) -> None:
        if facts.pixel_m is not None and self.COARSE_M is not None and facts.pixel_m > self.COARSE_M:
            self._warn(
                tr("Pixel size is {size:.4g} m; above {limit:g} m most ships do not show.").format(
                    size=facts.pixel_m, limit=self.COARSE_M
                ),
                feedback,
            )
        if not facts.has_crs and layer.crs().isValid():
            self._warn(
                tr(
                    "The CRS {crs} is set in QGIS but not stored in the file, so it is not used; "
                    "assign the projection to the file."
                ).format(crs=layer.crs().authid()),
                feedback,
            )


def _unwritten(label: str, path: str, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return tr("{label}: {path} could not be written ({reason}); nothing was changed.").format(
        label=label, path=path, reason=reason
    )
