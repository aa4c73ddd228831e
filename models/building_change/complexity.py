"""Parameters and multiply-adds of SSA-Net (specification 08, section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def multiply_adds(net: nn.Module, size: int = 256, channels: int = 3, thop: bool = False) -> int:
    """Multiply-adds of one pair of ``channels`` x ``size`` x ``size``; the meta device will do.

    Of convolutions and transposed convolutions, without biases. ``thop``: as thop 0.1.1 counts, which
    the paper's 6.65 G are: a transposed convolution by its output pixels, four times what it computes,
    and four operations for each value of a batch normalisation.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.ConvTranspose2d):
            kh, kw = layer.kernel_size
            pixels = out.shape[0] * out.shape[2] * out.shape[3] if thop else inputs[0][:, 0].numel()
            total += layer.in_channels * layer.out_channels // layer.groups * kh * kw * pixels
        elif isinstance(layer, nn.Conv2d):
            kh, kw = layer.kernel_size
            total += layer.in_channels // layer.groups * kh * kw * out.numel()
        elif thop:
            total += 4 * out.numel()

    counted = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, counted)]
    training, device = net.training, next(net.parameters()).device
    try:
        empty = torch.zeros(1, channels, size, size, device=device)
        net.eval()(empty, empty)
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return total


def parameters(net: nn.Module) -> int:
    """How many trainable values ``net`` has."""
    return sum(p.numel() for p in net.parameters())
