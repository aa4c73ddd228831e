"""Objects longer than the overlap: no tile has them whole, so their pieces are joined.

Two pieces belong together when they end at facing edges of two tiles and both fill the strip that
the tiles share - a whole object could not - or when one lies in the other. A piece takes at most
its best partner per other tile, so that ships moored side by side across a seam stay apart; the
union runs over all pieces linked in this way, however many tiles the object crosses.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .boxes import EDGE_PX, SLACK_PX, Boxes, grown, widened
from .nms import area, intersection, overlapping_pairs

#: Two long pieces at facing edges: intersection over the smaller area.
PIECES_IOS = 0.15
#: Same, where the strip is short against the pieces: overlap across it over the shorter side.
PIECES_ACROSS = 0.5
#: Any two cut boxes: one lies in the other.
SAME_IOS = 0.5
#: Below that score pieces are as likely clutter, and joining inflates it (obss/sahi, predict.py).
MIN_SCORE = 0.1


def join(cut: Boxes, group: np.ndarray) -> tuple[Boxes, np.ndarray, np.ndarray]:
    """Return (boxes, group, complete): pieces joined, and whether no side is cut any more.

    A joined box is the union of its pieces with the highest score among them, and that piece's
    tile and class; boxes without a partner come back as they are.
    """
    first, second = overlapping_pairs(grown(cut), cut.cls)
    strength = np.maximum(_facing(cut, first, second), _same(cut, first, second))
    pick = (strength > 0) & (cut.tile[first] != cut.tile[second])
    pick &= (cut.score[first] >= MIN_SCORE) & (cut.score[second] >= MIN_SCORE)
    first, second, strength = first[pick], second[pick], strength[pick]
    best = _mutual(cut, first, second, strength)
    links = coo_matrix((np.ones(best.sum(), bool), (first[best], second[best])), shape=(len(cut),) * 2)
    count, label = connected_components(links, directed=False)
    return _unite(cut, group, label, count)


def _facing(boxes: Boxes, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how well pieces at facing tile edges fit across the seam, 0 where they do not."""
    fit = np.zeros(len(first))
    for axis in (0, 1):
        for a, b in ((first, second), (second, first)):
            fit = np.maximum(fit, _facing_along(boxes, a, b, axis))
    return fit


def _facing_along(boxes: Boxes, a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    """Return the fit of ``a`` ending at its tile's high edge and ``b`` at its tile's low edge."""
    low, high, across = axis, axis + 2, 1 - axis
    x, window = boxes.xyxy, boxes.window
    faces = boxes.cut[a, high] & boxes.cut[b, low]
    faces &= (window[a, low] < window[b, low]) & (window[b, low] <= window[a, high])
    strip = window[a, high] - window[b, low]
    along = np.minimum(x[a, high], x[b, high]) - np.maximum(x[a, low], x[b, low])
    soft = (boxes.soft[a] | boxes.soft[b]) & (along > 0)
    fills = (along >= strip - 2 * SLACK_PX) | soft
    shared = np.minimum(x[a, across + 2], x[b, across + 2]) - np.maximum(x[a, across], x[b, across])
    sides = [x[i, across + 2] - x[i, across] for i in (a, b)]
    ratio = np.clip(shared, 0, None) / np.minimum(*sides)
    ios = intersection(x[a], x[b]) / np.minimum(area(x[a]), area(x[b]))
    fits = faces & fills & ((ios >= PIECES_IOS) | (ratio >= PIECES_ACROSS))
    # the strength prefers the partner of the same extent across, not merely an overlapping one
    return np.where(fits, np.clip(shared, 0, None) / np.maximum(*sides), 0)


def _same(boxes: Boxes, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return intersection over the smaller area where one cut box lies in another, else 0."""
    a, b = boxes.xyxy[first], boxes.xyxy[second]
    small_a = area(a) <= area(b)
    small, large = np.where(small_a, first, second), np.where(small_a, second, first)
    inner = boxes.xyxy[small]
    ios = intersection(inner, widened(boxes, large, small)) / area(inner)
    return np.where(ios >= SAME_IOS, ios, 0)


def _mutual(boxes: Boxes, first: np.ndarray, second: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Return bool per pair: each is the other's best partner in the other's tile."""
    best = np.ones(len(first), bool)
    for one, other in ((first, second), (second, first)):
        tile = boxes.tile[other]
        order = np.lexsort((other, -strength, tile, one))
        head = np.ones(len(order), bool)
        head[1:] = (np.diff(one[order]) != 0) | (np.diff(tile[order]) != 0)
        chosen = np.zeros(len(first), bool)
        chosen[order[head]] = True
        best &= chosen
    return best


def _unite(
    cut: Boxes, group: np.ndarray, label: np.ndarray, count: int
) -> tuple[Boxes, np.ndarray, np.ndarray]:
    order = np.lexsort((cut.xyxy[:, 0], cut.xyxy[:, 1], -cut.score, label))
    winner = order[np.searchsorted(label[order], np.arange(count))]
    union = np.empty((count, 4))
    for side in range(4):
        extreme = np.minimum if side < 2 else np.maximum
        union[:, side] = np.inf if side < 2 else -np.inf
        extreme.at(union[:, side], label, cut.xyxy[:, side])
    # a side is open while every piece that reaches it is cut there
    reaches = np.abs(cut.xyxy - union[label]) <= 2 * EDGE_PX
    closed = np.zeros((count, 4), bool)
    np.logical_or.at(closed, label, reaches & ~cut.cut)
    edge = np.zeros(count, bool)
    np.logical_or.at(edge, label, cut.edge)
    pieces = np.bincount(label, minlength=count)
    best = cut.take(winner)
    joined = Boxes(
        xyxy=union,
        score=best.score,
        cls=best.cls,
        tile=best.tile,
        window=best.window,
        cut=~closed,
        soft=best.soft & (pieces == 1),
        many=pieces > 1,
        edge=edge,
    )
    return joined, group[winner], ~joined.broken
