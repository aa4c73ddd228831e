"""The training loop: batches, one step, averaging, log, checkpoints (specification 4.3).

A budget of minutes or of steps; the schedule ends with it. A checkpoint of the same configuration
is resumed, with a budget of steps bit for bit.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..task import ModelError
from ..training.checkpoint import load_checkpoint, save_checkpoint
from ..training.ema import Ema
from ..training.log import append_row
from ..training.schedule import progress_of
from .assign import fit_anchors
from .dataset import Packed, batches, draw_weights, spread
from .detect import validate
from .loss import DetectionLoss, momentum_for
from .network import DEFAULT_ANCHORS, SarShipNet
from .schedule import apply_rates, ema_decay, make_optimiser, rates

log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.safetensors"
LOG = "log.csv"
COLUMNS = tuple("step seconds progress lr loss box obj cls positives iou_mean ap50 ap recall".split())
#: Gradients longer than this are shortened; YOLOv5 clips at the same length.
MAX_GRADIENT = 10.0
#: A line of the log covers at least this long.
LOG_SECONDS = 20.0


@dataclass(frozen=True)
class TrainConfig:
    """One training. The budget is ``steps`` if given, else ``minutes``; the schedule ends with it.

    ``shares``: part of all draws that a source gets (dataset.draw_weights). ``decay`` is for a
    nominal batch of 64 and scales with the batch.
    """

    image_size: int = 256
    batch: int = 16
    minutes: float = 60.0
    steps: int = 0
    seed: int = 0
    lr: float = 0.01
    momentum: float = 0.937
    decay: float = 0.0005
    warmup: int = 100
    width: float = 0.25
    depth: float = 0.33
    attention: str = "shuffle"
    head: str = "context"
    obj_branch: str = "sce"
    box_loss: str = "wiou3"
    shares: dict[str, float] = field(default_factory=dict)
    device: str = "cpu"
    checkpoint_seconds: float = 180.0
    validations: int = 5
    validation_chips: int = 64


def build_network(config: TrainConfig, data: Packed) -> SarShipNet:
    """The network of ``config``, with anchors that reach at least 98 % of the training boxes.

    Boxes are measured in half, full and one and a half size, as augmentation shows them.
    """
    sides = data.boxes[:, 2:] - data.boxes[:, :2]
    torch.manual_seed(config.seed)
    default = torch.tensor(DEFAULT_ANCHORS, dtype=torch.float64).numpy()
    anchors, recall = fit_anchors(sides, default, config.seed)
    log.info("anchors %s reach %.4f of %d boxes", anchors.tolist(), recall, len(sides))
    return SarShipNet(
        width=config.width,
        depth=config.depth,
        attention=config.attention,
        head=config.head,
        obj_branch=config.obj_branch,
        anchors=anchors.tolist(),
    )


class Trainer:
    """Network, loss, optimiser and average of one training, and where its budget stands.

    ``step``: steps done. ``seconds``: time used, over all runs. Both come from the checkpoint in
    ``out`` if there is one and ``resume`` is set; one of another training raises ModelError.
    """

    def __init__(self, config: TrainConfig, data: Packed, out: Path, *, resume: bool) -> None:
        self.config, self.path = config, out / CHECKPOINT
        net = build_network(config, data).to(config.device)
        self.net: SarShipNet = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss = DetectionLoss(self.net, config.box_loss).to(config.device)
        decay = config.decay * config.batch / 64
        self.optimiser = make_optimiser(self.net, lr=config.lr, momentum=config.momentum, decay=decay)
        self.ema = Ema(self.net, ema_decay)
        self.amp = torch.amp.GradScaler(enabled=config.device.startswith("cuda"))
        self.state: dict[str, Any] = {"config": json.loads(json.dumps(asdict(config))), "network": net.config}
        self.step, self._used = 0, 0.0
        if resume and self.path.exists():
            self._load()
        self._started = time.monotonic()
        self.net.train()
        self.loss.train()

    def _load(self) -> None:
        """Take over the checkpoint."""
        found = load_checkpoint(self.path, self.net, self.ema, self.optimiser, self.loss)
        if any(found[key] != value for key, value in self.state.items()):
            raise ModelError(f"{self.path} belongs to another training.", "Choose an empty folder.")
        self.step, self._used = int(found["step"]), float(found["seconds"])
        log.info("resumed at step %d after %.0f s", self.step, self._used)

    def save(self) -> None:
        """Write the checkpoint."""
        self.state.update(step=self.step, seconds=self.seconds)
        save_checkpoint(self.path, self.net, self.ema, self.optimiser, self.state, self.loss)

    @property
    def seconds(self) -> float:
        """Time used so far, earlier runs included."""
        return self._used + time.monotonic() - self._started

    @property
    def progress(self) -> float:
        """Part of the budget used up, 0..1 and beyond."""
        minutes = 0.0 if self.config.steps else self.config.minutes
        return progress_of(self.step, self.seconds, steps=self.config.steps, minutes=minutes)

    def learn(self, images: Tensor, targets: Tensor, progress: float) -> dict[str, float]:
        """Do one step at ``progress`` of the schedule; returns the loss and its parts for the log."""
        config = self.config
        now = rates(self.step, progress, lr=config.lr, momentum=config.momentum, warmup=config.warmup)
        apply_rates(self.optimiser, now)
        # the length of the run is known only by its speed: what is left scales with what is done
        self.loss.box.momentum = momentum_for(config.steps or max(self.step, 1) / max(progress, 1e-3))
        with torch.autocast(config.device.partition(":")[0], enabled=self.amp.is_enabled()):
            raw = self.net(images.to(config.device, non_blocking=True))
        loss, parts = self.loss(raw, targets.to(config.device))
        self.optimiser.zero_grad(set_to_none=True)
        self.amp.scale(loss).backward()
        self.amp.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), MAX_GRADIENT)
        self.amp.step(self.optimiser)
        self.amp.update()
        self.ema.update(self.net)
        self.step += 1
        return {**parts, "loss": loss.item() / config.batch, "lr": now.lr}


def train(
    config: TrainConfig,
    data: Packed,
    validation: Packed | None,
    out: Path,
    *,
    resume: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[SarShipNet, dict[str, Any]]:
    """Train and return the averaged network and the final state (step, seconds, scores).

    Writes ``checkpoint.safetensors`` and ``log.csv`` into ``out``. ``stop`` is asked before every
    step; a stopped run leaves its checkpoint. Raises ModelError where the configuration or a
    checkpoint in ``out`` does not fit.
    """
    if config.image_size % 64:
        raise ModelError(f"The image size {config.image_size} is not a multiple of 64.", "Choose 256 or 320.")
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, data, out, resume=resume)
    weights = draw_weights(data, config.shares)
    check = None if validation is None else spread(validation, config.validation_chips)
    rows = batches(data, weights, config.image_size, config.batch, config.seed, trainer.step)
    validated = int(trainer.progress * config.validations)
    saved = logged = time.monotonic()
    since: list[dict[str, float]] = []
    while (progress := trainer.progress) < 1 and not stop():
        since.append(trainer.learn(*next(rows), progress))
        due = int(progress * config.validations) > validated
        if due or time.monotonic() - logged > LOG_SECONDS or trainer.step == config.steps:
            row = {key: sum(part[key] for part in since) / len(since) for key in since[0]}
            row |= {"step": trainer.step, "seconds": trainer.seconds, "progress": progress}
            row["iou_mean"] = float(trainer.loss.box.mean)
            if due and check is not None:
                scores = validate(trainer.ema.net, check, config.device)
                row |= {"ap50": scores.ap50, "ap": scores.ap, "recall": scores.recall_at}
            append_row(out / LOG, row, COLUMNS)
            validated, logged, since = int(progress * config.validations), time.monotonic(), []
        if time.monotonic() - saved > config.checkpoint_seconds:
            trainer.save()
            saved = time.monotonic()
    trainer.save()
    if check is not None:
        trainer.state["scores"] = asdict(validate(trainer.ema.net, check, config.device))
        log.info("last average on %d validation chips: %s", len(check), trainer.state["scores"])
    return trainer.ema.net, trainer.state
