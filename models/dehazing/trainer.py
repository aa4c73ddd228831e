"""The training loop of DWTMA-Net: one function that the command line and the toolbox call.

What the paper states: the loss, cosine annealing of the learning rate to 0. What it does not: AdamW
(0.9, 0.999) and PyTorch's weight decay, as in MixDehazeNet; a warm-up, clipped gradients and averaged
weights are ours. A checkpoint of the same training is resumed; with a budget of steps bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..task import ModelError
from ..training.checkpoint import load_checkpoint, save_checkpoint
from ..training.ema import Ema
from ..training.log import append_row, keep_rows, read_rows
from ..training.schedule import cosine_rate, progress_of
from .data import Pairs, Sampler, batches, unit
from .loss import LAMBDA, loss_terms
from .metrics import psnr
from .network import PRESETS, DWTMANet
from .restore import restore
from .simulate import rounded

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.csv"
#: Of a picture that needs no restoring PSNR is infinite; an error of one count in all values is 48 dB.
BEST_PSNR = 48.0
COLUMNS = tuple("step seconds progress lr loss pixels fourier gradient psnr".split())


@dataclass(frozen=True)
class TrainConfig:
    """How to train, apart from the data. The budget: ``steps``, ``minutes``, or what ends first of both.

    ``network``: DWTMANet's arguments. ``clip``: gradients longer than this are shortened to it.
    ``validations``: how often the average is measured, the end included. A line of the log covers
    ``log_steps`` steps.
    """

    network: Mapping[str, Any] = field(default_factory=lambda: PRESETS["small"])
    steps: int = 0
    minutes: float = 0.0
    lr: float = 1e-3
    warmup: int = 50
    decay: float = 0.01
    clip: float = 10.0
    seed: int = 0
    device: str = "cpu"
    validations: int = 5
    log_steps: int = 25
    checkpoint_seconds: float = 60.0


@dataclass(frozen=True)
class Progress:
    """Where a training stands after a step.

    ``total``: the steps there will be, estimated where minutes are the budget. ``loss`` = ``pixels`` +
    0.1 ``fourier``, of this step, in the paper's units. ``psnr``: mean of the average's restorations
    of the validation pairs in dB, where they were just measured, else None.
    """

    step: int
    total: int
    fraction: float
    seconds: float
    lr: float
    loss: float
    pixels: float
    fourier: float
    psnr: float | None


@dataclass(frozen=True)
class Events:
    """What the caller hears and says: ``progress`` after every step, ``cancelled`` before every step."""

    progress: Callable[[Progress], None] = lambda progress: None
    cancelled: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Result:
    """A training's end: averaged weights (eval mode), last weights, log lines, and whether it is complete.

    ``psnr``: of the average on the validation pairs in dB, ``before``: of their hazy images; None
    without such pairs. ``state``: what the checkpoint says (config, network, data, step, seconds).
    """

    net: DWTMANet
    last: DWTMANet
    rows: list[dict[str, float]]
    step: int
    seconds: float
    complete: bool
    psnr: float | None
    before: float | None
    state: dict[str, Any]


class Trainer:
    """Network, optimiser and average of one training, and where its budget stands."""

    def __init__(
        self,
        sampler: Sampler,
        config: TrainConfig,
        out: Path,
        start: Mapping[str, Tensor] | None,
        resume: bool,
    ) -> None:
        self.config, self.path = config, out / CHECKPOINT
        torch.manual_seed(config.seed)
        net = _build(config.network)
        if start is not None:
            _fill(net, start)
        self.net: DWTMANet = net.to(config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), lr=config.lr, betas=(0.9, 0.999), weight_decay=config.decay
        )
        self.ema = Ema(self.net)
        self.state: dict[str, Any] = json.loads(
            json.dumps(
                {
                    "config": asdict(config),
                    "network": net.config,
                    "data": describe_data(sampler),
                    "start": "" if start is None else _digest(start.values()),
                }
            )
        )
        self.step, self._used = 0, 0.0
        if resume and self.path.exists():
            self._load()
        self._started = time.monotonic()
        self.net.train()

    def _load(self) -> None:
        """Take over the checkpoint; how often to save and log may differ, and where to compute."""
        found = load_checkpoint(self.path, self.net, self.ema, self.optimiser)
        if _essence(found) != _essence(self.state):
            raise ModelError(
                f"{self.path} belongs to another training.", "Choose an empty folder, or start anew."
            )
        self.step, self._used = int(found["step"]), float(found["seconds"])

    def save(self) -> None:
        """Write the checkpoint."""
        self.state.update(step=self.step, seconds=self.seconds)
        save_checkpoint(self.path, self.net, self.ema, self.optimiser, self.state)

    @property
    def seconds(self) -> float:
        """Time used so far, earlier runs included."""
        return self._used + time.monotonic() - self._started

    @property
    def progress(self) -> float:
        """Part of the budget used up, 0..1 and beyond."""
        return progress_of(self.step, self.seconds, steps=self.config.steps, minutes=self.config.minutes)

    def learn(self, hazy: np.ndarray, clear: np.ndarray, progress: float) -> dict[str, float]:
        """Do one step at ``progress`` of the schedule on a batch in 0..1; returns its part of the log."""
        config = self.config
        lr = cosine_rate(self.step, progress, lr=config.lr, warmup=config.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        pixels, fourier = loss_terms(self.net(self._to_network(hazy)), self._to_network(clear))
        loss = pixels + LAMBDA * fourier
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        gradient = float(torch.nn.utils.clip_grad_norm_(self.net.parameters(), config.clip))
        if not (math.isfinite(gradient) and math.isfinite(loss.item())):
            raise ModelError(
                f"The training diverged at step {self.step + 1}: its loss is {loss.item():.3g}.",
                f"Choose a learning rate below {config.lr:g}.",
            )
        self.optimiser.step()
        self.ema.update(self.net)
        self.step += 1
        terms = {"loss": loss.item(), "pixels": pixels.item(), "fourier": fourier.item()}
        return {**terms, "gradient": gradient, "lr": lr}

    def _to_network(self, image: np.ndarray) -> Tensor:
        """Counts in 0..1 (B, 3, H, W) as the network takes them, -1..1."""
        x = torch.from_numpy(np.ascontiguousarray(image)).to(self.config.device)
        return (x * 2 - 1).contiguous(memory_format=torch.channels_last)


def train(
    sampler: Sampler,
    config: TrainConfig,
    out: Path,
    *,
    validation: Pairs | None = None,
    start: Mapping[str, Tensor] | None = None,
    events: Events | None = None,
    resume: bool = True,
) -> Result:
    """Train and return the averaged network, whether the budget ended it or ``events.cancelled``.

    ``start``: the state of a network of the same configuration to begin from (weights.read_start),
    None begins with random numbers. Writes ``checkpoint.safetensors`` and ``log.csv`` into ``out``;
    a checkpoint there is resumed, unless ``resume`` is False. The process's number of threads is the
    caller's to set. Raises ModelError before any step where the configuration, ``start`` or the
    checkpoint does not fit, and where the training diverges.
    """
    events = events or Events()
    _check(config, sampler)
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        for name in (CHECKPOINT, LOG):
            (out / name).unlink(missing_ok=True)
    trainer = Trainer(sampler, config, out, start, resume)
    keep_rows(out / LOG, trainer.step, COLUMNS)
    checks = config.validations if validation is not None and len(validation) else 0
    validated = int(trainer.progress * checks)
    saved = time.monotonic()
    since: list[dict[str, float]] = []
    score, cancelled = None, False
    source = batches(sampler, trainer.step)
    try:
        while (progress := trainer.progress) < 1:
            if cancelled := events.cancelled():
                break
            now = trainer.learn(*next(source), progress)
            since.append(now)
            after = trainer.progress
            score = None
            if validation is not None and int(min(after, 1) * checks) > validated:
                validated = int(min(after, 1) * checks)
                score = mean_psnr(trainer.ema.net, validation)
            if len(since) >= config.log_steps or score is not None or after >= 1:
                row = {key: sum(part[key] for part in since) / len(since) for key in now}
                row |= {"step": trainer.step, "seconds": trainer.seconds, "progress": after}
                append_row(out / LOG, row if score is None else {**row, "psnr": score}, COLUMNS)
                since = []
            total = config.steps or max(trainer.step, round(trainer.step / max(after, 1e-6)))
            terms = {name: now[name] for name in ("lr", "loss", "pixels", "fourier")}
            events.progress(
                Progress(trainer.step, total, min(after, 1), trainer.seconds, psnr=score, **terms)
            )
            if time.monotonic() - saved > config.checkpoint_seconds:
                trainer.save()
                saved = time.monotonic()
    finally:
        source.close()
    trainer.save()
    before = None
    if checks and validation is not None and not cancelled:  # who cancels does not wait for a score
        score = mean_psnr(trainer.ema.net, validation) if score is None else score
        before = mean_psnr(None, validation)
    rows = read_rows(out / LOG) if (out / LOG).exists() else []
    last = trainer.net.eval()
    seconds = float(trainer.state["seconds"])
    return Result(
        trainer.ema.net, last, rows, trainer.step, seconds, not cancelled, score, before, trainer.state
    )


def mean_psnr(net: DWTMANet | None, pairs: Pairs) -> float:
    """Mean PSNR in dB of the restored pairs, of 8-bit counts; without a network that of the hazy ones."""
    found = []
    for hazy, clear in zip(pairs.hazy, pairs.clear, strict=True):
        image = unit(hazy) if net is None else rounded(restore(net, unit(hazy)))
        found.append(min(psnr(image, unit(clear)), BEST_PSNR))
    return float(np.mean(found))


def describe_data(sampler: Sampler) -> dict[str, Any]:
    """What tells one training's data from another's: sizes, shares, ranges, and a hash of the values."""
    arrays = [*sampler.scenes]
    if sampler.pairs is not None:
        arrays += [sampler.pairs.hazy, sampler.pairs.clear]
    return {
        "crop": sampler.crop,
        "batch": sampler.batch,
        "seed": sampler.seed,
        "real_share": sampler.real_share,
        **({"thinned": sampler.thinned} if sampler.thinned else {}),
        **({"toned": sampler.toned} if sampler.toned else {}),
        "ranges": asdict(sampler.ranges),
        "scenes": sum(map(len, sampler.scenes)),
        "pairs": 0 if sampler.pairs is None else len(sampler.pairs),
        "sha256": _digest(arrays),
    }


def _digest(arrays: Any) -> str:
    """Return a hash of arrays' or tensors' values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _essence(state: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a state that makes a training what it is."""
    config = {
        k: v for k, v in state["config"].items() if k not in ("device", "log_steps", "checkpoint_seconds")
    }
    return {**{k: state.get(k) for k in ("network", "data", "start")}, "config": config}


def _build(network: Mapping[str, Any]) -> DWTMANet:
    """Return the network; raises ModelError for arguments that describe none."""
    try:
        return DWTMANet(**network)
    except (TypeError, ValueError) as error:
        raise ModelError(f"The network cannot be built: {error}.", "Choose a preset.") from error


def _fill(net: DWTMANet, start: Mapping[str, Tensor]) -> None:
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
    if sampler.crop % 8:
        raise ModelError(
            f"CROP is {sampler.crop}; it must be a multiple of 8.", f"Take {sampler.crop // 8 * 8}."
        )
    if not 0 < config.lr < 1:
        raise ModelError(f"The learning rate {config.lr:g} is not between 0 and 1.", "Choose about 0.0005.")
