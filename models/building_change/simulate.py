"""Buildings drawn by code: gabled, hipped and flat roofs with a shadow, set into a date of an image pair.

Ours, not the paper's: a few dozen scenes show few roofs and few grounds. Nothing here measures how well
real buildings are found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Half the length of a house's roof in pixels, and of a hall's; at 0.5 m that is 10-26 and 26-70 m.
HOUSE_PX, HALL_PX = (10.0, 26.0), (26.0, 70.0)
HALLS = 0.15
#: Half the width over half the length.
ASPECT = (0.45, 1.0)
#: Probability of a wing at a right angle, as most suburban houses have.
WINGS = 0.5
#: Mean colours of roofs, red, green, blue: asphalt grey, dark grey, brown, tile, metal, white.
ROOFS = np.array(
    [
        (0.45, 0.44, 0.43),
        (0.28, 0.28, 0.29),
        (0.42, 0.36, 0.31),
        (0.55, 0.38, 0.30),
        (0.60, 0.62, 0.65),
        (0.80, 0.79, 0.77),
    ],
    np.float32,
)
#: How much light a roof's side loses or gains by its slope towards the sun.
SLOPE_SHADE = 0.28
#: Shadows are this much of the ground, and this far in pixels.
SHADOW, SHADOW_PX = (0.35, 0.65), (3.0, 10.0)
#: Bare soil around half of the new houses: width in pixels and its colour.
SOIL, SOIL_PX, SOIL_COLOUR = 0.4, (4.0, 16.0), (0.62, 0.55, 0.45)


@dataclass(frozen=True)
class Box:
    """A roof's rectangle: centre, unit vector of its length, half length and half width, pixels."""

    y: float
    x: float
    along_y: float
    along_x: float
    length: float
    width: float

    def local(self, rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how far pixels lie along and across the box, (H, W) each."""
        dy, dx = rows - self.y, cols - self.x
        return dy * self.along_y + dx * self.along_x, dx * self.along_y - dy * self.along_x

    def cover(self, rows: np.ndarray, cols: np.ndarray, grown: float = 0.0) -> np.ndarray:
        """Return how much of each pixel the box covers, soft over one pixel, float (H, W) in 0..1."""
        u, v = self.local(rows, cols)
        outside = np.maximum(np.abs(u) - self.length, np.abs(v) - self.width) - grown
        return np.clip(0.5 - outside, 0, 1)


@dataclass(frozen=True, eq=False)
class Building:
    """A building ready to be set: ``boxes`` of its roof, colour (3,), kind of roof, grain, shadow, soil."""

    boxes: tuple[Box, ...]
    colour: np.ndarray
    roof: str
    grain: float
    shadow: float
    soil: float


def draw_buildings(rng: np.random.Generator, size: int) -> list[Building]:
    """Return one hall, or one to five houses in a row as along a street, for a square of ``size`` pixels."""
    angle = rng.uniform(0, np.pi)
    along = np.array([np.sin(angle), np.cos(angle)])
    if rng.random() < HALLS:
        return [_building(rng, rng.uniform(0, size, 2), along, HALL_PX, "flat")]
    count = int(rng.integers(1, 6))
    spacing = rng.uniform(2.1, 3.0) * HOUSE_PX[1] * 0.8
    start = rng.uniform(0, size, 2)
    places = [start + along * spacing * i for i in range(count)]
    return [_building(rng, place, along, HOUSE_PX, str(rng.choice(["gable", "hip"]))) for place in places]


def _building(
    rng: np.random.Generator, place: np.ndarray, along: np.ndarray, reach: tuple[float, float], roof: str
) -> Building:
    """Return a building at ``place`` (row, column), a few degrees off the direction of its row."""
    if rng.random() < 0.5:
        along = along[::-1] * np.array([1, -1])
    turn = rng.normal(0, 0.06)
    along = np.array(
        [
            along[0] * np.cos(turn) - along[1] * np.sin(turn),
            along[0] * np.sin(turn) + along[1] * np.cos(turn),
        ]
    )
    length = rng.uniform(*reach)
    width = length * rng.uniform(*ASPECT)
    boxes = [Box(*map(float, (*place, *along, length, width)))]
    if rng.random() < WINGS:
        across = np.array([along[1], -along[0]])
        offset = along * length * rng.uniform(-0.6, 0.6) + across * width * rng.choice([-1, 1])
        wing = length * rng.uniform(0.3, 0.55)
        boxes.append(Box(*map(float, (*(place + offset), *across, width * rng.uniform(0.5, 0.9), wing))))
    colour = ROOFS[rng.integers(len(ROOFS))] * rng.uniform(0.75, 1.2) + rng.normal(0, 0.02, 3)
    soil = rng.uniform(*SOIL_PX) if rng.random() < SOIL else 0.0
    return Building(
        tuple(boxes), colour.astype(np.float32), roof, float(rng.uniform(0.01, 0.05)),
        float(rng.uniform(*SHADOW)), float(soil),
    )  # fmt: skip


def set_buildings(
    image: np.ndarray, buildings: list[Building], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the image with the buildings on it and where they are, float32 (3, H, W), bool (H, W).

    One sun for all: shadows fall one way, and slopes that face it are brighter. The light of the roofs
    follows the image: a dull day has dull roofs.
    """
    out = image.copy()
    height, width = image.shape[1:]
    rows, cols = np.mgrid[:height, :width].astype(np.float32)
    mask = np.zeros((height, width), bool)
    azimuth = rng.uniform(0, 2 * np.pi)
    sun = np.array([np.sin(azimuth), np.cos(azimuth)])
    reach = rng.uniform(*SHADOW_PX)
    level = np.float32(np.clip(image.mean() / 0.4, 0.5, 1.4))  # about the training images' mean
    for building in buildings:
        cover = np.max([box.cover(rows, cols) for box in building.boxes], axis=0)
        if not (cover > 0.5).any():
            continue
        if building.soil:
            _lay_soil(out, building, rows, cols, level, rng)
        dark = np.zeros_like(cover)
        for part in np.linspace(0.2, 1, 5):  # the shadow is the roof, moved away from the sun
            dy, dx = -sun * reach * part
            moved = [box.cover(rows - dy, cols - dx) for box in building.boxes]
            dark = np.maximum(dark, np.max(moved, axis=0))
        out *= 1 - np.float32(1 - building.shadow) * dark.astype(np.float32)
        roof = _roof(building, rows, cols, sun, rng) * level
        out += cover.astype(np.float32) * (roof - out)
        mask |= cover > 0.5
    return np.clip(out, 0, 1), mask


def _lay_soil(
    out: np.ndarray,
    building: Building,
    rows: np.ndarray,
    cols: np.ndarray,
    level: np.float32,
    rng: np.random.Generator,
) -> None:
    """Cover the ground around a building with bare soil, in place."""
    box = building.boxes[0]
    u, v = box.local(rows, cols)
    away = np.hypot(np.maximum(np.abs(u) - box.length, 0), np.maximum(np.abs(v) - box.width, 0))
    yard = np.clip((building.soil - away) / 3, 0, 1).astype(np.float32)
    grain = rng.standard_normal(yard.shape, np.float32) * np.float32(0.03)
    soil = np.array(SOIL_COLOUR, np.float32)[:, None, None] * level + grain
    out += yard * np.float32(0.85) * (soil - out)


def _roof(
    building: Building, rows: np.ndarray, cols: np.ndarray, sun: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the roofs' colour, float32 (3, H, W): each side lit by its slope, with grain and ridges."""
    shade = np.zeros_like(rows)
    for box in reversed(building.boxes):
        along = np.array([box.along_y, box.along_x])
        across = np.array([-box.along_x, box.along_y])
        u, v = box.local(rows, cols)
        side = np.sign(v) * np.float32(across @ sun)
        if building.roof == "hip":  # the short sides slope too, at 45 degrees
            end = np.abs(u) - box.length > np.abs(v) - box.width
            side = np.where(end, np.sign(u) * np.float32(along @ sun), side)
        if building.roof == "flat":
            edge = np.maximum(np.abs(u) - box.length, np.abs(v) - box.width) > -1.5
            side = np.where(edge, np.float32(0.4), np.float32(0))  # the parapet
        inside = (np.abs(u) <= box.length + 0.5) & (np.abs(v) <= box.width + 0.5)
        shade = np.where(inside, side, shade)
    grain = rng.standard_normal(rows.shape, np.float32) * np.float32(building.grain)
    light = 1 + np.float32(SLOPE_SHADE) * shade + grain
    return building.colour[:, None, None] * light.astype(np.float32)
