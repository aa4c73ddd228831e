"""Operations of a forward pass by the convention of specification 01, section 3.1."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def gflops(net: nn.Module, size: int = 640) -> float:
    """Giga-operations for one image of ``size`` x ``size``.

    Two per multiply-add of every convolution with its batch normalisation folded in, and two per
    output value of every nearest up-sampling.
    """
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        per_value = 1
        if isinstance(module, nn.Conv2d):
            kh, kw = module.kernel_size
            per_value = module.in_channels // module.groups * kh * kw
        total += 2 * per_value * out[0].numel()

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Upsample))]
    training, device = net.training, next(net.parameters()).device
    try:
        net.eval()(torch.zeros(1, 3, size, size, device=device))
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return total / 1e9


def parameters(net: nn.Module) -> int:
    """How many trainable values ``net`` has."""
    return sum(p.numel() for p in net.parameters())
