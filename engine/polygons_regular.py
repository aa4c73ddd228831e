"""Outlines of buildings with right angles: one direction, sides along and across it, guards.

The pixel outline is smoothed, the direction taken from its long sides, every side put along or
across that direction, and neighbours of one kind become one side. What then differs too much from
the pixels - round tanks, roads, groups of buildings - keeps its outline.
"""

from __future__ import annotations

import numpy as np
import shapely

#: Stairs of a slanting straight wall leave the wall by less than a pixel.
SMOOTH_PX = 1.0
#: Sides shorter than that are stairs or notches of one pixel.
SHORT_PX = 2.0
#: Width in degrees of the window that finds the direction, and reach of the mean that refines it.
SMEAR, REACH = 4, 12.0
#: What differs, spread along the border, must not be wider: slanting walls are off by a quarter to half
#: a pixel, a square in the place of a disc of 20 px by 0.8.
OFF_PX = 0.75
#: And together they must have at least that much in common, which guards objects of a few pixels,
MIN_IOU = 0.7
#: and the area must not change by more than that.
MAX_GROWTH = 0.15
#: More sides than that belong to a street or to noise, not to a building.
MAX_SIDES = 200


def regularise(polygon: shapely.Polygon, pixel: float) -> shapely.Polygon | None:
    """Return the polygon with right angles, or None where it does not have any.

    ``polygon`` and ``pixel``, the length of a pixel's longer side, in metres of a flat frame.
    """
    smooth = shapely.simplify(polygon, SMOOTH_PX * pixel)
    if smooth.geom_type != "Polygon" or smooth.is_empty:
        return None
    angle = direction(np.asarray(smooth.exterior.coords))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shell = _square(smooth.exterior, turn, pixel)
    if shell is None:
        return None
    holes = [_square(ring, turn, pixel) for ring in smooth.interiors]
    regular = shapely.Polygon(shell, [hole for hole in holes if hole is not None])
    if not regular.is_valid:
        return None
    # smoothing keeps the outer corners of stairs: move all sides until the area is the pixels' again
    excess = (regular.area - polygon.area) / regular.length
    regular = regular.buffer(-excess, join_style="mitre", mitre_limit=2)  # a right angle needs 1.42
    if regular.geom_type != "Polygon" or regular.is_empty:
        return None
    return regular if _agree(regular, polygon, smooth.length * pixel) else None


def direction(ring: np.ndarray) -> float:
    """Return the main direction of a closed ring, (N, 2), in radians from -pi/4 to pi/4.

    The peak of the squared lengths of its sides over their angle modulo a right angle.
    """
    step = np.diff(ring, axis=0)
    length = (step**2).sum(axis=1)  # squared: one long side tells more than the stairs beside it
    degrees = np.degrees(np.arctan2(step[:, 1], step[:, 0])) % 90
    histogram = np.bincount(degrees.astype(int) % 90, length, minlength=90)
    window = range(-SMEAR, SMEAR + 1)
    peak = np.argmax(sum((SMEAR + 1 - abs(s)) * np.roll(histogram, s) for s in window)) + 0.5
    off = (degrees - peak + 45) % 90 - 45
    near = np.abs(off) <= REACH
    mean = peak + np.average(off[near], weights=length[near]) if length[near].any() else peak
    return float(np.radians((mean + 45) % 90 - 45))


def _square(ring: shapely.LinearRing, turn: np.ndarray, pixel: float) -> np.ndarray | None:
    """Return the corners of a ring with right angles, (N, 2), or None."""
    points = np.asarray(ring.coords) @ turn
    flat, place = _sides(points)
    flat, place = _without_short(flat, place, SHORT_PX * pixel)
    if len(flat) < 4:
        return None
    # every corner is where a side meets the next: one gives x, the other y
    following = np.roll(place, -1)
    corners = np.where(
        flat[:, None], np.column_stack([following, place]), np.column_stack([place, following])
    )
    return np.asarray(corners @ turn.T)


def _sides(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (whether it lies flat, at which y or x) of the alternating sides of a closed ring."""
    step = np.diff(points, axis=0)
    middle = (points[1:] + points[:-1]) / 2
    flat = np.abs(step[:, 0]) >= np.abs(step[:, 1])
    length = np.where(flat, np.abs(step[:, 0]), np.abs(step[:, 1]))
    where = np.where(flat, middle[:, 1], middle[:, 0])
    changes = np.flatnonzero(flat != np.roll(flat, 1))
    if len(changes) < 4 or len(changes) > MAX_SIDES:
        return np.empty(0, bool), np.empty(0)
    # start at a change, so that no side is split between the end and the beginning
    flat, length, where = (np.roll(v, -changes[0]) for v in (flat, length, where))
    first = changes - changes[0]
    place = np.add.reduceat(where * length, first) / np.add.reduceat(length, first)
    return flat[first], place


def _without_short(flat: np.ndarray, place: np.ndarray, short: float) -> tuple[np.ndarray, np.ndarray]:
    """Take out sides shorter than ``short``, the shortest first; their neighbours become one."""
    while len(flat) > 4:
        length = np.abs(np.roll(place, -1) - np.roll(place, 1))
        k = int(np.argmin(length))
        if length[k] >= short:
            break
        # turn the ring so that the side to go stands between the two to be joined
        flat, place, length = (np.roll(v, 1 - k) for v in (flat, place, length))
        # both may be of no length, where a notch closes
        joined = np.average(place[[0, 2]], weights=length[[0, 2]] + 1e-9)
        flat = np.concatenate([flat[:1], flat[3:]])
        place = np.concatenate([[joined], place[3:]])
    return flat, place


def _agree(regular: shapely.Polygon, polygon: shapely.Polygon, border: float) -> bool:
    """Tell whether two shapes are alike; ``border``: its length times a pixel's."""
    if not regular.is_valid or abs(regular.area / polygon.area - 1) > MAX_GROWTH:
        return False
    common = regular.intersection(polygon).area
    union = regular.area + polygon.area - common
    return bool(common / union >= MIN_IOU and union - common <= OFF_PX * border)
