"""The orthonormal Haar transform and its inverse, by slicing (specification 07, section 3.2).

No parameters. Half precision is widened to float32: sums of four values lose digits there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def dwt(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(B, C, H, W), both sides even -> LL, HL, LH, HH, each (B, C, H/2, W/2).

    LL is half the sum of a 2 x 2 block, HL the change along a row, LH down a column, HH across both.
    The sum of squares is kept.
    """
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(f"the input is {height} x {width}; both sides must be even")
    x = at_least_float32(x)
    p00, p01 = x[..., 0::2, 0::2], x[..., 0::2, 1::2]
    p10, p11 = x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    top, bottom = (p00 + p01) / 2, (p10 + p11) / 2
    along_top, along_bottom = (p01 - p00) / 2, (p11 - p10) / 2
    return top + bottom, along_top + along_bottom, bottom - top, along_bottom - along_top


def idwt(ll: Tensor, hl: Tensor, lh: Tensor, hh: Tensor) -> Tensor:
    """Four bands (B, C, h, w) -> (B, C, 2h, 2w): the transpose of :func:`dwt`, so its inverse."""
    ll, hl, lh, hh = (at_least_float32(band) / 2 for band in (ll, hl, lh, hh))
    top, bottom = ll - lh, ll + lh
    along_top, along_bottom = hl - hh, hl + hh
    block = (top - along_top, top + along_top, bottom - along_bottom, bottom + along_bottom)
    return functional.pixel_shuffle(torch.stack(block, dim=2).flatten(1, 2), 2)


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or as it is where it is wider."""
    return x if x.dtype == torch.float64 else x.float()
