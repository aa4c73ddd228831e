"""The run that raster-to-raster algorithms share: layers to a Job, the worker, style and history.

The worker writes the outputs at their final places itself, all of them at once when they are whole
(CONTRACTS.md, section 5); what lies beside them is left here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingFeedback, QgsRasterLayer

from ..engine.job import Job
from ..plugin import layers, raster_style, settings
from ..plugin.destination import Destination
from ..plugin.errors import WorkerCancelled, WorkerError
from ..plugin.raster_output import GuardedRasters, raster_destination, style_path
from ..plugin.raster_style import RasterStyler, Stretch
from ..plugin.sink import SinkError
from ..plugin.texts import tr
from ..plugin.worker import run_job
from .base import REPORT
from .checks import given
from .raster_checks import RasterChecks
from .raster_texts import (
    COPY,
    OTHER_BANDS,
    OUTPUT,
    OUTPUT_HAZE,
    OVERLAP,
    REFERENCE,
    STRENGTH,
    STRETCH_MAX,
    STRETCH_MIN,
    TILE,
)

#: Raster outputs by their ids, with the names the worker knows them by.
OUTPUTS = {OUTPUT: "raster", OUTPUT_HAZE: "haze"}

#: What of the worker's figures the history of a raster holds beside that of every output.
FIGURES = ("stretch", "bands", "output_bands", "haze_range", "quality")


class RasterAlgorithm(RasterChecks):
    """A restoration: the same raster, better."""

    def __init__(self) -> None:
        super().__init__()
        self._bands: list[int] = []
        self._copied = True
        self._reference: layers.RasterSource | None = None
        self._shown: Stretch | None = None
        self._stylers: dict[str, RasterStyler] = {}

    def gather(
        self,
        layer: QgsRasterLayer,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> None:
        """Main thread: bands, reference, and how the input looks in the project."""
        facts = layers.raster_facts(layer, context.transformContext())
        self.warn_of_crs(layer, facts, feedback)
        self._bands = self.bands(parameters, context)
        self._copied = self.parameterAsString(parameters, OTHER_BANDS, context) == COPY
        others = facts.bands - len(facts.alpha_bands) - 3
        if self._copied and others > 0:
            self.warn(
                tr(
                    "{count} other band(s) are copied as they are: they were not dehazed, and indices across "
                    "dehazed and copied bands are not comparable."
                ).format(count=others),
                feedback,
            )
        if given(parameters, REFERENCE):
            self._reference = layers.RasterSource(self.parameterAsRasterLayer(parameters, REFERENCE, context))
        project = context.project()
        if project is not None and project.mapLayer(layer.id()) is not None:
            # a layer that Processing opened itself has only the stretch that QGIS gives to all
            self._shown = raster_style.layer_stretch(layer)
        self._stylers = {name: RasterStyler() for name in OUTPUTS}

    def params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return the params that all restorations have, and the subclass's own."""
        params: dict[str, Any] = {
            "other_bands": self.parameterAsString(parameters, OTHER_BANDS, context),
            "strength": self.number(parameters, STRENGTH, context),
            "tile": self.parameterAsInt(parameters, TILE, context),
            "overlap": self.parameterAsInt(parameters, OVERLAP, context),
            "memory_mb": settings.memory_mb(),
        }
        for name, numbers in zip((STRETCH_MIN, STRETCH_MAX), self.stretch(parameters, context)):
            if numbers:
                params[name.lower()] = numbers
        return {**params, **self.own_params(parameters, context)}

    def run_prepared(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run the worker, then leave style and history beside what it wrote."""
        parameters = self.with_endings(parameters, context)
        written = self.asked_rasters(OUTPUTS, parameters, context)
        places = {name: raster_destination(place) for name, place in written.items()}
        with GuardedRasters(places, self._report) as guard:
            try:
                result = run_job(self._build_job(places, feedback), feedback)
            except (WorkerCancelled, WorkerError) as error:
                replaced = guard.replaced()
                for place in replaced:  # style and history of the raster that lay there before
                    raster_style.forget(place.sidecar, style_path(place.path))
                if replaced and isinstance(error, WorkerCancelled):
                    raise SinkError(_too_late(replaced)) from None
                raise
            figures = result.get("figures", {})
            content = self.history(result, FIGURES)
            for name, place in places.items():
                qml, self._stylers[name].qml = self._styles(name, place.path, figures)
                self.leave_beside(name, place, qml, content, feedback)
        for line in _quality_lines(figures.get("quality")):
            feedback.pushInfo(line)
        for name, place in written.items():
            if context.willLoadLayerOnCompletion(place):
                context.layerToLoadOnCompletionDetails(place).setPostProcessor(self._stylers[name])
        return {**written, REPORT: self._report} if self._report else written

    def _build_job(self, places: Mapping[str, Destination], feedback: QgsProcessingFeedback) -> Job:
        assert self._raster is not None
        path = self._raster.resolve(self._scratch, feedback)
        inputs: dict[str, dict[str, Any]] = {"image": {"path": path, "bands": self._bands}}
        if self._reference is not None:
            folder = os.path.join(self._scratch, "reference")
            os.makedirs(folder)
            inputs["reference"] = {"path": self._reference.resolve(folder, feedback), "bands": []}
        outputs = {OUTPUTS[name]: place.path for name, place in places.items()}
        if self._report:
            outputs["report"] = os.path.realpath(self._report)
        return self.build_job(inputs, outputs)

    def _styles(self, name: str, path: str, figures: dict[str, Any]) -> tuple[str, str]:
        """Return an output's style as stored and as shown in this QGIS, "" where there is none."""
        if name == OUTPUT_HAZE:
            haze = raster_style.haze_style(figures.get("haze_range"))
            return haze, haze
        stored = raster_style.result_stretch(figures)
        shown = raster_style.same_look(self._shown, figures, self._copied) or stored
        alpha = raster_style.alpha_band(path)
        texts = [raster_style.colour_style(each, alpha) if each else "" for each in (stored, shown)]
        return texts[0], texts[1]


def _quality_lines(quality: Any) -> list[str]:
    """Return what the comparison with the reference found, for the log."""
    if not isinstance(quality, Mapping):
        return []
    lines = []
    for key, text in (("input", tr("before")), ("output", tr("after"))):
        found = quality.get(key) or {}
        psnr, ssim = found.get("psnr"), found.get("ssim")
        if psnr is not None and ssim is not None:
            lines.append(
                tr("Against REFERENCE {when}: PSNR {psnr:.2f} dB, SSIM {ssim:.4f}.").format(
                    when=text, psnr=psnr, ssim=ssim
                )
            )
    return lines


def _too_late(places: list[Destination]) -> str:
    """Return the sentence for outputs that were finished before the cancel reached the worker."""
    paths = ", ".join(place.path for place in places)
    return tr("Cancelled, but {paths} had just been finished and stays.").format(paths=paths)
