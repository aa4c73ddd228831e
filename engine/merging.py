"""Detections of tiles become detections of the scene (ENGINE.md, section 2).

Every object is reported once, whole, wherever the seams run:

1. within its tile, NMS collapses the many answers to one object (:func:`engine.boxes.from_tile`);
2. whole boxes go through one scene-wide NMS;
3. a box cut by an interior tile edge is dropped where another tile has the object whole, however
   high its score;
4. cut boxes that are left belong to objects longer than the overlap: their pieces are joined
   (:mod:`engine.joining`);
5. a last NMS with the order whole, joined and complete, still cut.

Groups of touching boxes are finished as soon as no later tile can reach them, so memory follows
one row of tiles, not the scene.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .boxes import SLACK_PX, Boxes, concat, grown, widened
from .joining import join
from .nms import area, greedy, intersection, iou, overlapping_pairs, ranking

#: A cut box is dropped when so much of it lies in a box of another tile.
COVERED = 0.5


class Merger:
    """Collects the boxes of tiles in reading order and hands them back merged."""

    def __init__(self, threshold: float) -> None:
        """``threshold``: IoU of the scene-wide NMS."""
        self._threshold = threshold
        self._open: list[Boxes] = []
        self._done: list[Boxes] = []

    def add(self, boxes: Boxes) -> None:
        """Take the boxes of one tile."""
        if len(boxes):
            self._open.append(boxes)

    def advance(self, top: float) -> None:
        """Finish all groups that no tile starting at row ``top`` or below can reach."""
        boxes = concat(self._open)
        if not len(boxes):
            return
        group = groups(boxes)
        lowest = np.full(group.max() + 1, -np.inf)
        np.maximum.at(lowest, group, boxes.xyxy[:, 3])
        final = (lowest + 2 * SLACK_PX < top)[group]
        if final.any():
            self._done.append(merge(boxes.take(final), group[final], self._threshold))
        self._open = [boxes.take(~final)] if not final.all() else []

    def finish(self) -> Boxes:
        """Finish what is open; return all boxes, best score first, then by row and column."""
        self.advance(np.inf)
        boxes = concat(self._done)
        centre = boxes.xyxy[:, :2] + boxes.xyxy[:, 2:]
        return boxes.take(np.lexsort((centre[:, 0], centre[:, 1], -boxes.score)))


def groups(boxes: Boxes) -> np.ndarray:
    """Return the number of the connected group of touching boxes each box belongs to."""
    first, second = overlapping_pairs(grown(boxes), boxes.cls)
    links = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(len(boxes),) * 2)
    return connected_components(links, directed=False)[1]


def merge(boxes: Boxes, group: np.ndarray, threshold: float) -> Boxes:
    """Merge complete groups of boxes; the five steps of this module but the first."""
    broken = boxes.broken
    whole, cut = boxes.take(~broken), boxes.take(broken)
    whole_group, cut_group = group[~broken], group[broken]
    if len(whole):
        first, second = overlapping_pairs(whole.xyxy, whole.cls)
        doubles = _doubles(whole, first, second, threshold)
        keep = greedy(ranking(whole.xyxy, whole.score), first, second, doubles)
        whole, whole_group = whole.take(keep), whole_group[keep]
    if not len(cut):
        return whole
    alone = ~_covered(cut, whole, threshold)
    joined, joined_group, complete = join(cut.take(alone), cut_group[alone])
    rank = np.concatenate([np.zeros(len(whole), int), np.where(complete, 1, 2)])
    return _choose(concat([whole, joined]), np.concatenate([whole_group, joined_group]), rank, threshold)


def _doubles(boxes: Boxes, first: np.ndarray, second: np.ndarray, threshold: float) -> np.ndarray:
    """Return bool per pair: two answers to one object.

    By IoU, or where two tiles place it so alike that only their jitter can differ: on an object of
    eight pixels two pixels of jitter bring the IoU below any threshold.
    """
    a, b = boxes.xyxy[first], boxes.xyxy[second]
    alike = (np.abs(a - b) <= SLACK_PX).all(axis=1)
    return (iou(a, b) >= threshold) | (alike & _two_tiles(boxes, first, second))


def _two_tiles(boxes: Boxes, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (boxes.tile[first] != boxes.tile[second]) | boxes.many[first] | boxes.many[second]


def _covered(cut: Boxes, whole: Boxes, threshold: float) -> np.ndarray:
    """Return bool per cut box: another tile has its object whole."""
    both = concat([cut, whole])
    first, second = overlapping_pairs(grown(both), both.cls)
    pick = (first < len(cut)) & (second >= len(cut))
    first, second = first[pick], second[pick]
    hit = _suppresses(both, second, first, threshold)
    covered = np.zeros(len(cut), bool)
    covered[first[hit]] = True
    return covered


def _suppresses(boxes: Boxes, better: np.ndarray, worse: np.ndarray, threshold: float) -> np.ndarray:
    """Return bool per pair: the better box leaves no room for the cut, worse one."""
    b = boxes.xyxy[worse]
    inside = intersection(widened(boxes, better, worse), b) >= COVERED * area(b)
    return (inside & _two_tiles(boxes, better, worse)) | _doubles(boxes, better, worse, threshold)


def _choose(boxes: Boxes, group: np.ndarray, rank: np.ndarray, threshold: float) -> Boxes:
    """Return what the last NMS keeps; pairs of different groups never meet, in any batch."""
    first, second = overlapping_pairs(grown(boxes), boxes.cls)
    pick = group[first] == group[second]
    first, second = first[pick], second[pick]
    order = ranking(boxes.xyxy, boxes.score, rank)
    place = np.empty(len(order), int)
    place[order] = np.arange(len(order))
    better = np.where(place[first] < place[second], first, second)
    worse = first + second - better
    kills = _doubles(boxes, first, second, threshold)
    weak = rank[worse] > 1
    kills[weak] |= _suppresses(boxes, better[weak], worse[weak], threshold)
    return boxes.take(greedy(order, first, second, kills))
