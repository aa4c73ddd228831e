"""How far a training is, by steps or by minutes, and the learning rate that follows from it."""

from __future__ import annotations

import math


def progress_of(step: int, seconds: float, *, steps: int, minutes: float) -> float:
    """Part of the budget used up, 0..1 and beyond: of ``steps`` if given (not 0), else of ``minutes``.

    Only a budget of steps repeats bit for bit: how far minutes reach depends on the machine.
    """
    return step / steps if steps else seconds / (60 * minutes)


def cosine_rate(step: int, progress: float, *, lr: float, warmup: int) -> float:
    """Learning rate at ``progress`` 0..1 of the budget: half a cosine from ``lr`` to 0.

    During the first ``warmup`` steps it also rises linearly, the first step taking one part of it.
    """
    rate = lr * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
    return rate * min(1.0, (step + 1) / warmup) if warmup else rate
