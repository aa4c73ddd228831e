"""Simulated land: fractal coast and islands, harbour piers, fields, roads, towns and their bright points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .clutter import fractal_field


@dataclass(frozen=True)
class Pier:
    """A straight quay: start (row, col) in pixels, unit direction, length and width in pixels."""

    row: float
    col: float
    down: float
    right: float
    length_px: float
    width_px: float


@dataclass(frozen=True)
class Land:
    """``mask``: bool (H, W). ``relief``: float32 (H, W), positive on natural land, rising inland."""

    mask: np.ndarray
    relief: np.ndarray
    piers: tuple[Pier, ...]


def make_land(
    rng: np.random.Generator,
    height: int,
    width: int,
    pixel_m: float,
    share: float,
    *,
    piers: int,
    rough: float,
) -> Land:
    """Land that covers about ``share`` of the scene (0..1), with ``piers`` quays pushed out from the coast.

    ``rough``: spectral slope of the coast line; about 1.4 gives many islands, 2.2 a smooth coast.
    """
    if share <= 0:
        return Land(np.zeros((height, width), bool), np.full((height, width), -1, np.float32), ())
    field = fractal_field(rng, height, width, rough)
    angle = rng.uniform(0, 2 * np.pi)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    field = field + rng.uniform(0, 2.0) * (np.float32(np.sin(angle)) * y + np.float32(np.cos(angle)) * x)
    if rng.random() < 0.2:  # a river or strait instead of one coast
        field = np.abs(field) * 2
    level = np.quantile(field[::4, ::4], 1 - share)
    relief = (field - level).astype(np.float32)
    mask = relief > 0
    placed = []
    for row, col in coast_points(rng, mask, piers):
        down, right = seaward(relief, row, col)
        length, wide = rng.uniform(60, 500) / pixel_m, max(rng.uniform(15, 80) / pixel_m, 2.0)
        pier = Pier(row - down * 3, col - right * 3, down, right, min(length, 0.3 * height), wide)
        fill_pier(mask, pier)
        placed.append(pier)
    return Land(mask, relief, tuple(placed))


def coast_points(rng: np.random.Generator, mask: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Up to ``count`` random land pixels that touch water."""
    if count <= 0:
        return []
    shore = mask[1:-1, 1:-1] & ~(mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:])
    rows, cols = np.nonzero(shore)
    if len(rows) == 0:
        return []
    pick = rng.choice(len(rows), size=min(count, len(rows)), replace=False)
    return [(int(rows[i]) + 1, int(cols[i]) + 1) for i in pick]


def seaward(relief: np.ndarray, row: int, col: int, reach: int = 6) -> tuple[float, float]:
    """Unit vector (down, right) that points from land to water at a pixel of the natural coast."""
    height, width = relief.shape
    top, bottom = max(0, row - reach), min(height - 1, row + reach)
    left, right = max(0, col - reach), min(width - 1, col + reach)
    down = float(relief[top, col] - relief[bottom, col])
    across = float(relief[row, left] - relief[row, right])
    size = float(np.hypot(down, across))
    return (down / size, across / size) if size > 0 else (0.0, 1.0)


def fill_pier(mask: np.ndarray, pier: Pier) -> None:
    """Set the pier's pixels in the mask, in place."""
    height, width = mask.shape
    reach = pier.length_px + pier.width_px
    top, bottom = max(0, int(pier.row - reach)), min(height, int(pier.row + reach) + 1)
    left, right = max(0, int(pier.col - reach)), min(width, int(pier.col + reach) + 1)
    if top >= bottom or left >= right:
        return
    y = np.arange(top, bottom)[:, None] + 0.5 - pier.row
    x = np.arange(left, right)[None, :] + 0.5 - pier.col
    along = y * pier.down + x * pier.right
    across = np.abs(x * pier.down - y * pier.right)
    mask[top:bottom, left:right] |= (along >= 0) & (along <= pier.length_px) & (across <= pier.width_px / 2)


def land_power(
    rng: np.random.Generator, land: Land, pixel_m: float, mean_db: float, spread_db: float
) -> np.ndarray:
    """Mean backscatter of the land surface (linear, float32 (H, W)): relief, parcels, roads, still water."""
    height, width = land.mask.shape
    db = mean_db + spread_db * fractal_field(rng, height, width, 1.3)
    parcels = fractal_field(rng, height, width, 1.1)
    db += np.float32(0.7 * spread_db) * np.sign(parcels) * (np.abs(parcels) > 0.6)
    roads = fractal_field(rng, height, width, 1.8)
    db = np.where(np.abs(roads) < np.float32(0.02), db - 7, db)  # thin dark lines along a level set
    ponds = fractal_field(rng, height, width, 1.7)
    db = np.where(ponds > rng.uniform(2.0, 3.0), mean_db - 12, db)
    return np.power(np.float32(10), db.astype(np.float32) / 10)


def town_points(
    rng: np.random.Generator, land: Land, pixel_m: float, density: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns (pixel edges) and power of buildings, cranes and quay edges, all on land.

    ``density``: buildings per 100 x 100 m in towns. Street grids give the rows of points seen in real scenes.
    """
    height, width = land.mask.shape
    rows, cols, power = [], [], []
    towns = land.mask & (fractal_field(rng, height, width, 1.6) > rng.uniform(0.3, 1.6))
    # radar cross-sections in square metres, so that fine pixels see the same buildings brighter
    strength = 10 ** rng.uniform(1.0, 2.7) / pixel_m**2
    lots = np.flatnonzero(towns)
    count = int(min(len(lots) * (pixel_m / 100) ** 2 * density, 12000))
    if count:
        angle, street = rng.uniform(0, np.pi), max(rng.uniform(40, 120) / pixel_m, 3.0)
        at = rng.choice(lots, count)
        r, c = at // width + rng.random(count), at % width + rng.random(count)
        a, b = r * np.cos(angle) + c * np.sin(angle), c * np.cos(angle) - r * np.sin(angle)
        b = np.round(b / street) * street  # buildings line up along streets
        rows.append(a * np.cos(angle) - b * np.sin(angle))
        cols.append(a * np.sin(angle) + b * np.cos(angle))
        power.append(np.exp(rng.normal(0, 1.3, count)) * strength)
    for pier in land.piers:  # cranes, sheds and the double-bounce line of the quay wall
        number = int(np.clip(pier.length_px * rng.uniform(0.1, 1.0), 2, 400))
        along = rng.uniform(0, pier.length_px, number)
        across = (rng.random(number) < 0.5) * pier.width_px * 0.8 - pier.width_px * 0.4
        across = np.where(rng.random(number) < 0.5, across, rng.uniform(-0.45, 0.45, number) * pier.width_px)
        rows.append(pier.row + along * pier.down - across * pier.right)
        cols.append(pier.col + along * pier.right + across * pier.down)
        power.append(np.exp(rng.normal(0, 1.2, number)) * 10 ** rng.uniform(1.0, 2.7) / pixel_m**2)
    if not rows:
        return np.empty(0), np.empty(0), np.empty(0)
    r, c, p = np.concatenate(rows), np.concatenate(cols), np.concatenate(power)
    inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
    r, c, p = r[inside], c[inside], p[inside]
    on_land = land.mask[r.astype(int), c.astype(int)]
    return r[on_land], c[on_land], p[on_land]
