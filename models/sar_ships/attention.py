"""Shuffle attention (paper section 2.2) and the six alternatives of the paper's Tables 6 and 7."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave ``groups`` channel groups of (B, C, H, W); a permutation of the channels."""
    b, c, h, w = x.shape
    return x.reshape(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


class ShuffleAttention(nn.Module):
    """Channel and spatial gates on the two halves of every group, then a channel shuffle.

    Equations 1-3: ``sigmoid(W1 GAP(X1) + b1) X1`` and ``sigmoid(W2 GN(X2) + b2) X2``, W and b of
    C/2G values shared by all G groups. W starts at 0 and b at 1 (SA-Net), so the GroupNorm's own
    parameters get no gradient on the very first step.
    """

    def __init__(self, c: int, groups: int = 8) -> None:
        super().__init__()
        half, rest = divmod(c, 2 * groups)
        if rest:
            raise ValueError(f"{c} channels cannot be split into 2 x {groups} equal parts")
        self.groups = groups
        self.w1 = nn.Parameter(torch.zeros(1, half, 1, 1))
        self.b1 = nn.Parameter(torch.ones(1, half, 1, 1))
        self.w2 = nn.Parameter(torch.zeros(1, half, 1, 1))
        self.b2 = nn.Parameter(torch.ones(1, half, 1, 1))
        self.norm = nn.GroupNorm(half, half)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        b, c, h, w = x.shape
        x1, x2 = x.reshape(b * self.groups, c // self.groups, h, w).chunk(2, dim=1)
        s = x1.mean(dim=(2, 3), keepdim=True)
        x1 = torch.sigmoid(self.w1 * s + self.b1) * x1
        x2 = torch.sigmoid(self.w2 * self.norm(x2) + self.b2) * x2
        return channel_shuffle(torch.cat((x1, x2), dim=1).reshape(b, c, h, w), 2)


class SqueezeExcitation(nn.Module):
    """SE: channel gates from a two-layer network over the channel means (reduction 16)."""

    def __init__(self, c: int, reduction: int = 16) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(c, c // reduction, 1), nn.ReLU(), nn.Conv2d(c // reduction, c, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x * self.gate(x.mean(dim=(2, 3), keepdim=True))


class Cbam(nn.Module):
    """CBAM: channel gates from means and maxima, then spatial gates by a 7x7 convolution."""

    def __init__(self, c: int, reduction: int = 16) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Conv2d(c, c // reduction, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(c // reduction, c, 1, bias=False),
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        mean, peak = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        x = x * torch.sigmoid(self.mlp(mean) + self.mlp(peak))
        planes = torch.cat((x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)), dim=1)
        return x * torch.sigmoid(self.spatial(planes))


class EfficientChannelAttention(nn.Module):
    """ECA: channel gates by a 1-D convolution over neighbouring channels' means."""

    def __init__(self, c: int) -> None:
        super().__init__()
        t = int(abs((math.log2(c) + 1) / 2))
        k = t if t % 2 else t + 1
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        s = self.conv(x.mean(dim=(2, 3))[:, None])[:, 0]
        return x * torch.sigmoid(s)[:, :, None, None]


class CoordinateAttention(nn.Module):
    """Coordinate attention: gates along rows and along columns from one shared encoding."""

    def __init__(self, c: int, reduction: int = 32) -> None:
        super().__init__()
        mid = max(8, c // reduction)
        self.encode = nn.Sequential(nn.Conv2d(c, mid, 1), nn.BatchNorm2d(mid), nn.Hardswish())
        self.rows = nn.Conv2d(mid, c, 1)
        self.cols = nn.Conv2d(mid, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        h, w = x.shape[-2:]
        along_rows = x.mean(dim=3, keepdim=True)
        along_cols = x.mean(dim=2, keepdim=True).transpose(2, 3)
        y_rows, y_cols = self.encode(torch.cat((along_rows, along_cols), dim=2)).split((h, w), dim=2)
        gate_rows = torch.sigmoid(self.rows(y_rows))
        gate_cols = torch.sigmoid(self.cols(y_cols.transpose(2, 3)))
        return x * gate_rows * gate_cols


class SimAm(nn.Module):
    """SimAM: parameter-free gates from each value's squared distance to its channel's mean."""

    def __init__(self, lam: float = 1e-4) -> None:
        super().__init__()
        self.lam = lam

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        d = (x - x.mean(dim=(2, 3), keepdim=True)).square()
        variance = d.sum(dim=(2, 3), keepdim=True) / max(x.shape[2] * x.shape[3] - 1, 1)
        return x * torch.sigmoid(d / (4 * (variance + self.lam)) + 0.5)


ATTENTIONS = ("none", "shuffle", "se", "cbam", "eca", "coord", "sim")


def make_attention(name: str, c: int) -> nn.Module:
    """Build the block called ``name`` for ``c`` channels; raises ValueError for an unknown name."""
    match name:
        case "none":
            return nn.Identity()
        case "shuffle":
            return ShuffleAttention(c)
        case "se":
            return SqueezeExcitation(c)
        case "cbam":
            return Cbam(c)
        case "eca":
            return EfficientChannelAttention(c)
        case "coord":
            return CoordinateAttention(c)
        case "sim":
            return SimAm()
    raise ValueError(f"attention is {name!r}, must be one of {', '.join(ATTENTIONS)}")
