"""Which predictions answer for which ship, and anchors that fit a training set (specification 4.2, 3.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: A box may be at most this much wider, narrower, taller or flatter than its anchor.
MAX_RATIO = 4.0
#: Re-estimate the anchors when fewer boxes than this find one.
WANTED_RECALL = 0.98


@dataclass(frozen=True)
class Matches:
    """The positives of one level: indices (N,) into (B, na, H, W), target boxes (N, 4), classes (N,)."""

    image: Tensor
    anchor: Tensor
    row: Tensor
    col: Tensor
    boxes: Tensor
    classes: Tensor


def assign(
    targets: Tensor, anchors: Tensor, strides: Sequence[int], sizes: Sequence[tuple[int, int]]
) -> list[Matches]:
    """Match ``targets`` (N, 6: image, class, centre x, y, width, height in pixels) to every level.

    ``anchors`` (levels, na, 2) in pixels, ``sizes`` (H, W) of each level's map. An anchor takes a
    box if no side differs by a factor of four or more; the box's own cell and the nearest
    neighbour cell on each axis (where there is one) then answer for it.
    """
    out = []
    for level_anchors, stride, (h, w) in zip(anchors, strides, sizes, strict=True):
        ratio = targets[None, :, 4:6] / level_anchors[:, None]
        fits = torch.maximum(ratio, 1 / ratio).amax(dim=2) < MAX_RATIO
        anchor, index = fits.nonzero(as_tuple=True)
        found = targets[index]
        xy = found[:, 2:4] / stride
        limit = xy.new_tensor([w, h]).long() - 1
        cell = torch.minimum(xy.floor().long().clamp(min=0), limit)
        side = torch.where(xy - cell < 0.5, -1, 1)
        steps = torch.zeros(3, *cell.shape, dtype=torch.long, device=cell.device)
        steps[1, :, 0], steps[2, :, 1] = side[:, 0], side[:, 1]
        cells = cell + steps
        inside = ((cells >= 0) & (cells <= limit)).all(dim=2)
        pick = inside.nonzero(as_tuple=True)
        row_of = pick[1]
        out.append(
            Matches(
                image=found[row_of, 0].long(),
                anchor=anchor[row_of],
                row=cells[pick][:, 1],
                col=cells[pick][:, 0],
                boxes=found[row_of, 2:6],
                classes=found[row_of, 1].long(),
            )
        )
    return out


def best_possible_recall(sides: np.ndarray, anchors: np.ndarray) -> float:
    """Share of boxes (N, 2: width, height) that at least one anchor (..., 2) could take."""
    if not len(sides):
        return 1.0
    ratio = sides[:, None] / np.asarray(anchors, dtype=np.float64).reshape(1, -1, 2)
    return float((np.maximum(ratio, 1 / ratio).max(axis=2).min(axis=1) < MAX_RATIO).mean())


def estimate_anchors(sides: np.ndarray, levels: int, per_level: int, seed: int) -> np.ndarray:
    """K-means over log sides (the matching rule compares ratios) -> (levels, per_level, 2), by area."""
    rng = np.random.default_rng(seed)
    points = np.log(np.maximum(sides.astype(np.float64), 1.0))
    k = levels * per_level
    centres = points[rng.integers(len(points))][None]
    while len(centres) < k:  # k-means++: the next seed far from those there are
        distance = ((points[:, None] - centres[None]) ** 2).sum(axis=2).min(axis=1) + 1e-12
        centres = np.concatenate(
            (centres, points[rng.choice(len(points), p=distance / distance.sum())][None])
        )
    for _ in range(100):
        nearest = ((points[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
        moved = np.stack(
            [points[nearest == i].mean(axis=0) if (nearest == i).any() else c for i, c in enumerate(centres)]
        )
        if np.allclose(moved, centres, atol=1e-6):
            break
        centres = moved
    centres = np.exp(centres[np.argsort(centres.sum(axis=1))])
    return centres.round(1).reshape(levels, per_level, 2)


def fit_anchors(sides: np.ndarray, anchors: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Keep ``anchors`` if they reach 98 % of the boxes, else the better of them and a new estimate.

    Returns the anchors (levels, na, 2) and their best possible recall.
    """
    recall = best_possible_recall(sides, anchors)
    if recall >= WANTED_RECALL or len(sides) < anchors.shape[0] * anchors.shape[1]:
        return anchors, recall
    fresh = estimate_anchors(sides, anchors.shape[0], anchors.shape[1], seed)
    fresh_recall = best_possible_recall(sides, fresh)
    return (fresh, fresh_recall) if fresh_recall > recall else (anchors, recall)
