"""Polygons of a mask that arrives in strips: the same whatever the strips are.

Per strip the objects are labelled, numbers that meet across the seam are made one, and an object is
outlined once no later row can touch it. Only objects that reach the last row stay open, as the sides
of their borders (polygons_trace.py).

Objects are 4-connected: pixels that meet at a corner only share no ground, an outline through such
a corner crosses itself, and two buildings that stand corner to corner are two.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import shapely
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .polygons_trace import Sides, find_sides, join, trace

#: Rows are taken in blocks of about that many pixels: 2 Mpx keep the temporary arrays under
#: 60 MB, and the time between two looks at a cancel under half a second.
BLOCK_PX = 2_000_000

#: Scores are summed as whole multiples of this: float64 adds whole numbers exactly below 2**53, so
#: a mean does not depend on the strips. float32 resolves no finer just below 1.
SCORE_STEP = 2.0**-24


@dataclass(frozen=True, eq=False)
class Outlines:
    """N objects: shapely polygons in pixel corners, and what their pixels hold.

    Coordinates are whole numbers counted from the raster's upper left corner. ``pixels``: how many
    (int64). ``p_mean``, ``p_max``: of the score (float64), NaN without one. ``corner``: (N, 2) int,
    x and y of the first pixel in reading order, where the outer ring begins.
    """

    polygons: np.ndarray
    corner: np.ndarray
    pixels: np.ndarray
    p_mean: np.ndarray
    p_max: np.ndarray

    def __len__(self) -> int:
        return len(self.polygons)

    def take(self, index: np.ndarray) -> Outlines:
        """Return the rows at ``index`` (integers or booleans)."""
        return Outlines(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass(eq=False)
class _Objects:
    """Figures of objects, by number."""

    pixels: np.ndarray
    total: np.ndarray
    peak: np.ndarray


@dataclass(eq=False)
class _Chunk:
    """Sides of open objects from one block: ``sides.owner`` is a position in ``numbers``.

    So a new numbering touches ``numbers`` alone, however long the borders are.
    """

    sides: Sides
    numbers: np.ndarray


class Polygoniser:
    """Takes the rows of a mask in order and gives back objects as soon as they are complete.

    ``width``: of the mask, in pixels. ``value``: the mask's value inside objects. Objects of fewer
    than ``min_pixels`` pixels, holes included, are left out; those in too small a box are not even
    outlined, which makes speckle cheap.
    """

    def __init__(self, width: int, value: int = 1, min_pixels: float = 0) -> None:
        self._width, self._value, self._min = width, value, min_pixels
        self._row = 0
        self._scored = False
        self._last = np.full(width, -1, np.int64)  # numbers of the open objects in the row before
        self._open = _Objects(np.empty(0, np.int64), np.empty(0), np.empty(0))
        self._chunks: list[_Chunk] = []

    def put(self, row: int, mask: np.ndarray, score: np.ndarray | None = None) -> Outlines:
        """Take rows from ``row`` on and return the objects that they complete.

        ``mask`` (h, W), any integer type; ``score`` (h, W) float32, finite inside objects and given
        for all rows or for none.
        """
        assert row == self._row, f"rows come in order: {row} after {self._row}"
        assert mask.ndim == 2, mask.shape
        assert mask.shape[1] == self._width, mask.shape
        assert score is None or score.shape == mask.shape, score
        self._scored = score is not None
        step = max(1, BLOCK_PX // self._width)
        blocks = [slice(i, i + step) for i in range(0, len(mask), step)]
        parts = [self._block(mask[b], None if score is None else score[b]) for b in blocks]
        return parts[0] if len(parts) == 1 else gather(parts)

    def finish(self) -> Outlines:
        """Return the objects that reach the last row."""
        return self._block(np.full((1, self._width), self._value ^ 1), None)

    def _block(self, mask: np.ndarray, score: np.ndarray | None) -> Outlines:
        inside = mask == self._value
        label, count = ndimage.label(inside)
        old = len(self._open.pixels)
        number = np.concatenate([self._last[None], np.where(inside, label.astype(np.int64) + (old - 1), -1)])
        # all sides of these rows, those under the last row of the block before included
        sides = find_sides(number >= 0, number, self._row)
        groups, group = _meet(number[0], number[1], old + count)
        objects = _add(self._open, _figures(label, inside, score, count), group, groups)
        alive = np.zeros(groups, bool)
        reached = number[-1] >= 0
        alive[group[number[-1][reached]]] = True

        done = self._complete(sides, group, alive)
        result = self._outline(done, objects)
        renumbered = np.cumsum(alive) - 1
        for chunk in self._chunks:
            chunk.numbers = renumbered[chunk.numbers]
        self._open = _Objects(objects.pixels[alive], objects.total[alive], objects.peak[alive])
        self._last = np.full(self._width, -1, np.int64)
        self._last[reached] = renumbered[group[number[-1][reached]]]
        self._row += len(mask)
        return result

    def _complete(self, sides: Sides, group: np.ndarray, alive: np.ndarray) -> list[Sides]:
        """Renumber all sides; keep those of living objects and return the others."""
        numbers, place = np.unique(group[sides.owner], return_inverse=True)
        new = _Chunk(Sides(place, sides.y, sides.x0, sides.x1, sides.bottom), numbers)
        for chunk in self._chunks:
            chunk.numbers = group[chunk.numbers]
        done, kept = [], []
        for chunk in (*self._chunks, new):
            stays = alive[chunk.numbers]
            if not stays.all():
                left = chunk.sides.take(~stays[chunk.sides.owner])
                owner = chunk.numbers[left.owner]
                done.append(Sides(owner, left.y, left.x0, left.x1, left.bottom))
                chunk.sides = chunk.sides.take(stays[chunk.sides.owner])
                chunk.sides = Sides(
                    (np.cumsum(stays) - 1)[chunk.sides.owner],
                    chunk.sides.y, chunk.sides.x0, chunk.sides.x1, chunk.sides.bottom,
                )  # fmt: skip
                chunk.numbers = chunk.numbers[stays]
            if len(chunk.numbers):
                kept.append(chunk)
        self._chunks = kept
        return done

    def _outline(self, done: list[Sides], objects: _Objects) -> Outlines:
        if not done:
            return _nothing()
        sides = join(done)
        if self._min > 1:
            sides = sides.take(_box_pixels(sides, len(objects.pixels))[sides.owner] >= self._min)
        owners, polygons, corner = trace(sides)
        pixels = objects.pixels[owners]
        mean = objects.total[owners] * SCORE_STEP / pixels
        peak = objects.peak[owners]
        if not self._scored:
            mean, peak = np.full((2, len(owners)), np.nan)
        outlines = Outlines(polygons, corner, pixels, mean, peak)
        if self._min > 1 and len(outlines):
            outer = shapely.area(shapely.polygons(shapely.get_exterior_ring(polygons)))
            outlines = outlines.take(outer >= self._min)
        return outlines


def gather(parts: list[Outlines]) -> Outlines:
    """Return the objects of all parts in reading order of their first pixel.

    So the order does not depend on the strips either, once all parts of a scene are in.
    """
    if not parts:
        return _nothing()
    every = Outlines(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Outlines)))
    return every.take(np.lexsort((every.corner[:, 0], every.corner[:, 1])))


def _nothing() -> Outlines:
    return Outlines(np.empty(0, object), np.empty((0, 2), int), np.empty(0, int), np.empty(0), np.empty(0))


def _meet(last: np.ndarray, first: np.ndarray, count: int) -> tuple[int, np.ndarray]:
    """Return (number of groups, group of each object) when two rows of numbers are put together."""
    touch = (last >= 0) & (first >= 0)
    links = coo_matrix((np.ones(touch.sum(), bool), (last[touch], first[touch])), shape=(count, count))
    groups, group = connected_components(links, directed=False)
    return groups, group.astype(np.int64)


def _figures(label: np.ndarray, inside: np.ndarray, score: np.ndarray | None, count: int) -> _Objects:
    """Return the figures of the objects 1 to ``count`` of one block."""
    numbers = label[inside] - 1
    pixels = np.bincount(numbers, minlength=count).astype(np.int64)
    if score is None:
        return _Objects(pixels, np.zeros(count), np.zeros(count))
    values = score[inside].astype(np.float64)
    total = np.bincount(numbers, np.rint(values / SCORE_STEP), minlength=count)
    peak = np.full(count, -np.inf)
    np.maximum.at(peak, numbers, values)
    return _Objects(pixels, total, peak)


def _add(old: _Objects, new: _Objects, group: np.ndarray, groups: int) -> _Objects:
    pixels = np.zeros(groups, np.int64)
    np.add.at(pixels, group, np.concatenate([old.pixels, new.pixels]))
    total = np.bincount(group, np.concatenate([old.total, new.total]), minlength=groups)
    peak = np.full(groups, -np.inf)
    np.maximum.at(peak, group, np.concatenate([old.peak, new.peak]))
    return _Objects(pixels, total, peak)


def _box_pixels(sides: Sides, count: int) -> np.ndarray:
    """Return the area of each owner's bounding box; what fits into no box cannot be large enough."""
    big = np.iinfo(np.int64).max
    x0, y0 = np.full(count, big), np.full(count, big)
    x1, y1 = np.zeros(count, np.int64), np.zeros(count, np.int64)
    np.minimum.at(x0, sides.owner, sides.x0)
    np.minimum.at(y0, sides.owner, sides.y)
    np.maximum.at(x1, sides.owner, sides.x1)
    np.maximum.at(y1, sides.owner, sides.y)
    return np.where(x1 > x0, (x1 - x0) * (y1 - y0), 0)
