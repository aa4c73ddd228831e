"""The loop that a training runs in: steps until its budget ends, scores, log lines and checkpoints.

What a paper adds is its step (:meth:`Loop.learn`) and what it measures (:meth:`Loop.validate`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import Field, asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..task import ModelError
from .checkpoint import load_checkpoint, save_checkpoint
from .ema import Ema
from .log import append_row, keep_rows, read_rows
from .schedule import progress_of

CHECKPOINT, LOG = "checkpoint.safetensors", "log.csv"
#: Settings that may differ when a training goes on: where it computes, how often it saves and logs.
ELSEWHERE = ("device", "log_steps", "checkpoint_seconds")

Net = TypeVar("Net", bound=nn.Module)
Batch = TypeVar("Batch")
Told = TypeVar("Told")


class Config(Protocol):
    """What the loop reads of a training's configuration, a dataclass that JSON can hold.

    The budget: ``steps``, ``minutes``, or what ends first of both.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def network(self) -> Mapping[str, Any]:
        """The network's arguments."""

    @property
    def steps(self) -> int:
        """Of the budget; 0 = no limit."""

    @property
    def minutes(self) -> float:
        """Of the budget; 0 = no limit."""

    @property
    def lr(self) -> float:
        """The highest learning rate."""

    @property
    def seed(self) -> int:
        """Of the network's first weights."""

    @property
    def device(self) -> str:
        """As torch names it."""

    @property
    def log_steps(self) -> int:
        """Steps of one line of the log."""

    @property
    def checkpoint_seconds(self) -> float:
        """Between two checkpoints."""


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


def begin(make: Callable[..., Net], config: Config, start: Mapping[str, Tensor] | None) -> Net:
    """Return the network to train, on its device: weights from the seed, or ``start``'s.

    Raises ModelError for arguments that describe no network and weights that belong to another.
    """
    torch.manual_seed(config.seed)
    try:
        net = make(**config.network)
    except (TypeError, ValueError) as error:
        raise ModelError(f"The network cannot be built: {error}.", "Choose a preset.") from error
    if start is not None:
        try:
            net.load_state_dict(dict(start))
        except RuntimeError as error:
            raise ModelError(
                "The weights to start from belong to another network.",
                "Choose the preset they were made with.",
            ) from error
    placed: Net = net.to(config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def described(
    config: Config, network: Mapping[str, Any], data: Mapping[str, Any], start: Mapping[str, Tensor] | None
) -> dict[str, Any]:
    """Return what tells one training from another: settings, network, data, and what it began from."""
    return {
        "config": asdict(config),
        "network": dict(network),
        "data": dict(data),
        "start": "" if start is None else digest(start.values()),
    }


def digest(arrays: Any) -> str:
    """Return a hash of arrays' or tensors' values."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def essence(state: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """Return the part of a state that makes a training what it is."""
    config = {key: value for key, value in state["config"].items() if key not in ELSEWHERE}
    return {**{key: state.get(key) for key in keys}, "config": config}


def prepare_folder(out: Path, names: tuple[str, ...], resume: bool) -> None:
    """Make the folder of a training; without ``resume`` remove what another one left there."""
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        for name in names:
            (out / name).unlink(missing_ok=True)


def check_budget(config: Config) -> None:
    """Refuse a training without an end; raises ModelError."""
    if not (config.steps > 0 or config.minutes > 0):
        raise ModelError("The training has no end.", "Give a number of steps or minutes.")
