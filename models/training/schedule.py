"""How far a training is, by steps or by minutes, and the learning rate that follows from it."""

from __future__ import annotations

import math


def progress_of(step: int, seconds: float, *, steps: int = 0, minutes: float = 0.0) -> float:
    """Part of the budget used up, 0..1 and beyond; with both limits, that of the one further on.

    0 is no limit. Only a run that its steps ended repeats bit for bit: how far minutes reach depends
    on the machine.
    """
    if not (steps or minutes):
        raise ValueError("a training needs a budget of steps or minutes")
    return max(step / steps if steps else 0.0, seconds / (60 * minutes) if minutes else 0.0)


def cosine_rate(step: int, progress: float, *, lr: float, warmup: int) -> float:
    """Learning rate at ``progress`` 0..1 of the budget: half a cosine from ``lr`` to 0.

    During the first ``warmup`` steps it also rises linearly, the first step taking one part of it.
    """
    rate = lr * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
    return rate * min(1.0, (step + 1) / warmup) if warmup else rate
