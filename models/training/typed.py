"""What is typed into every training of the toolbox, and how it is checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ..task import ModelError

Start = TypeVar("Start")

#: Limits of the numbers that are typed: (lowest, highest, default).
LIMITS: dict[str, tuple[float, float, float]] = {
    "epochs": (1, 10000, 20),
    "batch": (1, 256, 8),
    "crop": (32, 1024, 128),
    "learning_rate": (1e-7, 0.1, 1e-3),
    "seed": (0, 2**31 - 1, 0),
}
#: Below, validation has one or two crops and a batch repeats itself.
LEAST_CROPS = 8
#: Validations, log lines and examples of one training at most: what a curve can show, a report can hold.
CHECKS, LINES, EXAMPLES = 100, 200, 4


@dataclass(frozen=True)
class Numbers:
    """The numbers that every training has; ``crop``: side of a crop in pixels."""

    epochs: int
    batch: int
    crop: int
    learning_rate: float
    seed: int

    def settings(self, crops: int) -> dict[str, Any]:
        """Return what these numbers are in a training's configuration, with ``crops`` to learn from."""
        steps = self.epochs * -(-crops // self.batch)
        return {
            "steps": steps,
            "lr": self.learning_rate,
            "seed": self.seed,
            "validations": min(self.epochs, CHECKS),
            "log_steps": max(1, steps // LINES),
            "checkpoint_seconds": 30.0,
        }


def read_numbers(
    params: Mapping[str, Any], limits: Mapping[str, tuple[float, float, float]], multiple: int
) -> Numbers:
    """Check the numbers, ``limits`` being (lowest, highest, default) of each field of Numbers.

    All but the learning rate are whole, the crop a multiple of ``multiple``. Missing = default. Raises
    ModelError in one sentence, of the first in the order of ``limits``.
    """
    numbers = {name: _number(params, name, *values) for name, values in limits.items()}
    rate = numbers.pop("learning_rate")
    whole = {name: int(value) for name, value in numbers.items()}
    crop = whole["crop"]
    if crop % multiple:
        lower = crop // multiple * multiple
        raise ModelError(
            f"CROP is {crop}; it must be a multiple of {multiple}, such as {lower} or {lower + multiple}."
        )
    return Numbers(learning_rate=rate, **whole)


def _number(params: Mapping[str, Any], name: str, low: float, high: float, default: float) -> float:
    value = params.get(name)
    value = default if value is None else value
    whole = name != "learning_rate"
    good = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not good or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise ModelError(f"{name.upper()} is {value!r}; it must be {kind} from {low:.10g} to {high:.10g}.")
    return float(value)


def read_base(params: Mapping[str, Any], read_start: Callable[[str], Start]) -> Start | None:
    """Read BASE_WEIGHTS with the model's ``read_start``, None where none are typed; raises ModelError."""
    typed = str(params.get("base_weights") or "")
    if not typed.strip():
        return None
    try:
        return read_start(typed)
    except ModelError as error:
        raise ModelError(f"BASE_WEIGHTS: {error.message}", error.hint) from None


def evenly(order: np.ndarray) -> np.ndarray:
    """Return the examples to show of crops in the order of their scores, from end to end: no favourites."""
    chosen: np.ndarray = order[np.unique(np.linspace(0, len(order) - 1, EXAMPLES).round().astype(int))]
    return chosen
