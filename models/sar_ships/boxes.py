"""Axis-aligned boxes: conversions, overlaps, suppression. Pixel edges, so a box 0..1 is one pixel wide."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

#: Keeps quotients of empty boxes finite; far below any area in pixels.
EPS = 1e-7


def to_corners(xywh: Tensor) -> Tensor:
    """(..., 4) centre x, y, width, height -> x1, y1, x2, y2."""
    xy, half = xywh[..., :2], xywh[..., 2:4] / 2
    return torch.cat((xy - half, xy + half), dim=-1)


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of corner boxes (N, 4) with (N, 4), row by row -> (N,)."""
    sides = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    common = sides.prod(dim=1)
    areas = (a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1)
    return common / (areas - common + EPS)


def enclosing_sides(a: Tensor, b: Tensor) -> Tensor:
    """Width and height of the smallest box around each pair of corner boxes -> (N, 2)."""
    return torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance between the centres of corner boxes -> (N,)."""
    return ((a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2).square().sum(dim=1)


def ciou_penalty(a: Tensor, b: Tensor, iou: Tensor) -> Tensor:
    """R_CIoU = R_DIoU + alpha v of the background formulas (specification 4.1) -> (N,)."""
    distance = squared_distance(a, b) / (enclosing_sides(a, b).square().sum(dim=1) + EPS)
    side_a, side_b = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    ratio_a, ratio_b = side_a[:, 0] / (side_a[:, 1] + EPS), side_b[:, 0] / (side_b[:, 1] + EPS)
    v = (4 / math.pi**2) * (torch.atan(ratio_a) - torch.atan(ratio_b)).square()
    with torch.no_grad():
        alpha = v / (1 - iou + v + EPS)
    return distance + alpha * v


def pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of corner boxes (N, 4) with (M, 4) -> (N, M) float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    common = np.clip(sides, 0, None).prod(axis=2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
    return common / np.maximum(area_a[:, None] + area_b[None] - common, EPS)


def suppress(boxes: np.ndarray, scores: np.ndarray, iou: float, limit: int) -> np.ndarray:
    """Greedy suppression within one tile: indices kept, best score first, at most ``limit``."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while order.size and len(kept) < limit:
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[pairwise_iou(boxes[best : best + 1], boxes[order])[0] <= iou]
    return np.array(kept, dtype=np.int64)


def select(
    candidates: Tensor, *, confidence: float, nms_iou: float, limit: int = 1000, before: int = 30_000
) -> list[np.ndarray]:
    """Candidates (B, M, 5) x, y, w, h, score -> per image float32 (N, 5) x1, y1, x2, y2, score.

    Keeps scores >= ``confidence``, at most the best ``before`` of them, suppresses overlaps above
    ``nms_iou`` and returns at most ``limit``, best first.
    """
    out = []
    for image in candidates:
        image = image[image[:, 4] >= confidence]
        image = image[image[:, 4].argsort(descending=True, stable=True)[:before]]
        boxes = to_corners(image).cpu().numpy()
        scores = image[:, 4].cpu().numpy()
        kept = suppress(boxes, scores, nms_iou, limit)
        out.append(np.concatenate((boxes[kept], scores[kept, None]), axis=1).astype(np.float32))
    return out
