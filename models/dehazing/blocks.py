"""The blocks of DWTMA-Net: DWB, MAB, and the StarNet block its ablation starts from.

Equations 3-12 of paper 07; widths by the count in the specification, section 3.6.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import ChannelAttention, FourierAttention, PixelAttention
from .wavelet import dwt, idwt

#: Slope of SAOD's LeakyReLU; not in the paper.
SLOPE = 0.2


class SAOD(nn.Module):
    """The scattering model, learned, on the low-pass band: f' = K f - K + b (equations 4-7)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.k = nn.Sequential(
            nn.Conv2d(c, 2 * c, 3, padding=1, bias=False),
            nn.Conv2d(2 * c, 2 * c, 3, padding=1, bias=False),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * c, c, 3, padding=1, bias=False),
            nn.Sigmoid(),
        )
        self.b = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(c, 2 * c, 1, bias=False),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * c, c, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, f: Tensor) -> Tensor:
        """(B, c, h, w) -> the same shape."""
        k = self.k(f)
        return k * f - k + self.b(f)


class DilateRes(nn.Module):
    """Three 3x3 convolutions of dilation 1, 2, 1 around the identity."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c, c, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(c, c, 3, padding=2, dilation=2, bias=False),
            nn.ReLU(),
            nn.Conv2d(c, c, 3, padding=1, bias=False),
        )

    def forward(self, z: Tensor) -> Tensor:
        """(B, c, h, w) -> the same shape."""
        return z + self.body(z)


class DWB(nn.Module):
    """Discrete wavelet block: SAOD on the low-pass band, one shared DilateRes on the details (equation 8)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.low: nn.Module = SAOD(c)
        self.detail: nn.Module = DilateRes(c)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W), both sides even -> the same shape."""
        ll, *details = dwt(x)
        hl, lh, hh = self.detail(torch.cat(details)).chunk(3)
        return idwt(self.low(ll), hl, lh, hh)


class MAB(nn.Module):
    """Multi-dimensional attention block: pixel plus channel attention, gated by the Fourier one.

    ``kernel``: of the depthwise convolution in front. ``expansion``: inner channels per channel.
    ``branch_bn``: one more normalisation in both branches of equation 9. An attention that is off
    leaves its place: without PA the sum is CA(x1), without CA it is PA(x1), without both x1; without
    FAM the gate is 1.
    """

    def __init__(
        self,
        c: int,
        *,
        kernel: int = 7,
        expansion: int = 2,
        branch_bn: bool = False,
        use_pa: bool = True,
        use_ca: bool = True,
        use_fam: bool = True,
        ca_reduction: int = 8,
        fam_layers: int = 2,
    ) -> None:
        super().__init__()
        m = expansion * c
        self.local = nn.Sequential(nn.Conv2d(c, c, kernel, padding=kernel // 2, groups=c), nn.BatchNorm2d(c))
        self.point = _branch(c, m, 1, branch_bn)
        self.area = _branch(c, m, 3, branch_bn)
        self.mix = nn.Sequential(nn.ReLU(), nn.Conv2d(m, m, 3, padding=1))
        self.pa = PixelAttention(m) if use_pa else None
        self.ca = ChannelAttention(m, ca_reduction) if use_ca else None
        self.fam = FourierAttention(m, fam_layers) if use_fam else None
        self.out = nn.Sequential(nn.Conv2d(m, c, 1), nn.Conv2d(c, c, 3, padding=1, groups=c))

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> the same shape."""
        x0 = self.local(x)
        x1 = self.mix(self.point(x0) + self.area(x0))
        on = [attention(x1) for attention in (self.pa, self.ca) if attention is not None]
        xa = sum(on[1:], on[0]) if on else x1
        if self.fam is not None:
            xa = xa * torch.sigmoid(self.fam(x1))
        return self.out(xa) + x


class StarBlock(nn.Module):
    """StarNet's block, the base of the paper's ablation: two expansions multiplied, around the identity."""

    def __init__(self, c: int, expansion: int = 3) -> None:
        super().__init__()
        m = expansion * c
        self.local = nn.Sequential(nn.Conv2d(c, c, 7, padding=3, groups=c), nn.BatchNorm2d(c))
        self.left = nn.Sequential(nn.Conv2d(c, m, 1), nn.ReLU6())
        self.right = nn.Conv2d(c, m, 1)
        self.out = nn.Sequential(
            nn.Conv2d(m, c, 1), nn.BatchNorm2d(c), nn.Conv2d(c, c, 7, padding=3, groups=c)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> the same shape."""
        x0 = self.local(x)
        return self.out(self.left(x0) * self.right(x0)) + x


def _branch(c: int, m: int, kernel: int, bn: bool) -> nn.Sequential:
    conv = nn.Conv2d(c, m, kernel, padding=kernel // 2)
    return nn.Sequential(conv, nn.BatchNorm2d(m)) if bn else nn.Sequential(conv)
