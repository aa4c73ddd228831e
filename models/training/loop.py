"""The loop that a training runs in: steps until its budget ends, scores, log lines and checkpoints.

What a paper adds is its step (:meth:`Loop.learn`) and what it measures (:meth:`Loop.validate`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from ..task import ModelError
from .begin import Config, essence
from .checkpoint import load_checkpoint, save_checkpoint
from .ema import Ema
from .log import append_row, keep_rows, read_rows
from .schedule import progress_of

CHECKPOINT, LOG = "checkpoint.safetensors", "log.csv"

Net = TypeVar("Net", bound=nn.Module)
Batch = TypeVar("Batch")
Told = TypeVar("Told")


@dataclass(frozen=True)
class Events(Generic[Told]):
    """What the caller hears and says: ``progress`` after every step, ``cancelled`` before every step."""

    progress: Callable[[Told], None] = lambda progress: None
    cancelled: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Stand:
    """Where a training stands after a step; ``total``: the steps there will be, estimated with minutes."""

    step: int
    total: int
    fraction: float
    seconds: float


class Loop(Generic[Net, Batch]):
    """Network, optimiser and average of one training, and where its budget stands.

    ``state``: what makes the training what it is, as JSON; a checkpoint in ``out`` must say the same and
    is gone on with, unless ``resume`` is False. ``columns``: of the log.
    """

    columns: tuple[str, ...] = ()
    #: Whether a checkpoint follows every validation, where one writes a file that belongs to it.
    saves_scores = False

    def __init__(
        self,
        net: Net,
        optimiser: torch.optim.Optimizer,
        config: Config,
        out: Path,
        state: Mapping[str, Any],
        resume: bool,
    ) -> None:
        self.net, self.optimiser, self.budget, self.out = net, optimiser, config, out
        self.ema = Ema(net)
        self.state: dict[str, Any] = json.loads(json.dumps(state))
        self._essential = tuple(self.state)
        self.step, self._used = 0, 0.0
        if resume and self.path.exists():
            self.load()
        self._started = time.monotonic()
        self.net.train()

    def learn(self, batch: Batch, progress: float) -> dict[str, float]:
        """Do one step at ``progress`` of the schedule; returns its part of the log."""
        raise NotImplementedError

    def validate(self) -> Mapping[str, float]:
        """Measure the average; returns the scores' part of the log."""
        raise NotImplementedError

    def remembered(self) -> dict[str, Any]:
        """Return what else the checkpoint's state has to say, as JSON."""
        return {}

    @property
    def path(self) -> Path:
        """The checkpoint's file."""
        return self.out / CHECKPOINT

    def load(self) -> dict[str, Any]:
        """Take over the checkpoint and return its state; raises ModelError where it is another's."""
        found = load_checkpoint(self.path, self.net, self.ema, self.optimiser)
        if essence(found, self._essential) != essence(self.state, self._essential):
            raise ModelError(
                f"{self.path} belongs to another training.", "Choose an empty folder, or start anew."
            )
        self.step, self._used = int(found["step"]), float(found["seconds"])
        return found

    def save(self) -> None:
        """Write the checkpoint."""
        self.state.update(step=self.step, seconds=self.seconds, **self.remembered())
        save_checkpoint(self.path, self.net, self.ema, self.optimiser, self.state)

    @property
    def seconds(self) -> float:
        """Time used so far, earlier runs included."""
        return self._used + time.monotonic() - self._started

    @property
    def progress(self) -> float:
        """Part of the budget used up, 0..1 and beyond."""
        return progress_of(self.step, self.seconds, steps=self.budget.steps, minutes=self.budget.minutes)

    def set_rate(self, lr: float) -> None:
        """Give the optimiser a learning rate."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr

    def diverged(self, loss: float) -> ModelError:
        """Return the error of a step whose loss or gradient is not finite."""
        return ModelError(
            f"The training diverged at step {self.step + 1}: its loss is {loss:.3g}.",
            f"Choose a learning rate below {self.budget.lr:g}.",
        )

    def run(
        self,
        source: Generator[Batch, None, None],
        validations: int,
        tell: Callable[[Stand, Mapping[str, float], bool], None],
        cancelled: Callable[[], bool],
    ) -> bool:
        """Learn from the batches of ``source`` to the budget's end; False where ``cancelled()`` ended it.

        ``validations``: how often to measure, the end included. ``tell(stand, part of the log, whether
        it was just measured)`` after every step.
        """
        keep_rows(self.out / LOG, self.step, self.columns)
        with closing(source):
            complete = self._run(source, validations, tell, cancelled)
        self.save()
        return complete

    def _run(
        self,
        source: Generator[Batch, None, None],
        validations: int,
        tell: Callable[[Stand, Mapping[str, float], bool], None],
        cancelled: Callable[[], bool],
    ) -> bool:
        validated = int(self.progress * validations)
        saved = time.monotonic()
        since: list[dict[str, float]] = []
        while (progress := self.progress) < 1:
            if cancelled():
                return False
            now = self.learn(next(source), progress)
            since.append(now)
            after = self.progress
            scores = None
            if int(min(after, 1) * validations) > validated:
                validated = int(min(after, 1) * validations)
                scores = self.validate()
            measured = scores is not None
            if len(since) >= self.budget.log_steps or measured or after >= 1:
                row = {key: sum(part[key] for part in since) / len(since) for key in now}
                row |= {"step": self.step, "seconds": self.seconds, "progress": after}
                append_row(self.out / LOG, {**(scores or {}), **row}, self.columns)
                since = []
            total = self.budget.steps or max(self.step, round(self.step / max(after, 1e-6)))
            tell(Stand(self.step, total, min(after, 1), self.seconds), now, measured)
            late = time.monotonic() - saved > self.budget.checkpoint_seconds
            if late or (measured and self.saves_scores):
                self.save()
                saved = time.monotonic()
        return True

    def rows(self) -> list[dict[str, float]]:
        """Return the log's lines, those of earlier runs included."""
        return read_rows(self.out / LOG) if (self.out / LOG).exists() else []
