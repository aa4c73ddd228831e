"""The packed dehazing data: format, blocks of consecutive numbers, and a split that does not leak."""

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from kestrel.models.dehazing.data import load_pairs, load_scenes

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pack():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("pack_dehazing", ROOT / "scripts" / "pack_dehazing.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["pack_dehazing"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["pack_dehazing"]


def save(path: Path, seed: int) -> np.ndarray:
    """Write a small 8-bit PNG and return it."""
    image = np.random.default_rng(seed).integers(0, 256, (3, 10, 12), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="PNG", width=12, height=10, count=3, dtype="uint8") as file:
        file.write(image)
    return image


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_packs_follow_the_format_and_hold_the_files_pixels(pack, tmp_path):
    numbers = [3, 20, 100, 101, 7, 9]
    hazy = {n: save(tmp_path / "hazy" / f"{n}.png", n) for n in numbers}
    clear = {n: save(tmp_path / "clear" / f"{n}.png", -n + 1000) for n in numbers}
    pack.pack_real(tmp_path, tmp_path / "real.npz")
    pairs = load_pairs(tmp_path)
    assert pairs.number.tolist() == sorted(numbers)
    for i, number in enumerate(pairs.number.tolist()):
        assert (pairs.hazy[i] == hazy[number]).all()
        assert (pairs.clear[i] == clear[number]).all()
    with (tmp_path / "rsscn7_list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "class", "scale_block"])
        writer.writerows([[f"hazy/{n}.png", "Grass", 1] for n in numbers])
    pack.pack_clear(tmp_path, tmp_path / "clear.npz")
    scenes = load_scenes(tmp_path)
    for name, image in zip(scenes.name, scenes.images, strict=True):
        assert (image == hazy[int(name)]).all()
    assert not list(tmp_path.glob(".*"))  # no scratch file stays


def test_blocks_are_consecutive_numbers_of_nearly_equal_count(pack):
    numbers = np.random.default_rng(0).permutation(1000)[:78]
    block = pack.blocks_of(numbers)
    assert sorted(np.bincount(block).tolist()) == [15, 15, 16, 16, 16]
    assert (np.diff(block[np.argsort(numbers)]) >= 0).all()


def test_split_holds_out_the_same_of_every_class_and_block(pack):
    names = [f"{c}{n:03d}" for c in "xy" for n in range(1, 31)]
    cells = [(name[0], str(int(name[1:]) > 15)) for name in names]
    split = pack.split_scenes(names, cells)
    for cell in set(cells):
        inside = [s for s, c in zip(split.tolist(), cells, strict=True) if c == cell]
        assert inside == sorted(inside)  # consecutive numbers share a part
        assert np.bincount(inside).tolist() == [11, 2, 2]


def test_no_place_is_in_two_parts(pack, monkeypatch):
    names = [f"x{n:02d}" for n in range(15)]
    cells = [("x", "1")] * 15
    for group, expected in (
        (("x00", "x14"), [0, -1]),
        (("x01", "x02"), [0, 0]),
        (("x11", "x14"), [-1, -1]),
        (("x13", "x14"), [2, 2]),
    ):
        monkeypatch.setattr(pack, "SAME_PLACE", (group,))
        split = pack.split_scenes(names, cells)
        assert [int(split[names.index(name)]) for name in group] == expected


def test_development_data_are_split_by_class_and_block(pack):
    data = pack.data_folder() / "clear_optical" / "rsscn7_list.csv"
    if not data.is_file():
        pytest.skip(f"development data not found at {data}; set KESTREL_DATA")
    with data.open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["file"])
    names = [Path(row["file"]).stem for row in rows]
    cells = [(row["class"], row["scale_block"]) for row in rows]
    split = pack.split_scenes(names, cells)
    by_name = dict(zip(names, split.tolist(), strict=True))
    for group in pack.SAME_PLACE:
        assert set(group) <= set(names)
        assert {by_name[name] for name in group} <= {0, -1}
    held_out = [n for n in names if by_name[n] > 0]
    assert len(held_out) == 2 * 2 * len(set(cells)) - 1  # b088 shows b087's field
    assert not {"g101", "g021", "b088"} & set(held_out)
