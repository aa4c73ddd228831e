"""Where two scales meet: wavelet down-sampling, up-sampling, fusion with the skip (section 3.1, 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .wavelet import dwt, idwt


class WaveletDown(nn.Module):
    """WDM: a strided convolution plus a convolution over the four wavelet bands (equation 2)."""

    def __init__(self, c: int, c_out: int, kernel: int = 1) -> None:
        super().__init__()
        self.space = nn.Conv2d(c, c_out, 3, stride=2, padding=1)
        self.bands = nn.Conv2d(4 * c, c_out, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W), both sides even -> (B, c_out, H/2, W/2)."""
        return self.space(x) + self.bands(torch.cat(dwt(x), dim=1))


class InverseWavelet(nn.Module):
    """The up-sampling half of ``up="idwt"``: 4c channels are taken for c channels' four bands."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4c, h, w) -> (B, c, 2h, 2w)."""
        ll, hl, lh, hh = x.chunk(4, dim=1)
        return idwt(ll, hl, lh, hh)


class Fusion(nn.Module):
    """Add to the up-sampled path a selection, channel by channel, between it and the skip.

    Selective kernels as in DehazeFormer: two weights per channel, from the means of the sum, that
    add up to 1.
    """

    def __init__(self, c: int, reduction: int = 8) -> None:
        super().__init__()
        mid = max(c // reduction, 4)
        self.skip = nn.Conv2d(c, c, 1)
        self.choose = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(c, mid, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(mid, 2 * c, 1, bias=False),
        )

    def weights(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights of ``a`` (up-sampled) and ``b`` (skip), each (B, c, 1, 1)."""
        chosen = self.choose(a + b).unflatten(1, (2, -1)).softmax(dim=1)
        return chosen[:, 0], chosen[:, 1]

    def forward(self, up: Tensor, skip: Tensor) -> Tensor:
        """Two of (B, c, H, W) -> the same shape."""
        skip = self.skip(skip)
        w_up, w_skip = self.weights(up, skip)
        return up + w_up * up + w_skip * skip
