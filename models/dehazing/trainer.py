"""The training loop of DWTMA-Net: one function that the command line and the toolbox call.

What the paper states: the loss, cosine annealing of the learning rate to 0. What it does not: AdamW
(0.9, 0.999) and PyTorch's weight decay, as in MixDehazeNet; a warm-up, clipped gradients and averaged
weights are ours. A checkpoint of the same training is resumed; with a budget of steps bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..task import ModelError
from ..training.begin import begin, check_budget, described, digest, prepare_folder
from ..training.loop import CHECKPOINT, LOG, Events, Loop, Stand
from ..training.schedule import cosine_rate
from .data import Pairs, Sampler, batches, unit
from .loss import LAMBDA, loss_terms
from .metrics import psnr
from .network import PRESETS, DWTMANet
from .restore import restore
from .simulate import rounded

__all__ = [
    "BEST_PSNR",
    "CHECKPOINT",
    "LOG",
    "Events",
    "Progress",
    "Result",
    "TrainConfig",
    "describe_data",
    "mean_psnr",
    "train",
]

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


class Trainer(Loop[DWTMANet, tuple[np.ndarray, np.ndarray]]):
    """Network, optimiser and average of one training; ``psnr`` where this step's average was measured."""

    columns = COLUMNS

    def __init__(
        self,
        sampler: Sampler,
        config: TrainConfig,
        out: Path,
        validation: Pairs | None,
        start: Mapping[str, Tensor] | None,
        resume: bool,
    ) -> None:
        self.config, self.validation = config, validation
        self.psnr: float | None = None
        net = begin(DWTMANet, config, start)
        optimiser = torch.optim.AdamW(
            net.parameters(), lr=config.lr, betas=(0.9, 0.999), weight_decay=config.decay
        )
        state = described(config, net.config, describe_data(sampler), start)
        super().__init__(net, optimiser, config, out, state, resume)

    def learn(self, batch: tuple[np.ndarray, np.ndarray], progress: float) -> dict[str, float]:
        """Do one step at ``progress`` of the schedule on hazy and clear in 0..1; returns its log."""
        config, self.psnr = self.config, None
        hazy, clear = batch
        lr = cosine_rate(self.step, progress, lr=config.lr, warmup=config.warmup)
        self.set_rate(lr)
        pixels, fourier = loss_terms(self.net(self._to_network(hazy)), self._to_network(clear))
        loss = pixels + LAMBDA * fourier
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        gradient = float(torch.nn.utils.clip_grad_norm_(self.net.parameters(), config.clip))
        if not (math.isfinite(gradient) and math.isfinite(loss.item())):
            raise self.diverged(loss.item())
        self.optimiser.step()
        self.ema.update(self.net)
        self.step += 1
        terms = {"loss": loss.item(), "pixels": pixels.item(), "fourier": fourier.item()}
        return {**terms, "gradient": gradient, "lr": lr}

    def validate(self) -> dict[str, float]:
        """Measure the average."""
        assert self.validation is not None, "no pairs to measure"
        self.psnr = mean_psnr(self.ema.net, self.validation)
        return {"psnr": self.psnr}

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
    events: Events[Progress] | None = None,
    resume: bool = True,
) -> Result:
    """Train and return the averaged network, whether the budget ended it or ``events.cancelled``.

    ``start``: the state of a network of the same configuration to begin from (weights.read_start),
    None begins with random numbers. Writes ``checkpoint.safetensors`` and ``log.csv`` into ``out``;
    a checkpoint there is resumed, unless ``resume`` is False. The process's number of threads is the
    caller's to set. Raises ModelError before any step where the configuration, ``start`` or the
    checkpoint does not fit, and where the training diverges.
    """
    hear = events or Events[Progress]()
    _check(config, sampler)
    prepare_folder(out, (CHECKPOINT, LOG), resume)
    trainer = Trainer(sampler, config, out, validation, start, resume)

    def tell(stand: Stand, now: Mapping[str, float], measured: bool) -> None:
        terms = {name: now[name] for name in ("lr", "loss", "pixels", "fourier")}
        hear.progress(Progress(**{**vars(stand), **terms}, psnr=trainer.psnr))

    checks = config.validations if validation is not None and len(validation) else 0
    complete = trainer.run(batches(sampler, trainer.step), checks, tell, hear.cancelled)
    score, before = trainer.psnr, None
    if checks and validation is not None and complete:  # who cancels does not wait for a score
        score = mean_psnr(trainer.ema.net, validation) if score is None else score
        before = mean_psnr(None, validation)
    last, seconds = trainer.net.eval(), float(trainer.state["seconds"])
    return Result(
        trainer.ema.net, last, trainer.rows(), trainer.step, seconds, complete, score, before, trainer.state
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
        "sha256": digest(arrays),
    }


def _check(config: TrainConfig, sampler: Sampler) -> None:
    """Refuse a configuration that cannot be trained, before anything is written."""
    check_budget(config)
    if sampler.crop % 8:
        raise ModelError(
            f"CROP is {sampler.crop}; it must be a multiple of 8.", f"Take {sampler.crop // 8 * 8}."
        )
    if not 0 < config.lr < 1:
        raise ModelError(f"The learning rate {config.lr:g} is not between 0 and 1.", "Choose about 0.0005.")
