"""Learning rate, momentum, warm-up and decay of the average over a budget (specification 4.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

#: The last learning rate is this part of the first.
FINAL = 0.01
WARMUP_MOMENTUM, WARMUP_BIAS_LR = 0.8, 0.1


@dataclass(frozen=True)
class Rates:
    """What the optimiser uses for one step."""

    lr: float
    bias_lr: float
    momentum: float


def rates(step: int, progress: float, *, lr: float, momentum: float, warmup: int) -> Rates:
    """Rates of step ``step`` when ``progress`` 0..1 of the budget is used up.

    Linear from ``lr`` to a hundredth of it; during the first ``warmup`` steps the learning rate
    rises from 0, that of biases falls from 0.1, and the momentum rises from 0.8.
    """
    target = lr * (1 - (1 - FINAL) * min(max(progress, 0.0), 1.0))
    if step >= warmup:
        return Rates(target, target, momentum)
    part = step / warmup
    bias = WARMUP_BIAS_LR + (target - WARMUP_BIAS_LR) * part
    return Rates(target * part, bias, WARMUP_MOMENTUM + (momentum - WARMUP_MOMENTUM) * part)


def make_optimiser(net: nn.Module, *, lr: float, momentum: float, decay: float) -> torch.optim.SGD:
    """Nesterov SGD in three groups: biases, other vectors (no decay), weights (decay)."""
    biases: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    weights: list[nn.Parameter] = []
    for name, p in net.named_parameters():
        group = biases if name.endswith("bias") else weights if p.ndim > 1 and p.shape[0] > 1 else vectors
        group.append(p)
    groups = [
        {"params": biases, "weight_decay": 0.0, "bias": True},
        {"params": vectors, "weight_decay": 0.0, "bias": False},
        {"params": weights, "weight_decay": decay, "bias": False},
    ]
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=True)


def apply_rates(optimiser: torch.optim.Optimizer, now: Rates) -> None:
    """Write one step's rates into the optimiser."""
    for group in optimiser.param_groups:
        group["lr"] = now.bias_lr if group["bias"] else now.lr
        group["momentum"] = now.momentum


def ema_decay(updates: int) -> float:
    """Decay of the average after ``updates`` steps; the ramp lets a short run forget its random start."""
    return 0.9999 * (1 - math.exp(-updates / 2000))
