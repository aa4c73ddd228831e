"""The run that algorithms on a scene share: layers to plain data, errors to sentences, a Job.

What a virtual method lets out besides QgsProcessingException crashes QGIS 3.22 later (observed), so
everything a run may raise becomes a sentence here.
"""

from __future__ import annotations

import shutil
import tempfile
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsProcessingUtils,
    QgsRasterLayer,
    QgsWkbTypes,
)
from qgis.PyQt import sip

from ..engine.job import Job
from ..plugin import layers, raster_style, sidecar
from ..plugin.destination import Destination
from ..plugin.errors import WorkerCancelled, WorkerError
from ..plugin.fields import FieldTable
from ..plugin.layers import LayerError, RasterFacts
from ..plugin.raster_output import style_path
from ..plugin.sink import Boxes, GuardedOutput, SinkError, sink_fields, verify
from ..plugin.texts import tr
from .checks import INPUT, SceneChecks


class SceneAlgorithm(SceneChecks):
    """A subclass gathers plain data in the main thread and runs in another."""

    MODEL = ""
    #: The raster whose layer is prepared; a subclass that reads several sees to the others in gather().
    MAIN = INPUT

    def __init__(self) -> None:
        super().__init__()
        self._scratch = ""
        self._job: dict[str, Any] = {}
        self._raster: layers.RasterSource | None = None
        self._typed: dict[str, Any] = {}
        self._files: list[dict[str, Any]] = []
        self._report = ""
        self._warnings: list[str] = []

    def gather(
        self,
        layer: QgsRasterLayer,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> None:
        """Main thread: keep of the subclass's parameters what the run needs; raises LayerError."""
        raise NotImplementedError

    def params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return the Job's params."""
        raise NotImplementedError

    def input_files(
        self, layer: QgsRasterLayer, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> dict[str, str]:
        """Return parameter -> real path of the files behind the layers that are read."""
        raise NotImplementedError

    def run_prepared(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run the worker and finish the outputs; returns them by id."""
        raise NotImplementedError

    def prepareAlgorithm(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> bool:
        """Main thread: turn layers into plain data, so that the run touches no layer."""
        self.refuse(parameters, context)
        layer = self.parameterAsRasterLayer(parameters, self.MAIN, context)
        self._scratch = tempfile.mkdtemp(prefix="kestrel-", dir=QgsProcessingUtils.tempFolder())
        try:
            self._raster = layers.RasterSource(layer)
            self._job = {
                "params": self.params(parameters, context),
                "device": self.device(parameters, context),
                **self.region(parameters, context),
            }
            self.gather(layer, parameters, context, feedback)
        except LayerError as error:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise QgsProcessingException(str(error)) from None
        self.remember(layer, parameters, context)
        return True

    def remember(
        self, layer: QgsRasterLayer | None, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> None:
        """Main thread: keep what the history tells of the parameters and files, and the report's path."""
        self._typed = {
            definition.name(): sidecar.plain(parameters.get(definition.name(), definition.defaultValue()))
            for definition in self.parameterDefinitions()
        }
        self._files = sidecar.stamps(self.input_files(layer, parameters, context))
        self._report = self.report_path(parameters, context)

    def processAlgorithm(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> dict[str, Any]:
        """Run; raises QgsProcessingException and nothing else."""
        try:
            return self.run_prepared(parameters, context, feedback)
        except WorkerCancelled:
            raise QgsProcessingException(tr("Cancelled; nothing was written.")) from None
        except WorkerError as error:
            raise QgsProcessingException(error.text()) from None
        except (SinkError, LayerError) as error:
            raise QgsProcessingException(str(error)) from None
        except QgsProcessingException:
            raise
        except Exception as error:
            feedback.reportError(traceback.format_exc())
            raise QgsProcessingException(
                tr("Unexpected {kind}: {error}. Nothing was written; please report it with the log.").format(
                    kind=type(error).__name__, error=error
                )
            ) from None
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def copy_polygons(
        self,
        source: QgsProcessingFeatureSource,
        path: str,
        label: str,
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> int:
        """Main thread: write the polygons of parameter ``label`` to ``path``, return how many.

        Warns of those that are skipped; raises LayerError.
        """
        written, skipped = layers.write_polygons(source, path, context.transformContext(), label)
        if skipped:
            self.warn(
                tr("{label}: {count} feature(s) without a usable polygon were skipped.").format(
                    label=label, count=skipped
                ),
                feedback,
            )
        return written

    def fill_sink(
        self,
        guard: GuardedOutput,
        found: Boxes,
        table: FieldTable,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> str:
        """Copy what the worker found into the guard's output; return the layer's id.

        Sets the old output aside, opens the sink, copies, closes and reads again; raises SinkError.
        """
        fields = sink_fields(table)
        crs = QgsCoordinateReferenceSystem()
        if found.crs_wkt:
            crs = QgsCoordinateReferenceSystem.fromWkt(found.crs_wkt)
        guard.set_aside()
        sink, written = self.parameterAsSink(
            parameters, guard.label, context, fields, QgsWkbTypes.Type.Polygon, crs
        )
        if sink is None:
            raise SinkError(self.invalidSinkError(parameters, guard.label))
        try:
            count = found.copy_to(sink, fields, feedback)
        finally:
            # closes the file now; a plain del would leave it open while an error travels up,
            # and the guard would put the old file back under an open one
            sip.delete(sink)
        verify(guard.destination, written, count)
        if not crs.isValid() and guard.destination.kind == "memory":
            # QGIS gives a memory layer without a CRS EPSG:4326, which would put pixels on the map
            QgsProcessingUtils.mapLayerFromString(written, context).setCrs(crs)
        return written

    def asked_rasters(
        self, names: Iterable[str], parameters: dict[str, Any], context: QgsProcessingContext
    ) -> dict[str, str]:
        """Return the raster outputs among ``names`` that are asked for, with their places in QGIS's words."""
        places = {name: self.parameterAsOutputLayer(parameters, name, context) for name in names}
        return {name: place for name, place in places.items() if place}

    def history(self, result: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """Return the sidecar's content for the worker's ``result``, with those figures called ``names``."""
        figures = result.get("figures", {})
        content = self.provenance(figures, result.get("warnings", []))
        return {**content, **{name: figures[name] for name in names if name in figures}}

    def leave_beside(
        self,
        label: str,
        place: Destination,
        qml: str,
        content: Mapping[str, Any],
        feedback: QgsProcessingFeedback,
    ) -> None:
        """Write style ("" = none) and history; without them a raster is still whole, so that only warns."""
        path = style_path(place.path)
        try:
            if qml and raster_style.is_ours(path):
                sidecar.write_text(path, qml)
            path = place.sidecar
            sidecar.write_sidecar(path, content)
        except OSError as error:
            raster_style.forget(place.sidecar, style_path(place.path))
            feedback.pushWarning(
                tr("{label} is complete, but {path} could not be written ({reason}).").format(
                    label=label, path=path, reason=error.strerror or error
                )
            )
            return
        feedback.pushInfo(tr("History: {path}").format(path=place.sidecar))

    def build_job(self, inputs: dict[str, dict[str, Any]], outputs: dict[str, str]) -> Job:
        """Return the Job for what was gathered."""
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

    def provenance(self, figures: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
        """Return the sidecar's content for a finished run."""
        inputs = sidecar.all_inputs(self._files, figures.get("inputs") or [], self._scratch)
        return sidecar.provenance(self.id(), self._typed, inputs, figures, [*self._warnings, *warnings])

    def warn(self, text: str, feedback: QgsProcessingFeedback) -> None:
        """Say what the worker cannot know; the sidecar keeps it beside the worker's own warnings."""
        self._warnings.append(text)
        feedback.pushWarning(text)

    def warn_of_crs(self, layer: QgsRasterLayer, facts: RasterFacts, feedback: QgsProcessingFeedback) -> None:
        """Warn of a CRS that only QGIS knows: the worker reads the file."""
        if not facts.has_crs and layer.crs().isValid():
            self.warn(
                tr(
                    "The CRS {crs} is set in QGIS but not stored in the file, so it is not used; "
                    "assign the projection to the file."
                ).format(crs=layer.crs().authid()),
                feedback,
            )
