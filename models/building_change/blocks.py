"""The blocks of SSA-Net: SSIF, CSHConv and the double convolutions (paper 08, equations 1-5).

What the paper does not print (groups, normalisation inside CSHConv, where SSIF stands) follows from its
parameter count and from USSFC-Net, its template: specification, sections 3.2 to 3.4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Keeps a constant channel or pixel from dividing by zero; not printed in the paper.
EPS = 1e-6


class SSIF(nn.Module):
    """Spatial and spectral integration fusion: an attention without parameters (equation 5).

    A value weighs the more the further it lies from its channel's mean and from its pixel's. As
    printed: no exponential, no minus sign, although the text calls it Gaussian. ``gaussian``: an
    experiment of ours, exp(-s) in place of the sigmoid.
    """

    def __init__(self, gaussian: bool = False) -> None:
        super().__init__()
        self.gaussian = gaussian

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape; the weights are taken in float32."""
        values = x.float()
        score = _deviation(values, (2, 3)) + _deviation(values, (1,)) + 0.5
        weight = torch.exp(-score) if self.gaussian else torch.sigmoid(score)
        return x * weight.to(x.dtype)


def _deviation(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """(x - mean)^2 / (2 variance + eps), both over ``axes``; the variance is the population's."""
    away = (x - x.mean(axes, keepdim=True)).square()
    return away / (2 * away.mean(axes, keepdim=True) + EPS)


class CSHConv(nn.Module):
    """Channel-split heterogeneous convolution: half the channels from a 1x1, half from a mixed 3x3 and 1x1.

    ``groups``: of the 3x3 (equation 3). ``ssif_at``: ``het``, the mixed half, or ``out``, both.
    """

    def __init__(
        self, c: int, c_out: int, *, groups: int, use_ssif: bool, ssif_at: str, gaussian: bool
    ) -> None:
        super().__init__()
        half = c_out // 2
        self.point = nn.Sequential(nn.Conv2d(c, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU())
        self.area = nn.Conv2d(half, half, 3, padding=1, groups=groups, bias=False)
        self.mix = nn.Conv2d(half, half, 1, bias=False)
        self.join = nn.Sequential(nn.BatchNorm2d(half), nn.ReLU())
        attention = SSIF(gaussian) if use_ssif else None
        self.het = attention if ssif_at == "het" else None
        self.out = attention if ssif_at == "out" else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> (B, c_out, H, W); the last half is the 1x1's own answer (equation 4)."""
        o1 = self.point(x)
        o2 = self.join(self.area(o1) + self.mix(o1))
        if self.het is not None:
            o2 = self.het(o2)
        both = torch.cat((o2, o1), dim=1)
        return both if self.out is None else self.out(both)


def double_plain(c: int, c_out: int, use_ssif: bool, gaussian: bool) -> nn.Sequential:
    """Twice a 3x3 convolution, normalisation and ReLU, SSIF after each ReLU where asked for."""
    layers: list[nn.Module] = []
    for first in (c, c_out):
        layers += [nn.Conv2d(first, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU()]
        layers += [SSIF(gaussian)] if use_ssif else []
    return nn.Sequential(*layers)


def double_csh(
    c: int, c_out: int, *, groups: int, use_ssif: bool, ssif_at: str, gaussian: bool
) -> nn.Sequential:
    """Twice CSHConv, normalisation and ReLU."""
    layers: list[nn.Module] = []
    for first in (c, c_out):
        layers += [
            CSHConv(first, c_out, groups=groups, use_ssif=use_ssif, ssif_at=ssif_at, gaussian=gaussian),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)
