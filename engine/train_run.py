"""Kind ``train``: the user's layers, or a folder of tiles, in; a weight file and a report out.

The engine opens and checks what is learned from, cuts crops, keeps the checkpoint's place, tells progress
and puts the outputs in place; what learning is, only the model knows (models/trainable.py).
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

from ..models import registry
from ..models.trainable import Moment, Trained, Trainer, Training
from . import provenance
from .checkpoints import prepare_folder
from .crops import Cut
from .device import resolve_device
from .errors import Cancelled, EngineError
from .events import Track
from .heap import give_back
from .job import Job
from .parts import Parts
from .scaling import Scaling
from .train_dates import open_dates
from .train_folder import is_folder, open_folder
from .train_layers import open_layers
from .train_material import Material

SUFFIX = ".safetensors"
#: Shares of the progress bar: crops are cut until the first, learning ends at the second.
CUT_TO, LEARNED_TO = 0.08, 0.97
#: Pixels so many times finer or coarser than those learned from show the ground at another scale.
GSD_FACTOR = 2


def run_training(job: Job, track: Track, trainer: Trainer | None = None) -> dict[str, Any]:
    """Train, write the weights and the report, put both in place; return the figures of the run.

    ``trainer`` replaces the registry's (tests, notebooks). A run that was cancelled or killed leaves its
    checkpoint in KESTREL_HOME/cache/training, and the same Job again goes on from there.
    """
    _check_outputs(job)
    device = resolve_device(job.device, weights=True)
    with track.stage("model", 0.01):
        training = (trainer or registry.trainer(job.model))(job.params, device)
        for text in training.notes.get("warnings", ()):
            track.warn(text)
    with track.stage("opening", 0.02):
        material = _open(job, training, track)
    with Parts(job.outputs, [stamp.path for stamp in material.stamps]) as parts:
        scalings = material.stretch(track)
        cut = _cut(training, material, scalings, track)
        folder = prepare_folder(job, cut.crops, training.key, track)
        with track.stage("training", CUT_TO):
            trained = _learn(training, cut, folder, track)
        for text in trained.warnings:
            track.warn(text)
        material.check_unchanged()
        with track.stage("saving", LEARNED_TO):
            sha256, trained = _save(job, parts, training, material, cut, scalings, trained)
        figures = _figures(job, device, training, material, cut, scalings, trained, sha256, track)
        if "report" in job.outputs:
            from .training_report import write_report  # matplotlib is slow to import

            with track.stage("report", 0.98):
                write_report(parts.path("report"), figures, trained, track.warnings)
        track.check()
        parts.commit()
    shutil.rmtree(folder, ignore_errors=True)
    return figures


def _check_outputs(job: Job) -> None:
    unknown = sorted(set(job.outputs) - {"weights", "report"})
    if unknown:
        raise EngineError("parameter", f"A training makes no output {unknown[0]!r}.")
    if "weights" not in job.outputs:
        raise EngineError("parameter", "The Job names no output 'weights'.")
    name = Path(job.outputs["weights"]).name
    if not name.lower().endswith(SUFFIX):
        raise EngineError(
            "output", f"OUTPUT_WEIGHTS {name} must end with {SUFFIX}.", f"Call it {name}{SUFFIX}."
        )


def _open(job: Job, training: Training, track: Track) -> Material:
    if is_folder(job, training):
        return open_folder(job, training, track)
    return open_dates(job, training, track) if training.pair else open_layers(job, training, track)


def _cut(training: Training, material: Material, scalings: tuple[Scaling, ...], track: Track) -> Cut:
    side, least = training.crop, training.least
    with track.stage("cutting crops", 0.04):
        cut = material.cut(scalings, side, track, (0.04, CUT_TO))
        give_back()
    if len(cut) < least:
        raise EngineError(
            "parameter",
            f"{material.title} hold {len(cut)} crops of {side} x {side} pixels that are valid everywhere; at "
            f"least {least} are needed.",
            "Choose a smaller CROP or larger layers.",
        )
    scored = int(cut.crops.validation.sum())
    where = f"in blocks of {cut.block * side} pixels" if cut.block else "by whole images"
    track.info(
        f"{len(cut)} crops of {side} x {side} pixels: {len(cut) - scored} to learn from and {scored} to "
        f"validate on, {where}; {cut.looked - len(cut)} hold invalid pixels."
    )
    if cut.looked < cut.lattice:
        track.info(f"Of {cut.lattice} places {cut.looked} were looked at, spread evenly: more is not kept.")
    if training.labels:
        found = _marked(training, cut)
        if not found["marked pixels"]:
            raise EngineError(
                "parameter",
                f"None of the {len(cut)} crops of {side} x {side} pixels holds a pixel of "
                f"{training.labels.upper()}, so nothing could be learned.",
                "Check that the labels lie on this ground, or choose a smaller CROP.",
            )
        track.info(
            f"{found['marked pixels']:.2%} of their pixels are labelled as {training.labels}; "
            f"{found['without a mark']} crops hold none, and all of them are kept."
        )
    return cut


def _marked(training: Training, cut: Cut) -> dict[str, Any]:
    """Return the share of labelled pixels, and how many crops hold none."""
    labels = cut.crops.images[training.labels]
    return {
        "marked pixels": float(labels.mean()),
        "without a mark": len(labels) - int(labels.any(axis=(1, 2, 3)).sum()),
    }


def _learn(training: Training, cut: Cut, folder: Path, track: Track) -> Trained:
    clock = _Clock(track)
    trained = training.learn(cut.crops, folder, clock.tell, track.cancel.is_set)
    if trained is None or track.cancel.is_set():
        track.info("The checkpoint is kept: the same call again goes on from there.")
        raise Cancelled
    return trained


class _Clock:
    """Passes on where the training stands, and how long the rest may take at the pace of this run."""

    def __init__(self, track: Track) -> None:
        self._track = track
        self._start: tuple[float, int] | None = None

    def tell(self, moment: Moment) -> None:
        """Take one moment: progress, and a line at the end of each epoch."""
        now = time.monotonic()
        if self._start is None:
            self._start = now, moment.done
            if moment.done > 1:
                self._track.info(f"Going on from step {moment.done} of {moment.total}.")
        since, first = self._start
        left = None
        if moment.done > first:
            left = (now - since) / (moment.done - first) * (moment.total - moment.done)
        fraction = CUT_TO + (LEARNED_TO - CUT_TO) * moment.done / max(1, moment.total)
        self._track.progress(fraction, moment.done, moment.total, "training", left)
        if moment.row:
            told = ", ".join(f"{name} {value:.4g}" for name, value in moment.row.items() if name != "epoch")
            self._track.info(f"Epoch {moment.row.get('epoch', 0):g}: {told}")


def _save(
    job: Job,
    parts: Parts,
    training: Training,
    material: Material,
    cut: Cut,
    scalings: tuple[Scaling, ...],
    trained: Trained,
) -> tuple[str, Trained]:
    """Write the weight file with its whole card; return its hash and the training with that card."""
    from ..models.weights import save_weights  # which needs torch

    data = [
        {
            "source": each.path.name,
            "role": each.role,
            "licence": "the layer's own, not known here",
            "count": len(cut),
            "real": material.real,
            "bands": list(each.bands),
        }
        for each in material.named
    ]
    made = {**trained.card.extra, "stretch": [[s.low, s.high] for s in scalings], "history": trained.history}
    first = material.first
    pixel_m = first.georef.pixel_m(first.width / 2, first.height / 2)
    size = (pixel_m[0] * pixel_m[1]) ** 0.5 if pixel_m else 0.0
    card = trained.card
    if not size:
        low, high = card.gsd
        said = f"The pixel size of what it learned from is unknown; {low:g}-{high:g} m is an assumption."
        card = dataclasses.replace(card, limits=f"{card.limits} {said}")
    card = dataclasses.replace(
        card,
        data=(*data, *card.data),
        command=_command(job, training, material),
        gsd=(size / GSD_FACTOR, size * GSD_FACTOR) if size else card.gsd,
        extra=made,
    )
    sha256 = save_weights(parts.path("weights"), trained.tensors, card, trained.buffers)
    return sha256, dataclasses.replace(trained, card=card)


def _command(job: Job, training: Training, material: Material) -> str:
    """Return what was run, with layers by their names: the card may leave this computer, paths need not."""
    typed = dict(material.typed)
    for name, value in sorted(job.params.items()):
        if value not in (None, "", []):
            text = ",".join(f"{each:g}" for each in value) if isinstance(value, list) else str(value)
            typed[name.upper()] = Path(text).name if name == "base_weights" else text
    call = f"qgis_process run {training.notes.get('algorithm', job.model)} --"
    return " ".join([call, *(f"{name}={value}" for name, value in typed.items())])


def _figures(
    job: Job,
    device: str,
    training: Training,
    material: Material,
    cut: Cut,
    scalings: tuple[Scaling, ...],
    trained: Trained,
    sha256: str,
    track: Track,
) -> dict[str, Any]:
    card = trained.card
    stretch = {
        "mode": scalings[0].mode,
        "low": [s.low for s in scalings],
        "high": [s.high for s in scalings],
        "source": scalings[0].source,
    }
    named = material.named
    bands = {each.role: list(each.bands) for each in named}
    side = training.crop
    scored = int(cut.crops.validation.sum())
    return {
        "model": {
            "name": card.name,
            "version": card.version,
            "sha256": sha256,
            "id": f"{card.name}@{sha256[:12]}",
            "notes": {"preset": card.preset, "parameters": card.parameters, "status": card.status},
        },
        "bands": bands[named[0].role],
        "layers": {each.role: _shown(each.path, job) for each in named},
        "scaling": {**stretch, "dtype": str(material.first.dtype)},
        "stretch": stretch,
        "crops": {
            "learned from": len(cut) - scored,
            "validated on": scored,
            "side": side,
            "block": cut.block * side,
            "with invalid pixels": cut.looked - len(cut),
            "looked at": cut.looked,
            "places": cut.lattice,
            **(_marked(training, cut) if training.labels else {}),
        },
        "validation": dict(card.figures),
        "params_used": {**job.params, "bands": bands, "device": device},
        "inputs": provenance.files(s for s in material.stamps if _shown(s.path, job) != s.path.name),
        "versions": provenance.versions(),
        "device": device,
        "seconds": track.seconds,
    }


def _shown(path: Path, job: Job) -> str:
    """Return a path, of a copy in the scratch folder only the name: the folder is gone after the run."""
    return path.name if job.scratch and path.is_relative_to(job.scratch) else str(path)
