#!/usr/bin/env python3
"""Pack images for training and validating the dehazing network: ``pack_dehazing.py FOLDER``.

Writes ``real.npz`` (hazy and clear uint8 (N, 3, 320, 320), number and block int64 (N,)) from hazy_pairs and
``clear.npz`` (scenes uint8 (M, 3, 200, 200), name, split int64 (M,): 0 training, 1 validation, 2 test, -1 no
part) from clear_optical, both in KESTREL_DATA (else ../shared/data). Nothing is resampled; haze is simulated
later, on training's crops.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import sys
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import rasterio

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.dehazing.data import BLOCKS, TESTING, TRAINING, VALIDATION  # noqa: E402

LOG = logging.getLogger("pack_dehazing")
#: Of the 15 scenes of a class and scale block the last by number: neighbours by number stay together.
HELD_OUT_EACH = 2
#: Scenes that show the same ground, once at half the scale and once moved: found by correlating every scene,
#: reduced 1, 2 and 4 times, with all of its class, and by looking at twelve of the best sixty matches.
SAME_PLACE = (("g021", "g101"), ("b087", "b088"))
NO_PART = -1


def data_folder() -> Path:
    """Folder of the development data."""
    return Path(os.environ.get("KESTREL_DATA") or ROOT.parent / "shared" / "data")


def read(path: Path) -> np.ndarray:
    """Return the first three bands, uint8 (3, H, W)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            return source.read([1, 2, 3])


def blocks_of(numbers: np.ndarray) -> np.ndarray:
    """Return the block of each pair, int64 (N,): equal shares of the sorted numbers."""
    block = np.empty(len(numbers), np.int64)
    for index, members in enumerate(np.array_split(np.argsort(numbers), BLOCKS)):
        block[members] = index
    return block


def split_scenes(names: list[str], cells: list[tuple[str, str]]) -> np.ndarray:
    """Return each scene's part, int64 (M,); ``cells`` are its class and scale block.

    Held out is the same number of every class and block, less what shows a training scene's ground:
    that belongs to no part.
    """
    split = np.full(len(names), TRAINING, np.int64)
    members = defaultdict(list)
    for index in sorted(range(len(names)), key=lambda i: names[i]):
        members[cells[index]].append(index)
    for indices in members.values():
        split[indices[-2 * HELD_OUT_EACH : -HELD_OUT_EACH]] = VALIDATION
        split[indices[-HELD_OUT_EACH:]] = TESTING
    for group in SAME_PLACE:
        linked = np.isin(names, group)
        if len(set(split[linked])) > 1:
            split[linked & (split != TRAINING)] = NO_PART
    return split


def write(path: Path, **arrays: np.ndarray) -> None:
    """Write the file under another name and rename it, so that a reader never sees half of it."""
    scratch = path.with_name(f".{path.name}.part")
    with scratch.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(scratch, path)
    LOG.info("%s: %s", path.name, ", ".join(f"{key} {array.shape}" for key, array in arrays.items()))


def pack_real(data: Path, target: Path) -> None:
    """Pack the real pairs, ordered by number."""
    names = sorted((p.name for p in (data / "hazy").glob("*.png")), key=lambda name: int(name[:-4]))
    numbers = np.array([int(name[:-4]) for name in names], np.int64)
    hazy, clear = (np.stack([read(data / folder / name) for name in names]) for folder in ("hazy", "clear"))
    write(target, hazy=hazy, clear=clear, number=numbers, block=blocks_of(numbers))


def pack_clear(data: Path, target: Path) -> None:
    """Pack the clear scenes, ordered by name."""
    with (data / "rsscn7_list.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["file"])
    names = [Path(row["file"]).stem for row in rows]
    split = split_scenes(names, [(row["class"], row["scale_block"]) for row in rows])
    scenes = np.stack([read(data / row["file"]) for row in rows])
    write(target, scenes=scenes, name=np.array(names), split=split)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder.mkdir(parents=True, exist_ok=True)
    pack_real(data_folder() / "hazy_pairs", folder / "real.npz")
    pack_clear(data_folder() / "clear_optical", folder / "clear.npz")


if __name__ == "__main__":
    main()
