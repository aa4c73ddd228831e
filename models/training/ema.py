"""Moving average of a network's weights: what a training ships instead of its last step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def scaled_decay(updates: int, longest: float = 0.999) -> float:
    """Decay after ``updates`` steps: the average reaches back over about a ninth of them.

    So it fits a run of any length, and forgets the random start of a short one. Above 9000 steps it
    stays at ``longest``, an average over 1000 steps.
    """
    return min(longest, (1 + updates) / (10 + updates))


class Ema(Generic[Net]):
    """Average of a network's weights and statistics; ``decay(updates)`` is what a step keeps of it."""

    def __init__(self, net: Net, decay: Callable[[int], float] = scaled_decay) -> None:
        self.net: Net = copy.deepcopy(net).eval()
        self.updates = 0
        self._decay = decay
        for p in self.net.parameters():
            p.requires_grad_(False)

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Take one step towards ``net``; whole numbers are copied."""
        self.updates += 1
        mine, theirs = [], []
        for a, b in zip(self.net.state_dict().values(), net.state_dict().values(), strict=True):
            if a.is_floating_point():
                mine.append(a)
                theirs.append(b)
            else:
                a.copy_(b)
        torch._foreach_lerp_(mine, theirs, 1 - self._decay(self.updates))
