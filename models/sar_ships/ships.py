"""Simulated ships: size, heading, hull outline, scatterers, and the box that labels them.

The label follows the boxes derived for the real OpenSARShip chips, so that simulated and real labels mean
the same: the hull grown by one pixel at bow and stern and to at least 1.5 px on each side of its centre
line (what a resolution cell adds), then the axis-aligned extent; sidelobes and wake do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

END_PX = 1.0  # growth of the labelled hull at bow and stern
HALF_BEAM_PX = 1.5  # smallest half width of the labelled hull
MIN_SIDE_PX = 3.0  # smallest side of a label box


@dataclass(frozen=True)
class Ship:
    """One simulated ship.

    ``row``, ``col``: centre in pixels (pixel edges: the first pixel spans 0..1). ``heading_deg``:
    clockwise from the raster's up direction. ``power_db``: mean backscatter over the hull (sigma0, dB).
    ``snr``: detection statistic and ``contrast_db``: hull to local clutter power, both filled in by the
    simulator; ``visible``: whether it carries a label.
    """

    row: float
    col: float
    length_m: float
    beam_m: float
    heading_deg: float
    kind: str
    power_db: float
    snr: float = 0.0
    contrast_db: float = 0.0
    visible: bool = False


KINDS = ("boat", "cargo", "container", "tanker", "barge")


def draw_size(rng: np.random.Generator, kind: str, shortest_m: float = 20.0) -> tuple[float, float]:
    """Length and beam in metres: 8-40 m boats up to 350 m container ships; beam from usual ratios."""
    low, high = {
        "boat": (8.0, 45.0),
        "cargo": (60.0, 240.0),
        "container": (100.0, 350.0),
        "tanker": (80.0, 335.0),
        "barge": (40.0, 130.0),
    }[kind]
    length = float(np.exp(rng.uniform(np.log(max(low, min(shortest_m, high))), np.log(high))))
    # slenderness grows with length: about 3.5 for boats, 6-7.5 for large ships
    ratio = {"boat": rng.uniform(2.8, 4.6), "barge": rng.uniform(3.5, 6.5)}.get(kind, rng.uniform(5.2, 7.6))
    return length, length / float(ratio)


def axis(heading_deg: float) -> tuple[float, float]:
    """Unit vector (row, column) that points from stern to bow."""
    angle = np.deg2rad(heading_deg)
    return -float(np.cos(angle)), float(np.sin(angle))


def apparent_size_px(ship: Ship, pixel_m: float) -> tuple[float, float]:
    """Length and width of the labelled hull in pixels."""
    return (
        ship.length_m / pixel_m + 2 * END_PX,
        max(ship.beam_m / pixel_m, 2 * HALF_BEAM_PX),
    )


def hull_box(ship: Ship, pixel_m: float) -> np.ndarray:
    """Label box x1, y1, x2, y2 (float32, pixel edges), not clipped to the scene."""
    length, width = apparent_size_px(ship, pixel_m)
    dy, dx = axis(ship.heading_deg)
    half_x = max(0.5 * (abs(dx) * length + abs(dy) * width), MIN_SIDE_PX / 2)
    half_y = max(0.5 * (abs(dy) * length + abs(dx) * width), MIN_SIDE_PX / 2)
    return np.array(
        [ship.col - half_x, ship.row - half_y, ship.col + half_x, ship.row + half_y], dtype=np.float32
    )


def half_beam(along: np.ndarray) -> np.ndarray:
    """Half width of the hull relative to half the beam at ``along`` in -1 (stern) .. 1 (bow)."""
    bow = np.sqrt(np.clip((1.0 - along) / 0.45, 0.0, 1.0))  # the bow's last 22 % of the length narrows
    stern = np.clip(0.75 + (along + 1.0) * 2.5, 0.0, 1.0)
    return np.where(np.abs(along) <= 1.0, np.minimum(bow, stern), 0.0)


def hull_cover(
    ship: Ship, pixel_m: float, height: int, width: int, grow_px: float = 0.0
) -> tuple[slice, slice, np.ndarray] | None:
    """Share of each pixel inside the hull (soft edge of one pixel), on the window that holds it.

    Returns (rows, columns, cover float32) or None when the ship lies outside the scene.
    """
    half_length = 0.5 * ship.length_m / pixel_m + grow_px
    half_width = max(0.5 * ship.beam_m / pixel_m, 0.5) + grow_px
    reach = np.hypot(half_length, half_width) + 1
    top, bottom = max(0, int(ship.row - reach)), min(height, int(ship.row + reach) + 2)
    left, right = max(0, int(ship.col - reach)), min(width, int(ship.col + reach) + 2)
    if top >= bottom or left >= right:
        return None
    y = np.arange(top, bottom)[:, None] + 0.5 - ship.row
    x = np.arange(left, right)[None, :] + 0.5 - ship.col
    dy, dx = axis(ship.heading_deg)
    along = y * dy + x * dx
    across = np.abs(-y * dx + x * dy)
    limit = half_width * half_beam(np.clip(along / half_length, -1, 1))
    inside = np.minimum(limit - across, half_length - np.abs(along))
    return slice(top, bottom), slice(left, right), np.clip(inside + 0.5, 0, 1).astype(np.float32)


def scatterers(
    rng: np.random.Generator, ship: Ship, pixel_m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Point scatterers of one ship: rows, columns (pixels) and relative power (sum 1).

    Along the hull: deck clutter, both rails (the one that faces the sensor brighter), superstructure near
    the stern, bow, and what the kind carries: container bays, a tanker's manifold, a barge's empty hold.
    """
    area_px = ship.length_m * ship.beam_m / pixel_m**2
    count = int(np.clip(area_px * rng.uniform(0.4, 1.2), 4, 700))
    kind = ship.kind
    u = rng.uniform(-0.97, 0.97, count)  # along the hull
    v = rng.uniform(-0.85, 0.85, count)  # across, in half beams
    power = rng.exponential(1.0, count) ** rng.uniform(1.0, 1.9)  # heavy tail: few parts dominate
    edge = rng.random(count) < {"barge": 0.7, "tanker": 0.35}.get(kind, 0.3)
    near = 1.0 if rng.random() < 0.5 else -1.0
    v = np.where(edge, np.where(rng.random(count) < 0.65, near, -near) * rng.uniform(0.85, 1.0, count), v)
    if kind == "tanker":
        middle = rng.random(count) < 0.3
        v = np.where(middle & ~edge, rng.normal(0, 0.07, count), v)
    if kind == "container":
        bays = max(3, int(ship.length_m / 15))
        u = np.where(edge, u, (np.round((u + 1) / 2 * bays) / bays) * 1.8 - 0.9)
        power *= np.where(edge, 1.0, 1.5)
    if kind == "barge":
        power *= np.where(edge, 1.0, 0.3)
    house = max(1, count // 8)
    stern = rng.uniform(-0.85, -0.55) if kind != "container" else rng.uniform(-0.6, -0.2)
    groups = [(u, v, power)]
    strength = rng.uniform(0.5, 4.0) * power.mean() * (0.2 if kind == "barge" else 1.0)
    groups.append(
        (rng.normal(stern, 0.06, house), rng.uniform(-0.8, 0.8, house), rng.exponential(strength, house))
    )
    ends = max(1, count // 20)
    groups.append(
        (
            rng.uniform(0.82, 0.98, ends),
            rng.uniform(-0.4, 0.4, ends),
            rng.exponential(1.5 * power.mean(), ends),
        )
    )
    if rng.random() < 0.35:  # a dihedral: one point outshines the rest
        groups.append(
            (
                rng.uniform(-0.8, 0.8, 1),
                rng.uniform(-0.6, 0.6, 1),
                np.array([power.sum() * rng.uniform(0.1, 0.7)]),
            )
        )
    u, v, power = (np.concatenate(part) for part in zip(*groups, strict=True))
    u = np.clip(u, -0.99, 0.99)
    along = u * ship.length_m / (2 * pixel_m)
    across = np.clip(v, -1, 1) * half_beam(u) * ship.beam_m / (2 * pixel_m)
    dy, dx = axis(ship.heading_deg)
    return ship.row + along * dy - across * dx, ship.col + along * dx + across * dy, power / power.sum()
