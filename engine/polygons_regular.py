"""Outlines of buildings with right angles: one direction, sides along and across it, guards.

The pixel outline is smoothed, the direction taken from its long sides, every side put along or
across that direction, and neighbours of one kind become one side. What then differs too much from
the pixels - round tanks, roads, groups of buildings - keeps its outline.

All polygons are worked on at once: one by one, calls to numpy took most of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from .polygons_ground import Frames

#: Stairs of a slanting straight wall leave the wall by less than a pixel.
SMOOTH_PX = 1.0
#: Sides shorter than that are stairs or notches of one pixel.
SHORT_PX = 2.0
#: On a grid much is exactly as long as something else. Limits are shifted, and sizes compared, by that
#: part of a pixel or of the whole, so that no rounding decides: like outlines become like shapes
#: wherever they lie.
SLACK = 1e-5
#: Width in degrees of the window that finds the direction, and reach of the mean that refines it.
SMEAR, REACH = 4, 12.0
#: What differs, spread along the border, must not be wider: slanting walls are off by a quarter to half
#: a pixel, a square in the place of a disc of 20 px by 0.8.
OFF_PX = 0.75
#: And together they must have at least that much in common, which guards objects of a few pixels,
MIN_IOU = 0.7
#: and the area must not change by more than that.
MAX_GROWTH = 0.15
#: A building has at least four sides; more than the larger number belong to a street or to noise.
LEAST_SIDES, MOST_SIDES = 4, 200


def regularise(polygons: np.ndarray, local: Frames) -> np.ndarray:
    """Return polygons (N,) with right angles, in metres; None for one that does not have any.

    ``polygons``: (N,) in pixels, ``local``: their frames.
    """
    found = np.full(len(polygons), None, object)
    smooth = shapely.simplify(polygons, SMOOTH_PX + SLACK)  # in pixels: exact, corners are whole numbers
    whole = (shapely.get_type_id(smooth) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(smooth)
    left = np.flatnonzero(whole)
    if not len(left):
        return found
    polygons, smooth, pixel = local.to_metres(polygons), local.to_metres(smooth), local.pixel_side
    regular, kept = _squared(smooth[left], pixel[left])
    left = left[kept]
    fine = shapely.is_valid(regular)
    regular, left = regular[fine], left[fine]
    # smoothing keeps the outer corners of stairs: move all sides until the area is the pixels' again
    excess = (shapely.area(regular) - shapely.area(polygons[left])) / shapely.length(regular)
    moved = np.abs(excess) > SLACK * pixel[left]  # of a buffer by next to nothing GEOS makes nothing
    regular[moved] = shapely.buffer(  # a right angle needs a limit of 1.42
        regular[moved], -excess[moved], join_style="mitre", mitre_limit=2
    )
    fine = (shapely.get_type_id(regular) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(regular)
    regular, left = regular[fine], left[fine]
    fine = _agree(regular, polygons[left], shapely.length(smooth[left]) * pixel[left])
    found[left[fine]] = regular[fine]
    return found


def directions(rings: np.ndarray) -> np.ndarray:
    """Return the main direction of closed rings, (N,), in radians from -pi/4 to pi/4.

    The peak of the squared lengths of a ring's sides over their angle modulo a right angle.
    """
    step, _, ring = _steps(*shapely.get_coordinates(rings, return_index=True))
    length = (step**2).sum(axis=1)  # squared: one long side tells more than the stairs beside it
    degrees = np.degrees(np.arctan2(step[:, 1], step[:, 0])) % 90
    cell = ring * 90 + (degrees + SLACK).astype(int) % 90
    histogram = np.bincount(cell, length, minlength=90 * len(rings)).reshape(-1, 90)
    smeared = np.zeros_like(histogram)
    for shift in range(-SMEAR, SMEAR + 1):
        smeared += (SMEAR + 1 - abs(shift)) * np.roll(histogram, shift, axis=1)
    share = smeared / np.maximum(smeared.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    peak = np.argmax(np.rint(share / SLACK), axis=1) + 0.5
    off = (degrees - peak[ring] + 45) % 90 - 45
    weight = np.where(np.abs(off) <= REACH, length, 0)
    total = np.bincount(ring, weight, minlength=len(rings))
    mean = np.bincount(ring, weight * off, minlength=len(rings))
    mean = peak + np.divide(mean, total, out=np.zeros(len(rings)), where=total > 0)
    return np.asarray(np.radians((mean + 45) % 90 - 45))


def _squared(polygons: np.ndarray, pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (polygons with right angles, which of ``polygons`` they are).

    A hole without such sides is left out, a polygon without an outer ring too.
    """
    angle = directions(shapely.get_exterior_ring(polygons))
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(-1, 2, 2)
    rings, owner = shapely.get_rings(polygons, return_index=True)
    outer = np.diff(owner, prepend=-1) > 0  # a polygon's first ring is the outer one
    sides = _without_short(_sides(rings, turn[owner], pixel[owner]), (SHORT_PX - SLACK) * pixel[owner])
    # without its outer ring a polygon is none
    has_outer = np.zeros(len(polygons), bool)
    has_outer[owner[np.unique(sides.ring)][outer[np.unique(sides.ring)]]] = True
    sides = sides.take(has_outer[owner[sides.ring]])
    if not len(sides.ring):
        return np.empty(0, object), np.empty(0, int)
    # every corner is where a side meets the next: one gives x, the other y
    following = sides.place[sides.neighbour(1)]
    corners = np.where(
        sides.flat[:, None],
        np.column_stack([following, sides.place]),
        np.column_stack([sides.place, following]),
    )
    corners = np.einsum("nij,nj->ni", turn[owner[sides.ring]], corners)
    made, number = np.unique(sides.ring, return_inverse=True)
    kept, of = np.unique(owner[made], return_inverse=True)
    return shapely.polygons(shapely.linearrings(corners, indices=number), indices=of), kept


@dataclass(frozen=True, eq=False)
class _Sides:
    """Alternating sides of rings, ring after ring: whether a side lies flat, and at which y or x."""

    ring: np.ndarray
    flat: np.ndarray
    place: np.ndarray

    def take(self, index: np.ndarray) -> _Sides:
        return _Sides(self.ring[index], self.flat[index], self.place[index])

    def neighbour(self, step: int) -> np.ndarray:
        """Return the position of the side ``step`` (1 or -1) further around each side's ring."""
        start, count = _runs(self.ring)
        begin, size = np.repeat(start, count), np.repeat(count, count)
        return np.asarray(begin + (np.arange(len(self.ring)) - begin + step) % size)


def _sides(rings: np.ndarray, turn: np.ndarray, pixel: np.ndarray) -> _Sides:
    """Return the sides of turned rings, of those that have neither too few nor too many."""
    points, of = shapely.get_coordinates(rings, return_index=True)
    step, middle, ring = _steps(np.einsum("ni,nij->nj", points, turn[of]), of)
    flat = np.abs(step[:, 0]) >= np.abs(step[:, 1]) - SLACK * pixel[ring]
    sides = _Sides(ring, flat, np.where(flat, middle[:, 1], middle[:, 0]))
    length = np.where(flat, np.abs(step[:, 0]), np.abs(step[:, 1]))
    change = flat != flat[sides.neighbour(-1)]
    count = np.bincount(ring, change, minlength=len(rings))
    fits = ((count >= LEAST_SIDES) & (count <= MOST_SIDES))[ring]
    sides, length, change = sides.take(fits), length[fits], change[fits]
    if not len(length):
        return sides
    # begin each ring at a change, so that no side is split between the end and the beginning
    start, size = _runs(sides.ring)
    first = np.flatnonzero(change)
    first = first[np.searchsorted(first, start)] - start
    begin, turned, whole = (np.repeat(each, size) for each in (start, first, size))
    order = begin + (np.arange(len(length)) - begin + turned) % whole
    sides, length, change = sides.take(order), length[order], change[order]
    first = np.flatnonzero(change)
    place = np.add.reduceat(sides.place * length, first) / np.add.reduceat(length, first)
    return _Sides(sides.ring[first], sides.flat[first], place)


def _without_short(sides: _Sides, short: np.ndarray) -> _Sides:
    """Take out sides shorter than ``short``, one number a ring; what then has under four sides goes."""
    if not len(sides.ring):
        return sides
    length = np.abs(sides.place[sides.neighbour(1)] - sides.place[sides.neighbour(-1)])
    start, count = _runs(sides.ring)
    ring = sides.ring[start]
    rings, flat, places = [], [], []
    clean = (np.minimum.reduceat(length, start) >= short[ring]) | (count <= LEAST_SIDES)
    place = sides.place.tolist()
    for i, (low, size) in enumerate(zip(start.tolist(), count.tolist(), strict=True)):
        kept, turned = place[low : low + size], bool(sides.flat[low])
        if not clean[i]:
            kept, turned = _shortened(kept, turned, float(short[ring[i]]))
        rings.append(len(kept))
        flat.append(turned)
        places.extend(kept)
    number = np.repeat(np.arange(len(rings)), rings)
    odd = (np.arange(len(places)) - np.repeat(np.cumsum(rings) - rings, rings)) % 2 == 1
    found = _Sides(ring[number], np.array(flat)[number] ^ odd, np.array(places))
    return found.take((np.array(rings) >= LEAST_SIDES)[number])


def _shortened(place: list[float], flat: bool, short: float) -> tuple[list[float], bool]:
    """Take out one ring's short sides, the shortest first; their neighbours become one.

    ``place``: of its alternating sides; ``flat``: whether the first one lies flat.
    """
    while len(place) > LEAST_SIDES:
        length = [abs(b - a) for a, b in zip([place[-1], *place[:-1]], [*place[1:], place[0]], strict=True)]
        least = min(length)
        if least >= short:
            break
        k = next(i for i, each in enumerate(length) if each <= least + SLACK * short)
        # turn the ring so that the side to go stands between the two to be joined
        place = place[k - 1 :] + place[: k - 1]
        flat ^= k % 2 == 0
        # both may be of no length, where a notch closes
        one, other = length[k - 1] + 1e-9, length[(k + 1) % len(length)] + 1e-9
        place = [(place[0] * one + place[2] * other) / (one + other), *place[3:]]
    return place, flat


def _agree(regular: np.ndarray, polygons: np.ndarray, border: np.ndarray) -> np.ndarray:
    """Tell which shapes are alike; ``border``: their length times a pixel's."""
    area, known = shapely.area(regular), shapely.area(polygons)
    alike = shapely.is_valid(regular) & (np.abs(area / known - 1) <= MAX_GROWTH + SLACK)
    common = shapely.area(shapely.intersection(regular[alike], polygons[alike]))
    union = area[alike] + known[alike] - common
    alike[alike] = (common / union >= MIN_IOU - SLACK) & (union - common <= (OFF_PX + SLACK) * border[alike])
    return np.asarray(alike)


def _steps(points: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (steps from corner to corner (M, 2), their middles (M, 2), the ring of each)."""
    within = of[1:] == of[:-1]
    step, middle = np.diff(points, axis=0), (points[1:] + points[:-1]) / 2
    return step[within], middle[within], of[1:][within]


def _runs(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (start, length) of runs of equal numbers."""
    start = np.flatnonzero(np.diff(numbers, prepend=-1))
    return start, np.diff(start, append=len(numbers))
