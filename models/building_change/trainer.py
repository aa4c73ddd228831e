"""The training loop of SSA-Net: one function that the command line and the toolbox call.

What the paper states: Adam, weight decay 5e-4, BCE + Dice, polynomial decay of the learning rate. Ours:
power 0.9 over the whole run, the start at 1e-3 where the budget is short (specification 08, section 11),
averaged weights, augmentation, and the choice of the epoch on validation pairs. A checkpoint of the same
training is resumed; with a budget of steps bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..task import ModelError
from ..training.checkpoint import load_checkpoint, save_checkpoint
from ..training.ema import Ema
from ..training.log import append_row, keep_rows, read_rows
from ..training.schedule import progress_of
from .data import Batch, Pairs, Sampler, batches, statistics
from .loss import loss_terms
from .metrics import Curve
from .network import PRESETS, SSANet
from .predict import TILE, change_map, normalised

CHECKPOINT, BEST, LOG = "checkpoint.safetensors", "best.safetensors", "log.csv"
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
class Events:
    """What the caller hears and says: ``progress`` after every step, ``cancelled`` before every step."""

    progress: Callable[[Progress], None] = lambda progress: None
    cancelled: Callable[[], bool] = lambda: False


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


class Trainer:
    """Network, optimiser and average of one training, and where its budget stands."""

    def __init__(
        self,
        sampler: Sampler,
        config: TrainConfig,
        out: Path,
        start: Mapping[str, Tensor] | None,
        normal: tuple[Sequence[float], Sequence[float]] | None,
        resume: bool,
    ) -> None:
        self.config, self.out = config, out
        torch.manual_seed(config.seed)
        net = _build(config.network)
        if start is not None:
            _fill(net, start)
        self.net: SSANet = net.to(config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.Adam(
            self.net.parameters(), lr=config.lr, betas=(0.9, 0.999), weight_decay=config.decay
        )
        self.ema = Ema(self.net)
        self.mean, self.std = (list(map(float, v)) for v in normal or statistics(sampler.pairs))
        self.best: Score | None = None
        self.state: dict[str, Any] = json.loads(
            json.dumps(
                {
                    "config": asdict(config),
                    "network": net.config,
                    "data": describe_data(sampler),
                    "start": "" if start is None else _digest(start.values()),
                    "mean": self.mean,
                    "std": self.std,
                }
            )
        )
        self.step, self._used = 0, 0.0
        if resume and self.path.exists():
            self._load()
        self._started = time.monotonic()
        self.net.train()

    @property
    def path(self) -> Path:
        """The checkpoint's file."""
        return self.out / CHECKPOINT

    def _load(self) -> None:
        """Take over the checkpoint; how often to save and log may differ, and where to compute."""
        found = load_checkpoint(self.path, self.net, self.ema, self.optimiser)
        if _essence(found) != _essence(self.state):
            raise ModelError(
                f"{self.path} belongs to another training.", "Choose an empty folder, or start anew."
            )
        self.step, self._used = int(found["step"]), float(found["seconds"])
        self.best = Score(**found["best"]) if found["best"] else None

    def save(self) -> None:
        """Write the checkpoint."""
        best = None if self.best is None else asdict(self.best)
        self.state.update(step=self.step, seconds=self.seconds, best=best)
        save_checkpoint(self.path, self.net, self.ema, self.optimiser, self.state)

    @property
    def seconds(self) -> float:
        """Time used so far, earlier runs included."""
        return self._used + time.monotonic() - self._started

    @property
    def progress(self) -> float:
        """Part of the budget used up, 0..1 and beyond."""
        return progress_of(self.step, self.seconds, steps=self.config.steps, minutes=self.config.minutes)

    def learn(self, batch: Batch, progress: float) -> dict[str, float]:
        """Do one step at ``progress`` of the schedule; returns its part of the log."""
        lr = self.config.lr * (1 - min(progress, 1.0)) ** POWER
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        before, after, label = (torch.from_numpy(a).to(self.config.device) for a in batch)
        logits = self.net(*(normalised(date, self.mean, self.std) for date in (before, after)))
        bce, dice = loss_terms(logits, label[:, None].float())
        loss = bce + dice
        if not math.isfinite(loss.item()):
            raise ModelError(
                f"The training diverged at step {self.step + 1}: its loss is {loss.item():.3g}.",
                f"Choose a learning rate below {self.config.lr:g}.",
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.ema.update(self.net)
        self.step += 1
        return {"loss": loss.item(), "bce": bce.item(), "dice": dice.item(), "lr": lr}

    def validate(self, pairs: Pairs) -> Score:
        """Measure the average; keep it beside the checkpoint where it is the best so far."""
        curve = measure(self.ema.net, pairs, self.mean, self.std, self.config.tile)
        threshold, f1 = curve.best()
        at = curve.at(threshold)
        score = Score(self.step, f1, threshold, at.precision, at.recall)
        if self.best is None or score.f1 > self.best.f1:
            self.best = score
            save_best(self.out / BEST, self.ema.net, score)
        return score


def train(
    sampler: Sampler,
    config: TrainConfig,
    out: Path,
    *,
    validation: Pairs | None = None,
    start: Mapping[str, Tensor] | None = None,
    normal: tuple[Sequence[float], Sequence[float]] | None = None,
    events: Events | None = None,
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
    events = events or Events()
    _check(config, sampler)
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        for name in (CHECKPOINT, BEST, LOG):
            (out / name).unlink(missing_ok=True)
    trainer = Trainer(sampler, config, out, start, normal, resume)
    keep_rows(out / LOG, trainer.step, COLUMNS)
    checks = config.validations if validation is not None and len(validation) else 0
    validated = int(trainer.progress * checks)
    saved = time.monotonic()
    since: list[dict[str, float]] = []
    last: Score | None = None
    cancelled = False
    source = batches(sampler, trainer.step)
    try:
        while (progress := trainer.progress) < 1:
            if cancelled := events.cancelled():
                break
            now = trainer.learn(next(source), progress)
            since.append(now)
            after = trainer.progress
            score = None
            if validation is not None and int(min(after, 1) * checks) > validated:
                validated = int(min(after, 1) * checks)
                score = last = trainer.validate(validation)
            if len(since) >= config.log_steps or score is not None or after >= 1:
                row = {key: sum(part[key] for part in since) / len(since) for key in now}
                row |= {"step": trainer.step, "seconds": trainer.seconds, "progress": after}
                append_row(out / LOG, row if score is None else {**asdict(score), **row}, COLUMNS)
                since = []
            total = config.steps or max(trainer.step, round(trainer.step / max(after, 1e-6)))
            terms = {name: now[name] for name in ("lr", "loss", "bce", "dice")}
            events.progress(
                Progress(trainer.step, total, min(after, 1), trainer.seconds, score=score, **terms)
            )
            if score is not None or time.monotonic() - saved > config.checkpoint_seconds:
                trainer.save()
                saved = time.monotonic()
    finally:
        source.close()
    trainer.save()
    net = trainer.ema.net
    if trainer.best is not None and trainer.best.step != trainer.step:
        load_best(out / BEST, net)
    rows = read_rows(out / LOG) if (out / LOG).exists() else []
    return Result(
        net, rows, trainer.step, float(trainer.state["seconds"]), not cancelled,
        trainer.best, last, trainer.mean, trainer.std, trainer.state,
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
        "sha256": _digest([pairs.before, pairs.after, pairs.label]),
    }


def _digest(arrays: Any) -> str:
    """Return a hash of arrays' or tensors' values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _essence(state: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a state that makes a training what it is."""
    config = {
        k: v for k, v in state["config"].items() if k not in ("device", "log_steps", "checkpoint_seconds")
    }
    return {**{k: state.get(k) for k in ("network", "data", "start", "mean", "std")}, "config": config}


def _build(network: Mapping[str, Any]) -> SSANet:
    """Return the network; raises ModelError for arguments that describe none."""
    try:
        return SSANet(**network)
    except (TypeError, ValueError) as error:
        raise ModelError(f"The network cannot be built: {error}.", "Choose a preset.") from error


def _fill(net: SSANet, start: Mapping[str, Tensor]) -> None:
    """Copy the weights to begin from; raises ModelError where they belong to another network."""
    try:
        net.load_state_dict(dict(start))
    except RuntimeError as error:
        raise ModelError(
            "The weights to start from belong to another network.", "Choose the preset they were made with."
        ) from error


def _check(config: TrainConfig, sampler: Sampler) -> None:
    """Refuse a configuration that cannot be trained, before anything is written."""
    if not (config.steps > 0 or config.minutes > 0):
        raise ModelError("The training has no end.", "Give a number of steps or minutes.")
    if sampler.crop % MULTIPLE or sampler.crop < LEAST_CROP:
        raise ModelError(
            f"CROP is {sampler.crop}; it must be a multiple of {MULTIPLE} from {LEAST_CROP} on.",
            f"Take {max(sampler.crop // MULTIPLE * MULTIPLE, LEAST_CROP)}.",
        )
    if not 0 < config.lr < 1:
        raise ModelError(f"The learning rate {config.lr:g} is not between 0 and 1.", "Choose about 0.001.")
