"""Cut real ships out of their chips and set them on simulated clutter.

A ship keeps its contrast to its own clutter: the chip's amplitude is divided by the chip's clutter median
and multiplied by the local median of the scene. The edge is soft: everything inside the hull and a rim
comes from the chip; farther out, up to ``BRIGHT_REACH_PX``, only what outshines the clutter (sidelobes).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

RIM_PX = 2.0  # the chip's own pixels are kept this far around the labelled hull
FADE_PX = 2.0  # and fade out over this distance
BRIGHT_REACH_PX = 8.0  # sidelobes are kept up to here; farther out a neighbour may lie
BRIGHT_RATIO = (2.0, 4.0)  # amplitude over the clutter median at which a sidelobe starts and fully counts


@dataclass(frozen=True)
class RealShip:
    """One real ship: ``amplitude`` float32 (h, w) over its clutter median, ``box`` x1, y1, x2, y2.

    ``weight``: float32 (h, w), how much of the chip is pasted.
    """

    name: str
    amplitude: np.ndarray
    weight: np.ndarray
    box: np.ndarray


def cut_ship(
    name: str,
    chip: np.ndarray,
    head: tuple[float, float],
    tail: tuple[float, float],
    half_width_px: float,
    box: tuple[float, float, float, float],
) -> RealShip:
    """A ship from its amplitude chip (h, w); head, tail (x, y) and box in pixel edges, as labelled.

    Raises ValueError where the chip has no positive clutter.
    """
    height, width = chip.shape
    y, x = np.mgrid[:height, :width] + 0.5
    dx, dy = head[0] - tail[0], head[1] - tail[1]
    length = max(float(np.hypot(dx, dy)), 1e-6)
    ux, uy = dx / length, dy / length
    cx, cy = (head[0] + tail[0]) / 2, (head[1] + tail[1]) / 2
    along = np.abs((x - cx) * ux + (y - cy) * uy) - length / 2 - 1
    across = np.abs((y - cy) * ux - (x - cx) * uy) - max(half_width_px, 1.5)
    distance = np.hypot(np.maximum(along, 0), np.maximum(across, 0))
    sea = chip[distance > BRIGHT_REACH_PX / 2]
    clutter = float(np.median(sea)) if sea.size else 0.0
    if not clutter > 0:
        raise ValueError(f"{name} has no clutter around the ship")
    ratio = (chip / clutter).astype(np.float32)
    near = np.clip(1 - (distance - RIM_PX) / FADE_PX, 0, 1)
    low, high = BRIGHT_RATIO
    bright = np.clip((ratio - low) / (high - low), 0, 1)
    bright *= np.clip((BRIGHT_REACH_PX - distance) / FADE_PX, 0, 1)
    border = np.minimum(
        np.minimum(x, width - x), np.minimum(y, height - y)
    )  # no hard edge at the chip's border
    weight = np.maximum(near, bright) * np.clip(border / 2, 0, 1)
    return RealShip(name, ratio, weight.astype(np.float32), np.array(box, dtype=np.float32))


def turn(ship: RealShip, quarter_turns: int, mirror: bool) -> RealShip:
    """The ship turned counter-clockwise by quarter turns, then mirrored left-right; the box follows."""
    amplitude, weight, box = ship.amplitude, ship.weight, ship.box
    for _ in range(quarter_turns % 4):
        width = amplitude.shape[1]
        amplitude, weight = np.rot90(amplitude), np.rot90(weight)
        box = np.array([box[1], width - box[2], box[3], width - box[0]], dtype=np.float32)
    if mirror:
        width = amplitude.shape[1]
        amplitude, weight = amplitude[:, ::-1], weight[:, ::-1]
        box = np.array([width - box[2], box[1], width - box[0], box[3]], dtype=np.float32)
    return replace(ship, amplitude=amplitude, weight=weight, box=box)


def paste_ships(
    amplitude: np.ndarray,
    land: np.ndarray,
    ships: list[RealShip],
    rng: np.random.Generator,
    *,
    gain: tuple[float, float] = (1.0, 1.0),
    turns: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Paste ships at random free places on water.

    ``amplitude``: float32 (H, W), ``land``: bool (H, W). ``gain``: range of a random factor on what
    outshines the clutter. A ship that finds no room in 30 tries is left out. Returns the new amplitude
    and the boxes float32 (N, 4) of the pasted ships, wholly inside the scene.
    """
    out = amplitude.copy()
    height, width = out.shape
    taken = land.copy()
    boxes = []
    for ship in ships:
        placed = turn(ship, int(rng.integers(4)), bool(rng.random() < 0.5)) if turns else ship
        h, w = placed.amplitude.shape
        x1, y1, x2, y2 = placed.box
        for _ in range(30):
            # chips may hang over the scene's border, boxes may not
            top = int(rng.integers(-int(y1), max(height - int(np.ceil(y2)), -int(y1)) + 1))
            left = int(rng.integers(-int(x1), max(width - int(np.ceil(x2)), -int(x1)) + 1))
            box = placed.box + np.array([left, top, left, top], dtype=np.float32)
            if box[2] > width or box[3] > height:
                continue
            near = np.s_[
                max(0, int(box[1]) - 3) : int(np.ceil(box[3])) + 3,
                max(0, int(box[0]) - 3) : int(np.ceil(box[2])) + 3,
            ]
            if taken[near].any():
                continue
            rows = slice(max(0, top), min(height, top + h))
            cols = slice(max(0, left), min(width, left + w))
            inner = np.s_[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
            water = out[rows, cols][~land[rows, cols]]
            level = np.float32(np.median(water))
            ratio = placed.amplitude[inner]
            ratio = np.where(ratio > 1, 1 + (ratio - 1) * np.float32(rng.uniform(*gain)), ratio)
            weight = placed.weight[inner] * ~land[rows, cols]
            out[rows, cols] += weight * (ratio * level - out[rows, cols])
            taken[near] = True
            boxes.append(box)
            break
    return out, np.array(boxes, dtype=np.float32).reshape(-1, 4)
