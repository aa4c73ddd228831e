"""What is typed into every training of the toolbox, and how it is checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..task import ModelError

Start = TypeVar("Start")


@dataclass(frozen=True)
class Numbers:
    """The numbers that every training has; ``crop``: side of a crop in pixels."""

    epochs: int
    batch: int
    crop: int
    learning_rate: float
    seed: int


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
