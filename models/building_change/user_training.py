"""SSA-Net learns on a user's own dates and the changes outlined between them.

The loop is trainer.py's; here the engine's crops become its pairs, and its end becomes a card with what
validation crops say - in the half precision that the file holds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..device import torch_device, use_threads
from ..scaling import stretch_from
from ..task import Input, ModelError
from ..trainable import Crops, Example, Moment, Trained, Training
from ..training.checkpoint import drop_unreadable
from ..training.typed import LEAST_CROPS, LIMITS, Numbers, evenly, read_base, read_numbers
from .data import Pairs, Sampler, unit
from .metrics import Confusion, Curve
from .network import PRESETS
from .predict import change_map
from .trainer import CHECKPOINT, MULTIPLE, Events, Progress, Result, TrainConfig, train
from .weights import GSD, TILE, Start, as_stored, describe, read_start

#: Agreement beyond chance below which weights are no use: a network that marks all but a few pixels has an
#: F1 a little above that of marking everything, and a kappa near 0.
LEAST_KAPPA = 0.1
#: Roles of the engine's crops; ``changes`` has one band, 1 where something changed and 0 elsewhere.
ROLES = ("before", "after", "changes")
#: The sub-folders of a tile folder, as LEVIR-CD and most public sets have them.
FOLDERS = dict(zip(ROLES, ("A", "B", "label"), strict=True))


@dataclass(frozen=True)
class Wishes(Numbers):
    """What was typed, checked."""

    device: str
    start: Start | None

    @property
    def network(self) -> dict[str, Any]:
        """Return the network's arguments: those of the weights it starts from, else the paper's."""
        return dict(self.start.network) if self.start else dict(PRESETS["paper"])


def build(params: Mapping[str, Any], device: str) -> Training:
    """Return the training; raises ModelError for anything that does not fit, before a layer is read.

    ``params``: ``epochs``, ``batch``, ``crop``, ``learning_rate``, ``base_weights``, ``seed``,
    ``stretch_min``, ``stretch_max``; missing = default.
    """
    wishes = read_wishes(params, device)
    torch_device(device)
    use_threads()
    scale = stretch_from(params)
    before, after, changes = ROLES
    return Training(
        name="building_change",
        inputs=tuple(Input(role, bands=3, scale=scale, fill="other") for role in (before, after)),
        required=ROLES,
        labels=changes,
        pair=True,
        folders=FOLDERS,
        crop=wishes.crop,
        least=LEAST_CROPS,
        learn=functools.partial(learn, wishes),
        key=wishes.start.source if wishes.start else "",
        notes={
            "algorithm": "kestrel:trainbuildingchange",
            "missing": {
                before: "Choose a raster of the earlier date.",
                after: "Choose a raster of the later date.",
                changes: "Choose polygons of what changed between the dates.",
            },
        },
    )


def read_wishes(params: Mapping[str, Any], device: str) -> Wishes:
    """Check what was typed; raises ModelError in one sentence."""
    numbers = read_numbers(params, LIMITS, MULTIPLE)
    return Wishes(**vars(numbers), device=device, start=read_base(params, read_start))


def learn(
    wishes: Wishes,
    crops: Crops,
    folder: Path,
    tell: Callable[[Moment], None],
    stop: Callable[[], bool],
) -> Trained | None:
    """Train, or go on; see models/trainable.py."""
    own, held_out = (_pairs(crops, validation) for validation in (False, True))
    if not held_out.label.any():
        raise ModelError(
            "No validation crop holds a change, so no epoch can be chosen.",
            "Outline changes in more places, or choose a smaller CROP.",
        )
    sampler = Sampler(own, wishes.crop, wishes.batch, wishes.seed)
    settings = wishes.settings(len(own))
    steps = settings["steps"]
    config = TrainConfig(
        network=wishes.network,
        device=wishes.device,
        tile=wishes.crop,
        **settings,
    )
    drop_unreadable(folder / CHECKPOINT)
    share = float(held_out.label.mean())

    def heard(now: Progress) -> None:
        row = {}
        if now.score is not None:
            epoch = wishes.epochs * now.fraction
            row = {"epoch": epoch, "loss": now.loss, "validation F1": now.score.f1}
            more = agreement(now.score.precision, now.score.recall, share)
            row |= {"IoU": more["iou"], "kappa": more["kappa"]}
        tell(Moment(now.step, steps, row))

    start = wishes.start
    result = train(
        sampler,
        config,
        folder,
        validation=held_out,
        start=start.tensors if start else None,
        normal=start.normal if start else None,
        events=Events(heard, stop),
    )
    return _finish(wishes, result, held_out) if result.complete else None


def _pairs(crops: Crops, validation: bool) -> Pairs:
    before, after, changes = (crops.part(role, validation) for role in ROLES)
    assert before is not None
    assert after is not None
    assert changes is not None
    number = np.arange(len(before))
    return Pairs(before, after, changes[:, 0] > 0.5, number, np.zeros(len(before), int))


def agreement(precision: float, recall: float, share: float) -> dict[str, float]:
    """Return IoU and kappa of a mask whose precision and recall are known; ``share``: of changed pixels."""
    hit = recall * share
    false = hit / precision - hit if precision else 0.0
    missed = share - hit
    marked = hit + false
    agreed = 1 - false - missed
    chance = marked * share + (1 - marked) * (1 - share)
    either = hit + false + missed
    return {
        "iou": hit / either if either else 0.0,
        "kappa": (agreed - chance) / (1 - chance) if chance < 1 else 0.0,
    }


def _finish(wishes: Wishes, result: Result, held_out: Pairs) -> Trained:
    """Measure what will be in the file, and describe it."""
    net = as_stored(result.net).eval()
    scores = [
        change_map(net, b, a, result.mean, result.std, tile=wishes.crop, stride=wishes.crop)
        for b, a in zip(held_out.before, held_out.after, strict=True)
    ]
    curves = [Curve.of(score, label) for score, label in zip(scores, held_out.label, strict=True)]
    curve = sum(curves[1:], curves[0])
    threshold = min(max(curve.best()[0], 0.001), 0.999)  # a card's lies between 0 and 1
    found, everything = curve.at(threshold), curve.at(0.0)
    names = ("precision", "recall", "f1", "iou", "kappa")
    figures = {name: round(float(getattr(found, name)), 4) for name in names}
    card = describe(
        net,
        name="building_change_own",
        data=[],
        training=result.state,
        threshold=threshold,
        command="",
        limits="Trained on a user's own rasters and measured on parts of them only.",
        figures={"validation crops of the user's layers": {"crops": len(held_out), **figures}},
        gsd=wishes.start.gsd if wishes.start else GSD,
        note=f"started from {wishes.start.source}" if wishes.start else "started from random numbers",
    )
    share = float(held_out.label.mean())
    history = []
    for row in result.rows:
        known = {name: row[name] for name in _COLUMNS if name in row}
        if "f1" in row:
            known |= agreement(row["precision"], row["recall"], share)
        history.append({"epoch": round(wishes.epochs * row["progress"], 4), **known})
    return Trained(
        tensors=net.state_dict(),
        buffers=tuple(dict(net.named_buffers())),
        card=card,
        history=history,
        losses={"loss": "loss", "bce": "cross entropy", "dice": "Dice loss"},
        scores={"f1": "F1", "iou": "IoU", "kappa": "kappa"},
        lines={
            "f1": {"everything marked": everything.f1},
            "iou": {"everything marked": everything.iou},
        },
        summary=_table({"network": found, "everything marked": everything}),
        examples=_examples(held_out, scores, threshold),
        notes=[
            f"One confusion matrix over all pixels of all validation crops, at the threshold {threshold:.3f} "
            "that does best on them. Epoch and threshold are chosen there, so other ground comes out worse.",
            *_tile_notes(wishes.crop),
        ],
        warnings=_warnings(found, everything),
    )


def _tile_notes(crop: int) -> list[str]:
    """Say where the figures' tiles are not those that changes will be searched in."""
    if crop == TILE:
        return []
    return [
        f"Measured in squares of {crop} pixels; kestrel:detectbuildingchange takes tiles of {TILE}, and the "
        "network's statistics over them differ a little."
    ]


_COLUMNS = ("loss", "bce", "dice", "f1")


def _table(rows: Mapping[str, Confusion]) -> Sequence[Sequence[Any]]:
    table: list[Sequence[Any]] = [("", "precision", "recall", "F1", "IoU", "kappa")]
    for name, found in rows.items():
        values = (found.precision, found.recall, found.f1, found.iou, found.kappa)
        table.append((name, *(float(f"{value:.4g}") for value in values)))
    return table


def _warnings(found: Confusion, everything: Confusion) -> list[str]:
    """Warn of weights that are not worth their name."""
    if found.f1 > everything.f1 and found.kappa > LEAST_KAPPA:
        return []
    return [
        f"On validation crops the weights reach an F1 of {found.f1:.2f}, hardly better than marking "
        f"everything ({everything.f1:.2f}): train longer, on more changes, or start from BASE_WEIGHTS."
    ]


def _examples(pairs: Pairs, scores: Sequence[np.ndarray], threshold: float) -> list[Example]:
    """Return crops with change from the worst F1 to the best, evenly in between; marked in red."""
    marks = [score >= threshold for score in scores]
    f1 = np.array([_f1(mark, label) for mark, label in zip(marks, pairs.label, strict=True)])
    some = np.flatnonzero(pairs.label.any(axis=(1, 2)))
    order = some[np.argsort(f1[some], kind="stable")]
    chosen = evenly(order)
    return [
        Example(
            unit(pairs.before[i]),
            _marked(unit(pairs.after[i]), marks[i]),
            _marked(unit(pairs.after[i]), pairs.label[i]),
            "The earlier date, the later one with what is found in red, and with what was outlined; "
            f"F1 {f1[i]:.2f}.",
        )
        for i in chosen
    ]


def _f1(mark: np.ndarray, label: np.ndarray) -> float:
    return 2 * np.count_nonzero(mark & label) / max(1, np.count_nonzero(mark) + np.count_nonzero(label))


def _marked(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the picture with red laid over a mask, half of each."""
    red = np.array([1.0, 0.0, 0.0], np.float32)[:, None, None]
    return np.where(mask, (image + red) / 2, image).astype(np.float32)
