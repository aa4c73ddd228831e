"""Multiply-adds of a forward pass as the paper's Table 4 counts them (specification 07, section 3.6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def multiply_adds(module: nn.Module, size: int = 512, channels: int = 3) -> int:
    """Operations for one input of ``channels`` x ``size`` x ``size``; the module may live on the meta device.

    As thop counts: every convolution's multiply-adds without its bias, four per value of a batch
    normalisation, one per pooled value and one per mean; nothing for activations, wavelets, Fourier
    transforms and products.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            kh, kw = layer.kernel_size
            total += layer.in_channels // layer.groups * kh * kw * out.numel()
        elif isinstance(layer, nn.BatchNorm2d):
            total += 4 * out.numel()
        else:
            total += inputs[0].numel() + out.numel()

    counted = (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d)
    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, counted)]
    training, device = module.training, next(module.parameters()).device
    try:
        module.eval()(torch.zeros(1, channels, size, size, device=device))
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    return total


def parameters(module: nn.Module) -> int:
    """How many trainable values ``module`` has."""
    return sum(p.numel() for p in module.parameters())
