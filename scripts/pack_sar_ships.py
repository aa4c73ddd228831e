#!/usr/bin/env python3
"""Pack chips for training and validating the SAR ship detector: ``pack_sar_ships.py FOLDER``.

Writes train.npz (320 px) and the validation sets val_sim10, val_sim3 (640 px), val_hrsid4 (800 px),
val_opensar (512 px) and val_mini36 (800 px). Simulated chips come from kestrel.models.sar_ships.simulate,
real ones from KESTREL_DATA/sar_ships (else ../shared/data/sar_ships); without it only simulated sets are
written. The split goes by scene, see :func:`part_of`.

A packed file holds ``chips`` uint8 (N, S, S), ``boxes`` float32 (M, 4) x1, y1, x2, y2 in pixel edges,
``offsets`` int64 (N + 1), ``source`` int64 (N,) into ``sources``, and ``pixel_m`` float32 (N,), 0 = unknown.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
import torch

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.sar_ships import paste, simulate, stretch  # noqa: E402

LOG = logging.getLogger("pack_sar_ships")
SIDE = 320
#: OpenSARShip scenes (the file name's first 15 characters); two more are kept for a later check.
OPENSAR_TRAIN = ("20160131T204259", "20150902T102505")
OPENSAR_VALIDATION = ("20160131T101646", "20150823T221233")
MINI36_LAST_TRAIN = 16  # mini36 scenes P0001..P0016 train, P0017 and up validate
HELD_OUT_SEED = 1_000_000  # training seeds stay below
MIN_SIDE_PX, MIN_PART = 3.0, 0.25  # what a crop must leave of a box to keep it


@dataclass
class Pack:
    """Chips collected for one file."""

    chips: list[np.ndarray] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    source: list[str] = field(default_factory=list)
    pixel_m: list[float] = field(default_factory=list)

    def add(self, chip: np.ndarray, boxes: np.ndarray, source: str, pixel_m: float) -> None:
        """Append one uint8 chip with its boxes (n, 4)."""
        self.chips.append(chip)
        self.boxes.append(np.asarray(boxes, dtype=np.float32).reshape(-1, 4))
        self.source.append(source)
        self.pixel_m.append(pixel_m)

    def write(self, path: Path) -> None:
        """Write the file under another name and rename it, so that a reader never sees half of it."""
        names = sorted(set(self.source))
        scratch = path.with_name(f".{path.name}.part")
        with scratch.open("wb") as file:
            np.savez(
                file,
                chips=np.stack(self.chips),
                boxes=np.concatenate([np.empty((0, 4), np.float32), *self.boxes]),
                offsets=np.cumsum([0, *(len(part) for part in self.boxes)]).astype(np.int64),
                source=np.array([names.index(name) for name in self.source], dtype=np.int64),
                sources=np.array(names),
                pixel_m=np.array(self.pixel_m, dtype=np.float32),
            )
        os.replace(scratch, path)
        LOG.info("%s: %d chips, %d boxes", path.name, len(self.chips), sum(map(len, self.boxes)))


def part_of(file_name: str) -> str:
    """``train``, ``validation`` or ``none``: the part a real chip belongs to, by its scene alone."""
    name = Path(file_name).name
    if name[:15] in OPENSAR_TRAIN:
        return "train"
    if name[:15] in OPENSAR_VALIDATION:
        return "validation"
    if "hrsid_mini36" in file_name and name.startswith("P"):
        return "train" if int(name[1:5]) <= MINI36_LAST_TRAIN else "validation"
    if "hrsid_official4" in file_name:
        return "validation"
    return "none"


def data_folder() -> Path:
    """Folder of the real chips."""
    return Path(os.environ.get("KESTREL_DATA") or ROOT.parent / "shared" / "data") / "sar_ships"


def read_band(path: Path) -> np.ndarray:
    """First band of a chip."""
    with rasterio.Env(), rasterio.open(path) as raster:
        return raster.read(1)


def read_hrsid(data: Path, name: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """File name, uint8 chip and boxes (n, 4) of ``hrsid_mini36`` or ``hrsid_official4``."""
    coco = json.loads((data / f"{name}_boxes_coco.json").read_text())
    for image in coco["images"]:
        found = [a["bbox"] for a in coco["annotations"] if a["image_id"] == image["id"]]
        xywh = np.array(found, dtype=np.float32).reshape(-1, 4)
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        yield image["file_name"], read_band(data / image["file_name"]), boxes


def read_opensar(data: Path, part: str) -> list[paste.RealShip]:
    """Ships of one part; disturbed chips and chips with a second labelled ship are left out."""
    ships = []
    with (data / "opensarship" / "boxes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if part_of(row["file"]) != part or row["interference"] == "1":
                continue
            if (row["other_labelled_ships_in_chip"] or "0") != "0":
                continue
            chip = read_band(data / "opensarship" / row["file"]).astype(np.float32)
            # the labels count from pixel centres (bright blobs lie half a pixel right of and below them)
            head, tail = ((float(row[f"{k}_x"]) + 0.5, float(row[f"{k}_y"]) + 0.5) for k in ("head", "tail"))
            box = tuple(float(row[f"geo_{k}"]) + 0.5 for k in ("x1", "y1", "x2", "y2"))
            ships.append(
                paste.cut_ship(row["file"], chip, head, tail, float(row["ais_width_m"] or 0) / 20, box)
            )
    return ships


def crop_boxes(boxes: np.ndarray, left: float, top: float, side: float) -> np.ndarray:
    """Boxes in a square crop's pixels, clipped; what keeps too little of itself is dropped."""
    if len(boxes) == 0:
        return np.empty((0, 4), np.float32)
    moved = boxes - np.array([left, top, left, top], dtype=np.float32)
    cut = np.clip(moved, 0, side)
    sides, whole = cut[:, 2:] - cut[:, :2], moved[:, 2:] - moved[:, :2]
    keep = (sides >= np.minimum(MIN_SIDE_PX, whole)).all(axis=1)
    return cut[keep & (sides.prod(axis=1) >= MIN_PART * whole.prod(axis=1))]


def eight_bit(rng: np.random.Generator, amplitude: np.ndarray, land: np.ndarray) -> np.ndarray:
    """A whole scene to 8 bit by one of the ways users' rasters reach the detector."""
    way = rng.random()
    if way < 0.4:
        return stretch.stretch_percentile(amplitude)
    if way < 0.5:
        return stretch.stretch_percentile(stretch.decibels(amplitude))
    if way < 0.55:
        return stretch.stretch_percentile(np.square(amplitude))
    if way < 0.75:
        return stretch.stretch_db(amplitude)
    sea = amplitude[~land] if not land.all() else amplitude
    return stretch.quantise(
        amplitude, float(np.median(sea)), float(np.exp(rng.uniform(np.log(8), np.log(50))))
    )


def draw_pixel(rng: np.random.Generator) -> float:
    """Pixel size: a third 10 m, a third about 3 m, the rest 1 to 20 m."""
    way = rng.random()
    if way < 0.35:
        return 10.0
    if way < 0.65:
        return float(rng.uniform(2.0, 4.0))
    return float(np.exp(rng.uniform(0, np.log(20))))


def add_simulated(pack: Pack, count: int, first_seed: int) -> None:
    """Chips of 320 px from scenes of 1280 px with one stretch for each scene."""
    seed, goal = first_seed, len(pack.chips) + count
    while len(pack.chips) < goal:
        rng = np.random.default_rng([seed, 1])
        pixel_m = draw_pixel(rng)
        conditions = simulate.draw_conditions(rng, pixel_m)
        ships = None
        if rng.random() < 0.3:  # crowded: most of these are anchorages and harbours
            ships = int(rng.integers(60, 200))
            how = str(rng.choice(["anchorage", "anchorage", "port", "open"]))
            conditions = dataclasses.replace(conditions, arrangement=how)
        scene = simulate.simulate_scene(seed, 1280, 1280, pixel_m, ships=ships, conditions=conditions)
        grey = eight_bit(rng, scene.amplitude, scene.land)
        empty = 0
        for top in range(0, 1280, SIDE):
            for left in range(0, 1280, SIDE):
                boxes = crop_boxes(scene.boxes, left, top, SIDE)
                empty += len(boxes) == 0
                if len(boxes) == 0 and empty > 4:
                    continue
                pack.add(grey[top : top + SIDE, left : left + SIDE], boxes, "simulated", pixel_m)
        seed += 1


def mosaic(
    rng: np.random.Generator, seed: int, side: int, ships: list[paste.RealShip], number: int, train: bool
) -> tuple[np.ndarray, np.ndarray]:
    """8-bit picture of ``side`` px with real ships on simulated 10 m clutter, and their boxes."""
    land = float(rng.uniform(0.1, 0.6)) if train and rng.random() < 0.3 else 0.0
    conditions = simulate.draw_conditions(rng, 10.0)
    picks = [ships[int(i)] for i in rng.integers(len(ships), size=number)]
    scene = simulate.simulate_scene(seed, side, side, 10.0, ships=0, land=land, conditions=conditions)
    gain = (0.5, 1.5) if train else (1.0, 1.0)
    amplitude, boxes = paste.paste_ships(scene.amplitude, scene.land, picks, rng, gain=gain)
    return eight_bit(rng, amplitude, scene.land), boxes


def add_mosaics(pack: Pack, count: int, first_seed: int, ships: list[paste.RealShip]) -> None:
    """Training chips of 320 px, four cut from each mosaic of 640 px."""
    for seed in range(first_seed, first_seed + (count + 3) // 4):
        rng = np.random.default_rng([seed, 2])
        grey, boxes = mosaic(rng, seed, 2 * SIDE, ships, int(rng.integers(4, 28)), train=True)
        for top in (0, SIDE):
            for left in (0, SIDE):
                part = crop_boxes(boxes, left, top, SIDE)
                pack.add(grey[top : top + SIDE, left : left + SIDE], part, "opensarship", 10.0)


def add_hrsid_crops(
    pack: Pack, count: int, chips: list[tuple[str, np.ndarray, np.ndarray]], seed: int
) -> None:
    """Random crops resampled by 0.5 to 1.5; three of four are drawn around a labelled ship."""
    rng = np.random.default_rng([seed, 3])
    for _ in range(count):
        _, chip, boxes = chips[int(rng.integers(len(chips)))]
        scale = float(np.exp(rng.uniform(np.log(0.5), np.log(1.5))))
        side = min(round(SIDE / scale), *chip.shape)
        if len(boxes) and rng.random() < 0.75:
            x1, y1, x2, y2 = boxes[int(rng.integers(len(boxes)))]
            left = int((x1 + x2) / 2 - side * rng.uniform(0.05, 0.95))
            top = int((y1 + y2) / 2 - side * rng.uniform(0.05, 0.95))
        else:
            left, top = (int(rng.integers(0, extent - side + 1)) for extent in (chip.shape[1], chip.shape[0]))
        left, top = (int(np.clip(v, 0, e - side)) for v, e in ((left, chip.shape[1]), (top, chip.shape[0])))
        crop = torch.from_numpy(chip[top : top + side, left : left + side].astype(np.float32))[None, None]
        sized = torch.nn.functional.interpolate(crop, (SIDE, SIDE), mode="bilinear", antialias=True)[0, 0]
        scaled = crop_boxes(boxes, left, top, side) * np.float32(SIDE / side)
        pack.add(np.rint(sized.numpy()).clip(0, 255).astype(np.uint8), scaled, "hrsid_mini36", 0.0)


def held_out_conditions(rng: np.random.Generator, pixel_m: float) -> simulate.Conditions:
    """Conditions of the validation scenes: other distributions than training's."""
    drawn = simulate.draw_conditions(rng, pixel_m)
    return dataclasses.replace(
        drawn,
        looks=int(rng.choice([4, 5]) if pixel_m > 6 else rng.choice([1, 2])),
        bandwidth=float(rng.normal(0.6, 0.05)),
        taper=float(rng.uniform(0.7, 0.9)),
        sea_db=float(np.clip(rng.normal(-17, 3), -24, -10)),
        nu=float(4 + rng.exponential(8)),
        swell=float(rng.uniform(0, 0.25)),
        coast=float(rng.normal(1.8, 0.1)),
        town_density=float(rng.uniform(0, 8)),
        ship_db=(float(rng.normal(4, 1.5)), 3.0),
    )


def simulated_validation(count: int, pixel_m: float, side: int = 640) -> Pack:
    """Held-out simulated chips: other seeds, other conditions; four chips a scene."""
    pack, seed = Pack(), HELD_OUT_SEED + round(1000 * pixel_m)
    while len(pack.chips) < count:
        rng = np.random.default_rng([seed, 4])
        conditions = held_out_conditions(rng, pixel_m)
        scene = simulate.simulate_scene(seed, 2 * side, 2 * side, pixel_m, conditions=conditions)
        grey = eight_bit(rng, scene.amplitude, scene.land)
        for top in (0, side):
            for left in (0, side):
                boxes = crop_boxes(scene.boxes, left, top, side)
                pack.add(grey[top : top + side, left : left + side], boxes, "simulated", pixel_m)
        seed += 1
    return pack


def opensar_validation(ships: list[paste.RealShip], count: int, side: int = 512) -> Pack:
    """Mosaics of the validation scenes' ships; each ship appears once a round."""
    pack, rng = Pack(), np.random.default_rng([HELD_OUT_SEED, 5])
    order: list[int] = []
    for index in range(count):
        number = int(rng.integers(3, 9))
        while len(order) < number:
            order += [int(i) for i in rng.permutation(len(ships))]
        picks, order = [ships[i] for i in order[:number]], order[number:]
        seed = HELD_OUT_SEED + 500_000 + index
        conditions = simulate.draw_conditions(rng, 10.0)
        # two chips a side: the stretch comes from a scene larger than the chip
        scene = simulate.simulate_scene(seed, side, 2 * side, 10.0, ships=0, land=0.0, conditions=conditions)
        amplitude = scene.amplitude.copy()
        amplitude[:, :side], boxes = paste.paste_ships(amplitude[:, :side], scene.land[:, :side], picks, rng)
        grey = eight_bit(rng, amplitude, scene.land)[:, :side]
        pack.add(grey, boxes, "opensarship", 10.0)
    return pack


def real_validation(chips: Iterator[tuple[str, np.ndarray, np.ndarray]], source: str) -> Pack:
    """Whole HRSID chips of the validation part."""
    pack = Pack()
    for name, chip, boxes in chips:
        if part_of(name) == "validation":
            pack.add(chip, boxes, source, 0.0)
    return pack


def write_packs(folder: Path, scale: float, *, training: bool = True) -> None:
    """Write all files; ``scale`` multiplies the number of chips (1 = full size)."""
    folder.mkdir(parents=True, exist_ok=True)
    data = data_folder()
    if not data.is_dir():
        LOG.warning("%s does not exist: simulated chips only", data)
    mini = list(read_hrsid(data, "hrsid_mini36")) if data.is_dir() else []
    if training:
        train = Pack()
        if mini:
            add_hrsid_crops(train, round(1500 * scale), [c for c in mini if part_of(c[0]) == "train"], seed=0)
            add_mosaics(train, round(1500 * scale), 500_000, read_opensar(data, "train"))
        add_simulated(train, round(6000 * scale), 0)
        train.write(folder / "train.npz")
    for pixel_m in (10.0, 3.0):
        simulated_validation(round(100 * scale), pixel_m).write(folder / f"val_sim{pixel_m:.0f}.npz")
    if mini:
        real_validation(iter(mini), "hrsid_mini36").write(folder / "val_mini36.npz")
        official = read_hrsid(data, "hrsid_official4")
        real_validation(official, "hrsid_official4").write(folder / "val_hrsid4.npz")
        ships = read_opensar(data, "validation")
        opensar_validation(ships, max(1, round(60 * scale))).write(folder / "val_opensar.npz")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the .npz files go")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of chips, 0..1")
    parser.add_argument("--validation-only", action="store_true", help="leave the large train.npz out")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("rasterio").setLevel(logging.ERROR)  # TIFF tags of the chips, harmless
    started = time.monotonic()
    write_packs(args.folder, args.scale, training=not args.validation_only)
    LOG.info("%.0f s", time.monotonic() - started)


if __name__ == "__main__":
    main()
