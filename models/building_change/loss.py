"""BCE + Dice, weights 1:1 (paper 08, equations 6-8)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

#: Not printed. In the numerator too, which the paper's is not: else the loss of an unchanged tile that
#: is predicted unchanged would be 1 and never reach 0.
EPS = 1e-7


def loss_terms(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return binary cross-entropy and Dice loss, two scalars; their sum is the paper's loss.

    ``logits``, ``label``: (B, 1, H, W), the label 0 or 1 in float. Dice is taken for each image and
    averaged: the paper's N is "the number of pixels in the image".
    """
    bce = F.binary_cross_entropy_with_logits(logits, label)
    p, y = torch.sigmoid(logits).flatten(1), label.flatten(1)
    common = (y * p).sum(dim=1)
    dice = 1 - (2 * common + EPS) / (y.square().sum(dim=1) + p.square().sum(dim=1) + EPS)
    return bce, dice.mean()
