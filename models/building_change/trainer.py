"""The training loop of SSA-Net: one function that the command line and the toolbox call.

What the paper states: Adam, weight decay 5e-4, BCE + Dice, polynomial decay of the learning rate. Ours:
power 0.9 over the whole run, the start at 1e-3 where the budget is short (specification 08, section 11),
averaged weights, augmentation, and the choice of the epoch on validation pairs. A checkpoint of the same
training is resumed; with a budget of steps bit for bit.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..task import ModelError
from ..training.begin import begin, check_budget, described, digest, prepare_folder
from ..training.loop import CHECKPOINT, LOG, Events, Loop, Stand
from .data import Batch, Pairs, Sampler, batches, statistics
from .loss import loss_terms
from .metrics import Curve
from .network import PRESETS, SSANet
from .predict import TILE, change_map, normalised

__all__ = [
    "BEST",
    "CHECKPOINT",
    "LOG",
    "Events",
    "Progress",
    "Result",
    "Score",
    "TrainConfig",
    "load_best",
    "measure",
    "save_best",
    "train",
]

BEST = "best.safetensors"
COLUMNS = tuple("step seconds progress lr loss bce dice f1 threshold precision recall".split())
#: Of the polynomial decay (specification 08, section 4).
POWER = 0.9
#: Below 32 pixels BatchNorm sees one value for each channel at the bottom, if there is one pair.
LEAST_CROP, MULTIPLE = 32, 16


@dataclass(frozen=True)
class TrainConfig:
    """How to train, apart from the data. The budget: ``steps``, ``minutes``, or what ends first of both.

    ``network``: SSANet's arguments. ``validations``: how often the average is measured, the end
    included, with tiles of ``tile`` side by side. A line of the log covers ``log_steps`` steps.
    """

    network: Mapping[str, Any] = field(default_factory=lambda: PRESETS["paper"])
    steps: int = 0
    minutes: float = 0.0
    lr: float = 1e-3
    decay: float = 5e-4
    seed: int = 0
    device: str = "cpu"
    validations: int = 10
    tile: int = TILE
    log_steps: int = 25
    checkpoint_seconds: float = 120.0


@dataclass(frozen=True)
class Score:
    """What validation pairs said of the average after ``step``: F1 at its best threshold, and that."""

    step: int
    f1: float
    threshold: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Progress:
    """Where a training stands after a step.

    ``total``: the steps there will be, estimated where minutes are the budget. ``loss`` = ``bce`` +
    ``dice``, of this step. ``score``: of the validation pairs, where they were just measured, else None.
    """

    step: int
    total: int
    fraction: float
    seconds: float
    lr: float
    loss: float
    bce: float
    dice: float
    score: Score | None


@dataclass(frozen=True)
class Result:
    """A training's end: the chosen weights (eval mode), log lines, and whether it is complete.

    ``net``: the average that did best on the validation pairs, without such pairs the last average.
    ``best``: what it reached there, or None. ``last``: the last average's score, or None.
    ``mean``, ``std``: what its input is normalised with. ``state``: what the checkpoint says (config,
    network, data, mean, std, best, step, seconds).
    """

    net: SSANet
    rows: list[dict[str, float]]
    step: int
    seconds: float
    complete: bool
    best: Score | None
    last: Score | None
    mean: list[float]
    std: list[float]
    state: dict[str, Any]


class Trainer(Loop[SSANet, Batch]):
    """Network, optimiser and average of one training, and what validation pairs said of it.

    ``best``: the best score so far, of earlier runs too; ``last``: the last of this run.
    """

    columns = COLUMNS
    saves_scores = True  # best.safetensors belongs to what the checkpoint says of it

    def __init__(
        self,
        sampler: Sampler,
        config: TrainConfig,
        out: Path,
        validation: Pairs | None,
        start: Mapping[str, Tensor] | None,
        normal: tuple[Sequence[float], Sequence[float]] | None,
        resume: bool,
    ) -> None:
        self.config, self.validation = config, validation
        self.best: Score | None = None
        self.last: Score | None = None
        net = begin(SSANet, config, start)
        optimiser = torch.optim.Adam(
            net.parameters(), lr=config.lr, betas=(0.9, 0.999), weight_decay=config.decay
        )
        self.mean, self.std = (list(map(float, v)) for v in normal or statistics(sampler.pairs))
        state = described(config, net.config, describe_data(sampler), start)
        super().__init__(net, optimiser, config, out, {**state, "mean": self.mean, "std": self.std}, resume)

    def load(self) -> dict[str, Any]:
        """Take over the checkpoint and the best score so far."""
        found = super().load()
        self.best = Score(**found["best"]) if found["best"] else None
        return found

    def remembered(self) -> dict[str, Any]:
        """Return the best score so far for the checkpoint."""
        return {"best": None if self.best is None else asdict(self.best)}

    def learn(self, batch: Batch, progress: float) -> dict[str, float]:
        """Do one step at ``progress`` of the schedule; returns its part of the log."""
        lr = self.config.lr * (1 - min(progress, 1.0)) ** POWER
        self.set_rate(lr)
        before, after, label = (torch.from_numpy(a).to(self.config.device) for a in batch)
        logits = self.net(*(normalised(date, self.mean, self.std) for date in (before, after)))
        bce, dice = loss_terms(logits, label[:, None].float())
        loss = bce + dice
        if not math.isfinite(loss.item()):
            raise self.diverged(loss.item())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.ema.update(self.net)
        self.step += 1
        return {"loss": loss.item(), "bce": bce.item(), "dice": dice.item(), "lr": lr}

    def validate(self) -> dict[str, float]:
        """Measure the average; keep it beside the checkpoint where it is the best so far."""
        assert self.validation is not None, "no pairs to measure"
        curve = measure(self.ema.net, self.validation, self.mean, self.std, self.config.tile)
        threshold, f1 = curve.best()
        at = curve.at(threshold)
        score = self.last = Score(self.step, f1, threshold, at.precision, at.recall)
        if self.best is None or score.f1 > self.best.f1:
            self.best = score
            save_best(self.out / BEST, self.ema.net, score)
        return asdict(score)


def train(
    sampler: Sampler,
    config: TrainConfig,
    out: Path,
    *,
    validation: Pairs | None = None,
    start: Mapping[str, Tensor] | None = None,
    normal: tuple[Sequence[float], Sequence[float]] | None = None,
    events: Events[Progress] | None = None,
    resume: bool = True,
) -> Result:
    """Train and return the chosen network, whether the budget ended it or ``events.cancelled``.

    ``start``: the state of a network of the same configuration to begin from, with ``normal``, the mean
    and deviation of each band that it was trained with; without them those of ``sampler``'s pairs.
    Writes ``checkpoint.safetensors``, ``best.safetensors`` and ``log.csv`` into ``out``; a checkpoint
    there is resumed, unless ``resume`` is False. The process's number of threads is the caller's to set.
    Raises ModelError before any step where the configuration, ``start`` or the checkpoint does not fit,
    and where the training diverges.
    """
    hear = events or Events[Progress]()
    _check(config, sampler)
    prepare_folder(out, (CHECKPOINT, BEST, LOG), resume)
    trainer = Trainer(sampler, config, out, validation, start, normal, resume)

    def tell(stand: Stand, now: Mapping[str, float], measured: bool) -> None:
        terms = {name: now[name] for name in ("lr", "loss", "bce", "dice")}
        hear.progress(Progress(**{**vars(stand), **terms}, score=trainer.last if measured else None))

    checks = config.validations if validation is not None and len(validation) else 0
    complete = trainer.run(batches(sampler, trainer.step), checks, tell, hear.cancelled)
    net = trainer.ema.net
    if trainer.best is not None and trainer.best.step != trainer.step:
        load_best(out / BEST, net)
    return Result(
        net, trainer.rows(), trainer.step, float(trainer.state["seconds"]), complete,
        trainer.best, trainer.last, trainer.mean, trainer.std, trainer.state,
    )  # fmt: skip


def measure(
    net: SSANet,
    pairs: Pairs,
    mean: Sequence[float],
    std: Sequence[float],
    tile: int = TILE,
    stride: int | None = None,
) -> Curve:
    """Return the counts of all pixels of all pairs by probability; tiles side by side, or by ``stride``."""
    curve: Curve | None = None
    tile = min(tile, max(pairs.label.shape[1:]))
    for before, after, label in zip(pairs.before, pairs.after, pairs.label, strict=True):
        score = change_map(net, before, after, mean, std, tile=tile, stride=stride or tile)
        found = Curve.of(score, label)
        curve = found if curve is None else curve + found
    assert curve is not None, "no pairs to measure"
    return curve


def save_best(path: Path, net: SSANet, score: Score) -> None:
    """Write weights and what they reached, in full precision, atomically."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    tensors = {name: value.detach().contiguous().cpu().clone() for name, value in net.state_dict().items()}
    try:
        save_file(tensors, part, metadata={"score": json.dumps(asdict(score))})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_best(path: Path, net: SSANet) -> Score:
    """Fill ``net`` with the best average and return what it reached; raises ModelError."""
    try:
        with safe_open(path, "pt") as file:
            score = Score(**json.loads((file.metadata() or {})["score"]))
            net.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{path} holds no weights of this training: {error}.", "Train anew.") from error
    return score


def describe_data(sampler: Sampler) -> dict[str, Any]:
    """What tells one training's data from another's: sizes, shares, and a hash of the values."""
    pairs = sampler.pairs
    return {
        "crop": sampler.crop,
        "batch": sampler.batch,
        "seed": sampler.seed,
        "mix": asdict(sampler.mix),
        "pairs": len(pairs),
        "sha256": digest([pairs.before, pairs.after, pairs.label]),
    }


def _check(config: TrainConfig, sampler: Sampler) -> None:
    """Refuse a configuration that cannot be trained, before anything is written."""
    check_budget(config)
    if sampler.crop % MULTIPLE or sampler.crop < LEAST_CROP:
        raise ModelError(
            f"CROP is {sampler.crop}; it must be a multiple of {MULTIPLE} from {LEAST_CROP} on.",
            f"Take {max(sampler.crop // MULTIPLE * MULTIPLE, LEAST_CROP)}.",
        )
    if not 0 < config.lr < 1:
        raise ModelError(f"The learning rate {config.lr:g} is not between 0 and 1.", "Choose about 0.001.")
