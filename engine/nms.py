"""Which boxes overlap, and the greedy choice among them.

Pairs come from an STRtree, so the cost follows the number of overlaps, not the square of the
number of boxes; the choice is a plain loop over a compressed list of neighbours (CSR), in an order
that depends on nothing but the boxes themselves.
"""

from __future__ import annotations

import numpy as np
import shapely


def overlapping_pairs(xyxy: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return index arrays (i, j), i < j, of boxes of one class that touch; ``xyxy``: (N, 4)."""
    shapes = shapely.box(*xyxy.T)
    first, second = shapely.STRtree(shapes).query(shapes)
    pick = (first < second) & (classes[first] == classes[second])
    first, second = first[pick], second[pick]
    order = np.lexsort((second, first))
    return first[order], second[order]


def intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the common area of boxes, pairwise; ``a``, ``b``: (N, 4)."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    return np.clip(sides, 0, None).prod(axis=1)


def area(boxes: np.ndarray) -> np.ndarray:
    """Return the areas of (N, 4) boxes."""
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return intersection over union of boxes, pairwise."""
    common = intersection(a, b)
    return common / np.maximum(area(a) + area(b) - common, 1e-9)


def ranking(xyxy: np.ndarray, score: np.ndarray, rank: np.ndarray | None = None) -> np.ndarray:
    """Return the order of choice: low ``rank`` first, then high score, then place."""
    keys = [xyxy[:, 2], xyxy[:, 3], xyxy[:, 0], xyxy[:, 1], -score]
    return np.lexsort(keys if rank is None else [*keys, rank])


def greedy(order: np.ndarray, first: np.ndarray, second: np.ndarray, kills: np.ndarray) -> np.ndarray:
    """Return bool (N,): kept when no kept box earlier in ``order`` suppresses it.

    ``kills``: bool per pair, whether the earlier of the two suppresses the later.
    """
    place = np.empty(len(order), int)
    place[order] = np.arange(len(order))
    first, second = first[kills], second[kills]
    earlier = np.where(place[first] < place[second], first, second)
    later = first + second - earlier
    by = np.argsort(earlier, kind="stable")
    later = later[by]
    start = np.searchsorted(earlier[by], np.arange(len(order) + 1))
    keep = np.ones(len(order), bool)
    for i in order:
        if keep[i] and start[i] < start[i + 1]:
            keep[later[start[i] : start[i + 1]]] = False
    return keep


def nms(xyxy: np.ndarray, score: np.ndarray, classes: np.ndarray, threshold: float) -> np.ndarray:
    """Return bool (N,): what class-aware greedy NMS at an IoU ``threshold`` keeps."""
    first, second = overlapping_pairs(xyxy, classes)
    kills = iou(xyxy[first], xyxy[second]) >= threshold
    return greedy(ranking(xyxy, score), first, second, kills)
