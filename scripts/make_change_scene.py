#!/usr/bin/env python3
"""Draw two dates of a made-up suburb: ``make_change_scene.py FOLDER --seed 0``.

FOLDER gets before.tif, after.tif (8-bit red, green, blue, 0.5 m, a UTM zone) and change.gpkg, the buildings
that appeared or went. EVERYTHING IS SIMULATED, place included: for trying kestrel:detectbuildingchange and
for pictures, never for measuring how good it is. The later date has other light, greener fields and lies
half a pixel aside.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import shapes
from scipy import ndimage
from shapely import geometry

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.building_change.augment import moved  # noqa: E402
from kestrel.models.building_change.simulate import (  # noqa: E402
    Box,
    Building,
    draw_buildings,
    set_buildings,
)

EPSG, ORIGIN, GSD = 32614, (620_000.0, 3_350_000.0), 0.5
#: Pixels from one street to the next, and of a street's width: 80 m and 7 m.
BLOCK, STREET = 160, 14
#: What becomes of a row of houses: there on both dates, new, gone; the rest stays a field.
STOOD, NEW, GONE = 0.5, 0.3, 0.05
#: Rows of houses drawn for a block, of which those are set down that have room; pixels around a house.
TRIES, GAP = 8, 4
GRASS, SOIL, ASPHALT = (0.36, 0.42, 0.27), (0.56, 0.49, 0.38), (0.45, 0.45, 0.46)
MADE = "Simulated by make_change_scene.py; the position is invented"


def noise(rng: np.random.Generator, size: int, sigma: float) -> np.ndarray:
    """Return smooth noise of deviation 1, float32 (size, size)."""
    field = ndimage.gaussian_filter(rng.standard_normal((size, size), np.float32), sigma, mode="wrap")
    return field / field.std()


def ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return fields, soil, streets and trees, float32 (3, size, size) in 0..1."""
    colours = [np.array(colour, np.float32)[:, None, None] for colour in (GRASS, SOIL, ASPHALT)]
    grass, soil, asphalt = colours
    bare = np.clip(noise(rng, size, 60) - 0.6, 0, 1)
    image = grass + bare * (soil - grass)
    image = image * (1 + 0.06 * noise(rng, size, 8) + 0.05 * noise(rng, size, 1))
    rows, cols = np.mgrid[:size, :size]
    street = np.minimum(rows % BLOCK, cols % BLOCK) < STREET
    image = np.where(street, asphalt * (1 + 0.03 * noise(rng, size, 1)), image)
    woods = (noise(rng, size, 3) + 0.8 * noise(rng, size, 50) > 2.2) & ~street
    shadow = np.roll(woods, (4, 3), (0, 1))
    image = np.where(shadow, 0.55 * image, image)
    leaves = np.array((0.20, 0.27, 0.15), np.float32)[:, None, None]
    return np.where(woods, leaves * (1 + 0.2 * noise(rng, size, 1)), image).astype(np.float32)


def rows_of_houses(rng: np.random.Generator, size: int) -> dict[str, list[Building]]:
    """Return the buildings that stood, are new and are gone."""
    found: dict[str, list[Building]] = {"stood": [], "new": [], "gone": []}
    inner = BLOCK - STREET
    for top in range(STREET, size - inner + 1, BLOCK):
        for left in range(STREET, size - inner + 1, BLOCK):
            fate = rng.choice([*found, ""], p=[STOOD, NEW, GONE, 1 - STOOD - NEW - GONE])
            set_down: list[Box] = []
            for building in (b for _ in range(TRIES) for b in draw_buildings(rng, inner)):
                boxes = [dataclasses.replace(b, y=b.y + top, x=b.x + left) for b in building.boxes]
                if fate and _fits(boxes, set_down, top, left, inner):
                    set_down += boxes
                    found[fate].append(dataclasses.replace(building, boxes=tuple(boxes)))
    return found


def _fits(boxes: list[Box], others: list[Box], top: int, left: int, inner: int) -> bool:
    """Whether a building keeps off the streets and the others."""
    for box in boxes:
        reach = box.length + GAP
        if not (top + reach < box.y < top + inner - reach and left + reach < box.x < left + inner - reach):
            return False
        if any(np.hypot(box.y - b.y, box.x - b.x) < reach + b.length for b in others):
            return False
    return True


def draw(seed: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both dates, uint8 (3, size, size), and where buildings changed, bool (size, size)."""
    rng = np.random.default_rng(seed)
    land = ground(rng, size)
    town = rows_of_houses(rng, size)
    sun = int(rng.integers(2**31))
    before, old = set_buildings(land, town["stood"] + town["gone"], np.random.default_rng(sun))
    season = np.array((0.95, 1.06, 0.92), np.float32)[:, None, None]  # greener, a duller day
    later = np.clip(land * season * (1 + 0.04 * noise(rng, size, 30)), 0, 1)
    after, new = set_buildings(later, town["stood"] + town["new"], np.random.default_rng(sun + 1))
    after = moved(after * 0.92 + 0.02, 0.4, -0.3)
    noisy = [date + rng.standard_normal(date.shape, np.float32) * 0.012 for date in (before, after)]
    bytes_ = [(np.clip(date, 0, 1) * 255 + 0.5).astype(np.uint8) for date in noisy]
    return bytes_[0], bytes_[1], old ^ new


def write(folder: Path, seed: int, size: int) -> None:
    """Write the two dates and the changes."""
    before, after, change = draw(seed, size)
    folder.mkdir(parents=True, exist_ok=True)
    place = Affine(GSD, 0, ORIGIN[0], 0, -GSD, ORIGIN[1])
    for name, date, year in (("before", before, 2012), ("after", after, 2020)):
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", width=size, height=size, count=3, dtype="uint8",
            crs=CRS.from_epsg(EPSG), transform=place, compress="deflate", predictor=2, tiled=True,
            photometric="RGB",
        ) as file:  # fmt: skip
            file.write(date)
            file.update_tags(
                SIMULATED="YES", TIFFTAG_IMAGEDESCRIPTION=MADE, TIFFTAG_DATETIME=f"{year}:06:01 00:00:00"
            )
    outlines = [
        geometry.shape(shape) for shape, _ in shapes(change.astype(np.uint8), mask=change, transform=place)
    ]
    pyogrio.raw.write(
        folder / "change.gpkg", geometry=shapely.to_wkb(np.array(outlines, object)), field_data=[], fields=[],
        geometry_type="Polygon", crs=f"EPSG:{EPSG}", driver="GPKG", layer="change",
    )  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=1200, help="pixels a side")
    args = parser.parse_args()
    write(args.folder, args.seed, args.size)
    sys.stdout.write(f"Simulated pair of {args.size} x {args.size} px in {args.folder}\n")


if __name__ == "__main__":
    main()
