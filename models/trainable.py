"""The seam between engine and trainings: what a model declares to be trained on a user's own layers.

What :class:`~.task.Task` is for a prediction, :class:`Training` is for a Job of kind ``train``. The
engine opens the layers, cuts and scales crops, tells progress and writes the weight file; the model
learns. No torch here, so that the engine and a toy can use it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .task import Card, Input


@dataclass(frozen=True, eq=False)
class Crops:
    """Squares of the user's layers, cut on a fixed lattice and scaled as a prediction would.

    ``images``: role -> float32 (N, C, S, S), without an invalid pixel; a layer that was not given is
    absent. Two dates (:attr:`Training.pair`) in 8 bits stay uint8 counts, a quarter of the memory; labels
    are uint8, 1 inside of the polygons and 0 outside. ``validation``: bool (N,), True for crops that are
    scored and never learned from; they lie in spatial blocks, or images, of their own.
    """

    images: Mapping[str, np.ndarray]
    validation: np.ndarray

    def part(self, role: str, validation: bool) -> np.ndarray | None:
        """Return one role's crops for learning or for validation, None where the layer is absent."""
        images = self.images.get(role)
        return None if images is None else images[self.validation == validation]


@dataclass(frozen=True)
class Moment:
    """Where a training stands: ``done`` of ``total`` steps.

    ``row``: what an epoch that has just ended measured, empty between two ends: ``epoch``, the mean of
    each loss over it, and validation scores.
    """

    done: int
    total: int
    row: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Example:
    """A validation crop for the report: float32 (C, S, S) in 0..1, the best guess and the truth.

    ``caption``: what the three pictures show, and how good the guess is.
    """

    before: np.ndarray
    after: np.ndarray
    truth: np.ndarray
    caption: str


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished training.

    ``tensors``: the network's state as models/weights.py saves it; ``buffers``: names that stay in
    float32. ``card``: whole but for ``data`` and ``command``, which only the engine knows. ``history``:
    the rows of all epochs, of earlier parts of a resumed training too. ``losses``, ``scores``: which of
    their columns are curves, column -> label with its unit. ``lines``: scores that are no curve, score ->
    {label: value}, such as the untreated input's. ``summary``: a table for the report, the first row its
    header. ``notes``: what a reader of the figures must know. ``warnings``: what the user must know, such
    as a result that is no better than a simple method's.
    """

    tensors: Mapping[str, Any]
    buffers: Collection[str]
    card: Card
    history: Sequence[Mapping[str, float]]
    losses: Mapping[str, str]
    scores: Mapping[str, str]
    lines: Mapping[str, Mapping[str, float]]
    summary: Sequence[Sequence[Any]]
    examples: Sequence[Example]
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Training:
    """A model, ready to learn.

    ``inputs``: the layers it takes, the one that predictions will see first; all are scaled by the first
    one's ``scale``. ``required``: roles without which it cannot learn. ``crop``: side of a crop in pixels.
    ``labels``: the role that is a polygon layer, drawn on the first layer's grid, "" = none. ``pair``: the
    inputs are two dates of one ground, laid on each other and stretched as a prediction does.
    ``folders``: role -> sub-folder of a tile folder that may stand for the layers, empty = it may not.
    ``least``: crops below which learning makes no sense. ``notes``: ``algorithm`` is the id that a user
    calls it by, ``missing`` a hint for each required role, ``warnings`` what to say before it starts.
    ``key``: of what it starts from (a hash of base weights), so that a checkpoint of another start is not
    taken up.

    ``learn(crops, folder, tell, stop)``: keeps its checkpoint in ``folder``, takes up the one it finds
    there, and gives the same result whether it was interrupted or not. ``tell(Moment)`` after every step,
    ``stop() -> bool`` is asked before each; once it says so, the checkpoint is written and None returned.
    """

    name: str
    inputs: tuple[Input, ...]
    required: tuple[str, ...]
    crop: int
    least: int
    learn: Callable[[Crops, Path, Callable[[Moment], None], Callable[[], bool]], Trained | None]
    key: str = ""
    labels: str = ""
    pair: bool = False
    folders: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


#: (params, device) -> Training. ``params``: the Job's, lower-case keys; ``device``: resolved. Raises
#: ModelError for parameters and base weights that do not fit, before anything is read.
Trainer = Callable[[Mapping[str, Any], str], Training]
