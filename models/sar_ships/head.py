"""The three heads: coupled, simple decoupled, and the SAR ship context decoupled head (SSCDH).

Every head maps the pyramid to three raw maps (B, na, H, W, 5 + nc): box (4), objectness, classes.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from .blocks import Conv

STRIDES = (8, 16, 32)
HEADS = ("coupled", "decoupled", "context")
OBJ_BRANCHES = ("sce", "dpe")


def unpack_cells(x: Tensor, k: int) -> Tensor:
    """Spread (B, a*4*k, H, W) to (B, a, 2H, 2W, k); equation 5 with slot (2i + j).

    Channel ``a*(4k) + (2i + j)*k + c`` of the coarse cell (y, x) lands at row 2y + i, column 2x + j.
    """
    return rearrange(x, "b (a i j k) h w -> b a (h i) (w j) k", i=2, j=2, k=k)


def objectness_bias(stride: int) -> float:
    """Starting logit of objectness: eight objects in a 640 px image."""
    return math.log(8 / (640 / stride) ** 2)


def class_bias(nc: int) -> float:
    """Starting logit of the classes."""
    return math.log(0.6 / (nc - 0.99999))


class CoupledHead(nn.Module):
    """One 1x1 prediction layer per level: the baseline's head."""

    def __init__(self, channels: tuple[int, ...], na: int, nc: int) -> None:
        super().__init__()
        self.na = na
        self.predict = nn.ModuleList(nn.Conv2d(c, na * (5 + nc), 1) for c in channels[1:4])
        for layer, stride in zip(self.predict, STRIDES, strict=True):
            bias = layer.bias.data.view(na, -1)  # type: ignore[operator]
            bias[:, 4] = objectness_bias(stride)
            bias[:, 5:] = class_bias(nc)

    def forward(self, pyramid: list[Tensor]) -> list[Tensor]:
        """[P2, P3, P4, P5, ...] -> raw maps of P3, P4, P5."""
        maps = zip(self.predict, pyramid[1:4], strict=True)
        return [rearrange(f(p), "b (a o) h w -> b a h w o", a=self.na) for f, p in maps]


class DecoupledLevel(nn.Module):
    """Simple decoupled head of one level (specification 3.6): both branches read the same map."""

    def __init__(self, c: int, na: int, nc: int, stride: int) -> None:
        super().__init__()
        self.na = na
        self.stem = Conv(c, c, 1)
        self.f_cls, self.f_loc = Conv(c, c, 3), Conv(c, c, 3)
        self.cls, self.box, self.obj = nn.Conv2d(c, na * nc, 1), nn.Conv2d(c, na * 4, 1), nn.Conv2d(c, na, 1)
        nn.init.constant_(self.obj.bias, objectness_bias(stride))  # type: ignore[arg-type]
        nn.init.constant_(self.cls.bias, class_bias(nc))  # type: ignore[arg-type]

    def forward(self, p: Tensor) -> Tensor:
        """(B, c, H, W) -> (B, na, H, W, 5 + nc)."""
        stem = self.stem(p)
        loc = self.f_loc(stem)
        parts = (self.box(loc), self.obj(loc), self.cls(self.f_cls(stem)))
        return torch.cat([rearrange(x, "b (a o) h w -> b a h w o", a=self.na) for x in parts], dim=-1)


class DecoupledHead(nn.Module):
    """Simple decoupled head on P3, P4, P5 (the comparison of Tables 8 and 9)."""

    def __init__(self, channels: tuple[int, ...], na: int, nc: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            DecoupledLevel(c, na, nc, s) for c, s in zip(channels[1:4], STRIDES, strict=True)
        )

    def forward(self, pyramid: list[Tensor]) -> list[Tensor]:
        """[P2, P3, P4, P5, ...] -> raw maps of P3, P4, P5."""
        return [level(p) for level, p in zip(self.levels, pyramid[1:4], strict=True)]


class SemanticContext(nn.Module):
    """SCE: classification features of level l at half its resolution (equations 4 and 5).

    ``k`` values per anchor and fine cell: objectness first (unless the localisation branch has
    it), then the classes.
    """

    def __init__(self, c: int, c_up: int, na: int, nc: int, stride: int, *, objectness: bool) -> None:
        super().__init__()
        self.k = nc + objectness
        self.d = Conv(c, c, 3, 2)
        self.f_cls = nn.Sequential(Conv(c + c_up, c, 1), Conv(c, c, 3))
        self.predict = nn.Conv2d(c, 4 * na * self.k, 1)
        bias = self.predict.bias.data.view(na, 4, self.k)  # type: ignore[union-attr]
        bias.fill_(class_bias(nc))
        if objectness:
            bias[..., 0] = objectness_bias(stride)

    def forward(self, p: Tensor, p_up: Tensor) -> Tensor:
        """P_l (B, c, H, W), P_l+1 (B, c_up, H/2, W/2) -> (B, na, H, W, k)."""
        g_cls = torch.cat((self.d(p), p_up), dim=1)
        return unpack_cells(self.predict(self.f_cls(g_cls)), self.k)


class DetailPreserving(nn.Module):
    """DPE: localisation features of level l from three levels (equation 6)."""

    def __init__(self, c_lo: int, c: int, c_up: int, na: int, stride: int, *, objectness: bool) -> None:
        super().__init__()
        self.na = na
        self.a_lo, self.a_up = Conv(c_lo, c, 1), Conv(c_up, c, 1)
        self.up_own, self.up_above = nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2)
        self.d2 = Conv(c, c, 3, 2)
        self.f_loc = nn.Sequential(Conv(c, c, 3), Conv(c, c, 3))
        self.predict = nn.Conv2d(c, na * (4 + objectness), 1)
        if objectness:
            bias = self.predict.bias.data.view(na, 5)  # type: ignore[union-attr]
            bias[:, 4] = objectness_bias(stride)

    def context(self, p_lo: Tensor, p: Tensor, p_up: Tensor) -> Tensor:
        """G_loc of equation 6: (B, c, H, W)."""
        return p + self.up_above(self.a_up(p_up)) + self.d2(self.a_lo(p_lo) + self.up_own(p))

    def forward(self, p_lo: Tensor, p: Tensor, p_up: Tensor) -> Tensor:
        """P_l-1, P_l, P_l+1 -> (B, na, H, W, 4), or 5 with the objectness last."""
        loc = self.predict(self.f_loc(self.context(p_lo, p, p_up)))
        return rearrange(loc, "b (a o) h w -> b a h w o", a=self.na)


class ContextHead(nn.Module):
    """SSCDH (paper section 2.3): classification and localisation read different mixtures of levels.

    ``obj_branch`` says which branch predicts objectness. With ``sce`` and one class, the class rows
    of the last SCE layer never get a gradient; they stay so that more classes need no other layout.
    """

    def __init__(self, channels: tuple[int, ...], na: int, nc: int, obj_branch: str) -> None:
        super().__init__()
        if obj_branch not in OBJ_BRANCHES:
            raise ValueError(f"obj_branch is {obj_branch!r}, must be one of {', '.join(OBJ_BRANCHES)}")
        sce = obj_branch == "sce"
        levels = list(zip(channels[:-2], channels[1:-1], channels[2:], STRIDES, strict=True))
        self.sce = nn.ModuleList(
            SemanticContext(c, c_up, na, nc, s, objectness=sce) for _, c, c_up, s in levels
        )
        self.dpe = nn.ModuleList(
            DetailPreserving(c_lo, c, c_up, na, s, objectness=not sce) for c_lo, c, c_up, s in levels
        )

    def forward(self, pyramid: list[Tensor]) -> list[Tensor]:
        """[P2, P3, P4, P5, P6] -> raw maps of P3, P4, P5."""
        raw = []
        for i, (sce, dpe) in enumerate(zip(self.sce, self.dpe, strict=True)):
            p_lo, p, p_up = pyramid[i : i + 3]
            raw.append(torch.cat((dpe(p_lo, p, p_up), sce(p, p_up)), dim=-1))
        return raw
