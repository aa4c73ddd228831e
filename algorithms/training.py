"""The run that trainings share: layers to a Job of kind ``train``, the worker, the history.

The worker writes weights and report at their final places itself, both when the training is complete
(CONTRACTS.md, sections 5 and 7); its checkpoint stays after a cancel.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingUtils,
)

from ..engine.job import Job
from ..plugin import layers, settings, sidecar
from ..plugin.destination import Destination
from ..plugin.errors import WorkerCancelled, WorkerError
from ..plugin.layers import LayerError
from ..plugin.raster_output import GuardedRasters
from ..plugin.texts import tr
from ..plugin.weight_files import for_worker
from ..plugin.worker import run_job
from .base import REPORT
from .checks import given
from .networks import BATCH, DEVICE
from .raster_texts import STRETCH_MAX, STRETCH_MIN
from .training_checks import RANGES, TrainingChecks
from .training_texts import BASE_WEIGHTS, CROP, EPOCHS, LEARNING_RATE, OUTPUT_WEIGHTS, PRESET, SEED

#: What of the worker's figures the history of weights holds beside that of every output.
FIGURES = ("layers", "stretch", "crops", "validation")


class TrainingAlgorithm(TrainingChecks):
    """Learns on layers and leaves a weight file."""

    def __init__(self) -> None:
        super().__init__()
        self._sources: dict[str, layers.RasterSource] = {}
        self._bands: dict[str, list[int]] = {}
        self._weights = ""
        self._others: dict[str, dict[str, Any]] = {}

    def add_training(self, crop: int) -> None:
        """Add how it is learned, ``crop`` pixels by default, and the outputs: the dialog's last part."""
        self.add_number(EPOCHS, 20, *RANGES[EPOCHS])
        self.add_number(BATCH, 8, *RANGES[BATCH], advanced=True)
        self.add_number(CROP, crop, *RANGES[CROP])
        self.add_number(LEARNING_RATE, 0.001, *RANGES[LEARNING_RATE], decimals=7, advanced=True)
        self.add_weights(BASE_WEIGHTS, self.DEFAULT_WEIGHTS, advanced=False)
        self.add_number(SEED, 0, *RANGES[SEED], advanced=True)
        self.add_choice(DEVICE, settings.DEVICES, "auto", advanced=True)
        self.add_output_weights()
        self.add_report()

    def other_inputs(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, dict[str, Any]]:
        """Main thread: return the Job's inputs that are no layers of ROLES, by role; raises LayerError."""
        return {}

    def params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return the params that all trainings have, and the subclass's own."""
        params: dict[str, Any] = {
            "learning_rate": self.number(parameters, LEARNING_RATE, context),
            "base_weights": for_worker(self.parameterAsString(parameters, BASE_WEIGHTS, context)),
        }
        if self.parameterDefinition(PRESET) is not None:
            params["preset"] = self.parameterAsString(parameters, PRESET, context)
        for name in (EPOCHS, BATCH, CROP, SEED):
            params[name.lower()] = self.parameterAsInt(parameters, name, context)
        for name, numbers in zip((STRETCH_MIN, STRETCH_MAX), self.stretch(parameters, context)):
            if numbers:
                params[name.lower()] = numbers
        return {**params, **self.own_params(parameters, context)}

    def prepareAlgorithm(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> bool:
        """Main thread: turn layers into plain data, so that the run touches no layer."""
        self.refuse(parameters, context)
        self._scratch = tempfile.mkdtemp(prefix="kestrel-", dir=QgsProcessingUtils.tempFolder())
        try:
            for name, role in self.ROLES.items():
                if given(parameters, name):
                    layer, facts = self.open_raster(parameters, name, context)
                    self.warn_of_crs(layer, facts, feedback)
                    self._sources[role] = layers.RasterSource(layer)
                self._bands[role] = self.layer_bands(parameters, name, context)
            self._others = self.other_inputs(parameters, context, feedback)
            self._job = {
                "params": self.params(parameters, context),
                "device": self.device(parameters, context),
            }
        except LayerError as error:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise QgsProcessingException(str(error)) from None
        self.remember(None, parameters, context)
        self._weights = self.output_path(parameters, context)
        if self.is_temporary(parameters, context):
            feedback.pushInfo(
                tr("The weights go to a temporary file, so a cancelled training cannot be gone on with.")
            )
        return True

    def run_prepared(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Train, then leave the history beside the weights."""
        place = Destination("file", self._weights, os.path.realpath(self._weights))
        with GuardedRasters({OUTPUT_WEIGHTS: place}, self._report) as guard:
            try:
                result = run_job(self._build_job(place, feedback), feedback)
            except (WorkerCancelled, WorkerError) as error:
                replaced = bool(guard.replaced())
                if replaced:
                    _forget(place)
                if isinstance(error, WorkerCancelled):
                    raise QgsProcessingException(_cancelled(place, replaced)) from None
                raise
            figures = result.get("figures", {})
            self._leave(place, self.history(result, FIGURES), feedback)
        for line in _reached(figures.get("validation")):
            feedback.pushInfo(line)
        written = {OUTPUT_WEIGHTS: self._weights}
        return {**written, REPORT: self._report} if self._report else written

    def _build_job(self, place: Destination, feedback: QgsProcessingFeedback) -> Job:
        inputs: dict[str, dict[str, Any]] = {}
        for role, source in self._sources.items():
            # exported layers may be called alike
            folder = os.path.join(self._scratch, role)
            os.makedirs(folder)
            inputs[role] = {"path": source.resolve(folder, feedback), "bands": self._bands[role]}
        inputs.update(self._others)
        outputs = {"weights": place.path}
        if self._report:
            outputs["report"] = os.path.realpath(self._report)
        return Job(
            kind="train",
            model=self.MODEL,
            inputs=inputs,
            outputs=outputs,
            params=self._job["params"],
            scratch=self._scratch,
            device=self._job["device"],
        )

    def _leave(self, place: Destination, content: dict[str, Any], feedback: QgsProcessingFeedback) -> None:
        """Write the history; without it the weights are still whole, so that only warns."""
        try:
            sidecar.write_sidecar(place.sidecar, content)
        except OSError as error:
            _forget(place)
            feedback.pushWarning(
                tr("{label} is complete, but {path} could not be written ({reason}).").format(
                    label=OUTPUT_WEIGHTS, path=place.sidecar, reason=error.strerror or error
                )
            )
            return
        feedback.pushInfo(tr("History: {path}").format(path=place.sidecar))


def _reached(validation: Any) -> list[str]:
    """Return what validation found, for the log."""
    lines = []
    for split, found in (validation or {}).items():
        values = [found.get(name) for name in ("psnr_db", "psnr_db_input", "psnr_db_affine")]
        if all(isinstance(value, (int, float)) for value in values):
            lines.append(
                tr(
                    "{split}: PSNR {after:.2f} dB; {before:.2f} dB untreated, {affine:.2f} dB after a plain "
                    "correction of each band's colour."
                ).format(split=split, after=values[0], before=values[1], affine=values[2])
            )
        values = [found.get(name) for name in ("f1", "precision", "recall", "iou", "kappa")]
        if all(isinstance(value, (int, float)) for value in values):
            lines.append(
                tr(
                    "{split}: F1 {f1:.3f}, precision {precision:.3f}, recall {recall:.3f}, IoU {iou:.3f}, "
                    "kappa {kappa:.3f}."
                ).format(
                    split=split,
                    **{name: found[name] for name in ("f1", "precision", "recall", "iou", "kappa")},
                )
            )
    return lines


def _cancelled(place: Destination, replaced: bool) -> str:
    if replaced:
        return tr("Cancelled, but {path} had just been finished and stays.").format(path=place.path)
    return tr("Cancelled; no weights were written. The same call again goes on from the last checkpoint.")


def _forget(place: Destination) -> None:
    """Remove the history of the weights that lay there before."""
    with contextlib.suppress(OSError):
        os.unlink(place.sidecar)
