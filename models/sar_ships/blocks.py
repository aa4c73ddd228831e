"""The convolution blocks of the YOLOv5 v6 structure (specification 01, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv(nn.Module):
    """Convolution without bias, batch normalisation, SiLU; (B, c1, H, W) -> (B, c2, H/s, W/s)."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2 if p is None else p, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(c2, eps=1e-3, momentum=0.03)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise, activate."""
        # in place, autograd would first clone the map: 5 % of a training step on a CPU
        return F.silu(self.bn(self.conv(x)), inplace=not torch.is_grad_enabled())

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the batch normalisation into the convolution; for inference only, cannot be undone."""
        if not isinstance(self.bn, nn.BatchNorm2d):
            return
        bn = self.bn
        if bn.running_mean is None or bn.running_var is None:
            raise ValueError("a batch normalisation without running statistics cannot be folded")
        gain = bn.weight / torch.sqrt(bn.running_var + bn.eps)
        self.conv.weight.mul_(gain[:, None, None, None])
        self.conv.bias = nn.Parameter(bn.bias - bn.running_mean * gain)
        self.bn = nn.Identity()


class Bottleneck(nn.Module):
    """1x1 then 3x3 convolution at constant width, with a residual sum if ``shortcut``."""

    def __init__(self, c: int, *, shortcut: bool = True) -> None:
        super().__init__()
        self.reduce = Conv(c, c, 1)
        self.spread = Conv(c, c, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> the same shape."""
        y = self.spread(self.reduce(x))
        return x + y if self.shortcut else y


class C3(nn.Module):
    """Cross-stage block: n bottlenecks beside a 1x1 path, both at half width, then merged."""

    def __init__(self, c1: int, c2: int, n: int, *, shortcut: bool = True) -> None:
        super().__init__()
        c = c2 // 2
        self.deep = Conv(c1, c, 1)
        self.flat = Conv(c1, c, 1)
        self.blocks = nn.Sequential(*(Bottleneck(c, shortcut=shortcut) for _ in range(n)))
        self.merge = Conv(2 * c, c2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, H, W)."""
        return self.merge(torch.cat((self.blocks(self.deep(x)), self.flat(x)), dim=1))


class SPPF(nn.Module):
    """Spatial pyramid pooling by three chained 5x5 maxima, equal to maxima over 5, 9 and 13."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.reduce = Conv(c, c // 2, 1)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.merge = Conv(2 * c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> the same shape."""
        maps = [self.reduce(x)]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        return self.merge(torch.cat(maps, dim=1))
