#!/usr/bin/env python3
"""Pack image pairs for training and scoring the building change network: ``pack_building_change.py FOLDER``.

Writes ``levir.npz`` (before, after uint8 (N, 3, 512, 512), label bool (N, 512, 512), image int64 (N), corner
str (N), part int64 (N): 0 training, 1 validation, 2 scored once) and ``sztaki.npz`` (site str (5), and for
site number i before_i, after_i uint8 (3, H, W) and label_i bool (H, W)) and, likewise, the ten cities of
``oscd.npz`` from building_change in KESTREL_DATA (else ../shared/data). Nothing is resampled.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import rasterio

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.building_change.data import SCORED, TRAINING, VALIDATION  # noqa: E402

LOG = logging.getLogger("pack_building_change")
#: LEVIR image numbers up to which images train and choose; the rest is scored (the data's own README).
LAST_TRAINING, LAST_VALIDATION = 26, 29
#: levir_II_Y_X_gt.png
NAME = re.compile(r"levir_(\d+)_(\d+_\d+)_gt\.png")
CHANGED = 255


def data_folder() -> Path:
    """Folder of the development data."""
    return Path(os.environ.get("KESTREL_DATA") or ROOT.parent / "shared" / "data")


def part_of(image: int) -> int:
    """Return the part of a LEVIR image: quadrants of one image never part company."""
    if image <= LAST_TRAINING:
        return TRAINING
    return VALIDATION if image <= LAST_VALIDATION else SCORED


def read(path: Path, bands: int) -> np.ndarray:
    """Return a picture of exactly ``bands`` bands, uint8 (bands, H, W)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            if source.count != bands or source.dtypes[0] != "uint8":
                raise SystemExit(
                    f"{path} has {source.count} bands of {source.dtypes[0]}, not {bands} of 8 bit."
                )
            return source.read()


def read_label(path: Path) -> np.ndarray:
    """Return where a mask says change, bool (H, W); exits on values other than 0 and 255."""
    mask = read(path, 1)[0]
    if not np.isin(mask, (0, CHANGED)).all():
        raise SystemExit(f"{path} holds other values than 0 and {CHANGED}.")
    return mask == CHANGED


def write(path: Path, **arrays: np.ndarray) -> None:
    """Write the file under another name and rename it, so that a reader never sees half of it."""
    scratch = path.with_name(f".{path.name}.part")
    with scratch.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(scratch, path)
    LOG.info("%s: %s", path.name, ", ".join(f"{key} {array.shape}" for key, array in arrays.items()))


def pack_levir(data: Path, target: Path) -> None:
    """Pack the LEVIR quadrants, ordered by image and corner."""
    found = [match for path in data.glob("*_gt.png") if (match := NAME.fullmatch(path.name))]
    if not found:
        raise SystemExit(f"{data} holds no levir_II_Y_X_gt.png.")
    found.sort(key=lambda match: (int(match[1]), match[2]))
    stems = [match[0].removesuffix("_gt.png") for match in found]
    image = np.array([int(match[1]) for match in found], np.int64)
    write(
        target,
        before=np.stack([read(data / f"{stem}_t1.jpg", 3) for stem in stems]),
        after=np.stack([read(data / f"{stem}_t2.jpg", 3) for stem in stems]),
        label=np.stack([read_label(data / f"{stem}_gt.png") for stem in stems]),
        image=image,
        corner=np.array([match[2] for match in found]),
        part=np.array([part_of(number) for number in image.tolist()], np.int64),
    )


def pack_sites(data: Path, target: Path) -> None:
    """Pack pairs of different sizes one by one, ordered by name."""
    sites = sorted(path.name.removesuffix("_gt.png") for path in data.glob("*_gt.png"))
    arrays = {"site": np.array(sites)}
    for i, site in enumerate(sites):
        arrays[f"before_{i}"] = read(data / f"{site}_t1.png", 3)
        arrays[f"after_{i}"] = read(data / f"{site}_t2.png", 3)
        arrays[f"label_{i}"] = read_label(data / f"{site}_gt.png")
    write(target, **arrays)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder.mkdir(parents=True, exist_ok=True)
    data = data_folder() / "building_change"
    pack_levir(data / "levir", folder / "levir.npz")
    for name in ("sztaki", "oscd"):
        pack_sites(data / name, folder / f"{name}.npz")


if __name__ == "__main__":
    main()
