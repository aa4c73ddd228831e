"""Outlines of pixel objects from the horizontal pieces of their borders: exact, without any union.

The border of a set of pixels is a set of closed rings of alternating horizontal and vertical sides,
and the horizontal ones say it all: in one column of corners, sorted downwards, every two neighbours
are the ends of one vertical side. A horizontal side lies on one line between two rows, so strips
never cut one, and what strips do to vertical sides is not even stored.

Objects are 4-connected. Where an object touches itself at a corner both of its sides meet there, and
the ring turns so that it keeps to the background: a lake that reaches the shore at one corner
becomes a hole, not a bulge of the outer ring. So every ring is simple and every polygon valid.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import shapely


@dataclass(frozen=True, eq=False)
class Sides:
    """N horizontal sides in pixel corners: row line ``y``, from ``x0`` to ``x1`` > ``x0``.

    ``bottom``: the object lies above the line. ``owner``: number of the object.
    """

    owner: np.ndarray
    y: np.ndarray
    x0: np.ndarray
    x1: np.ndarray
    bottom: np.ndarray

    def __len__(self) -> int:
        return len(self.owner)

    def take(self, index: np.ndarray) -> Sides:
        """Return the rows at ``index`` (integers or booleans)."""
        return Sides(*(getattr(self, field.name)[index] for field in fields(self)))


def join(parts: list[Sides]) -> Sides:
    """Return all sides of a list that is not empty as one."""
    return Sides(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Sides)))


def find_sides(inside: np.ndarray, owner: np.ndarray, row: int) -> Sides:
    """Return the sides between consecutive rows of ``inside``, (1 + h, W) booleans.

    Its first row is the last one before pixel row ``row`` and only delimits; ``owner``, of the same
    shape, numbers the objects.
    """
    above, below = inside[:-1], inside[1:]
    found = []
    for edge, numbers, bottom in ((below & ~above, owner[1:], False), (above & ~below, owner[:-1], True)):
        ends = np.zeros((edge.shape[0], edge.shape[1] + 1), bool)
        # a change along the line is an end of a side, and they come in pairs: first and past last
        np.not_equal(edge[:, 1:], edge[:, :-1], out=ends[:, 1:-1])
        ends[:, 0], ends[:, -1] = edge[:, 0], edge[:, -1]
        line, x = np.divmod(np.flatnonzero(ends), ends.shape[1])
        line, x0, x1 = line[::2], x[::2], x[1::2]
        place = (line + row).astype(np.int32), x0.astype(np.int32), x1.astype(np.int32)
        found.append(Sides(numbers[line, x0], *place, np.full(len(x0), bottom)))
    return join(found)


def trace(sides: Sides) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (owners in ascending order, their shapely polygons, (N, 2) where these begin), in pixels.

    ``sides`` must hold all sides of every owner. Rings begin at their upper left corner, whatever
    the order of the sides; outer rings first, holes in reading order.
    """
    if not len(sides):
        return np.empty(0, sides.owner.dtype), np.empty(0, object), np.empty((0, 2), int)
    sides = sides.take(np.lexsort((sides.x0, sides.y, sides.owner)))
    order, first = _walk(_next(sides))
    # a top side runs to the right, a bottom side to the left: the object is always at the right hand
    forward = ~sides.bottom[order]
    x0, x1, y = sides.x0[order], sides.x1[order], sides.y[order]
    corners = np.empty((2 * len(order), 2))
    corners[::2, 0] = np.where(forward, x0, x1)
    corners[1::2, 0] = np.where(forward, x1, x0)
    corners[::2, 1] = corners[1::2, 1] = y
    ring = np.repeat(np.arange(len(first)), 2 * np.diff(first, append=len(order)))
    rings = shapely.linearrings(corners, indices=ring)
    # sorted like this an owner's first ring starts with its uppermost side: the outer one
    owners, outer, index = np.unique(sides.owner[order[first]], return_index=True, return_inverse=True)
    begin = order[first[outer]]
    return owners, shapely.polygons(rings, indices=index), np.column_stack([sides.x0[begin], sides.y[begin]])


def _next(sides: Sides) -> np.ndarray:
    """Return for every side the one that follows it around the object."""
    count = len(sides)
    head = np.where(sides.bottom, sides.x0, sides.x1)
    tail = np.where(sides.bottom, sides.x1, sides.x0)
    x = np.concatenate([head, tail])
    side = np.tile(np.arange(count), 2)
    # two ends on one corner: the top side's belongs to the vertical side above, which keeps
    # the ring at the background (both diagonals give this one rule)
    order = np.lexsort((sides.bottom[side], sides.y[side], x, sides.owner[side]))
    one, other = order[::2], order[1::2]
    assert ((one < count) != (other < count)).all()  # a vertical side leads from a head to a tail
    heads, tails = np.where(one < count, one, other), np.where(one < count, other, one)
    follows = np.empty(count, np.int64)
    follows[heads] = tails - count
    return follows


def _walk(follows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (sides in the order of their rings, where in it each ring starts)."""
    following = follows.tolist()
    seen = bytearray(len(following))
    order: list[int] = []
    first: list[int] = []
    for start in range(len(following)):
        if seen[start]:
            continue
        first.append(len(order))
        side = start
        while not seen[side]:
            seen[side] = 1
            order.append(side)
            side = following[side]
    return np.array(order), np.array(first)
