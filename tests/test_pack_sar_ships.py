"""The packed chips: format, crops, and the split by scene of the real data."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from kestrel.models.sar_ships.dataset import load_packed
from kestrel.tests.support.real_chips import data_folder

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pack():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("pack_sar_ships", ROOT / "scripts" / "pack_sar_ships.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["pack_sar_ships"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["pack_sar_ships"]


def check_packed(path: Path, side: int) -> None:
    """Every law of the format that training relies on."""
    with np.load(path) as data:
        count = len(data["chips"])
        assert data["chips"].shape == (count, side, side)
        assert data["chips"].dtype == np.uint8
        assert data["boxes"].dtype == np.float32
        assert data["offsets"].dtype == np.int64
        assert data["offsets"].shape == (count + 1,)
        assert data["offsets"][0] == 0
        assert data["offsets"][-1] == len(data["boxes"])
        assert (np.diff(data["offsets"]) >= 0).all()
        assert data["source"].shape == data["pixel_m"].shape == (count,)
        assert data["source"].max() < len(data["sources"])
        assert (data["boxes"] >= 0).all()
        assert (data["boxes"] <= side).all()
        assert (data["boxes"][:, 2:] > data["boxes"][:, :2]).all()


def test_simulated_pack_follows_the_format_and_its_seed(pack, tmp_path):
    packs = []
    for name in ("a", "b"):
        packs.append(pack.Pack())
        pack.add_simulated(packs[-1], 8, 42)
        packs[-1].write(tmp_path / f"{name}.npz")
    check_packed(tmp_path / "a.npz", 320)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.npz", "b.npz"]  # no scratch file stays
    packed = load_packed(tmp_path / "a.npz")
    assert packed.sources == ("simulated",)
    assert len(packed) >= 8
    assert np.concatenate([packed.boxes_of(i) for i in range(len(packed))]).shape == packed.boxes.shape


def test_pack_without_any_box_is_written(pack, tmp_path):
    empty = pack.Pack()
    empty.add(np.zeros((32, 32), np.uint8), np.empty((0, 4)), "simulated", 10.0)
    empty.write(tmp_path / "empty.npz")
    check_packed(tmp_path / "empty.npz", 32)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([15, 25, 30, 40], [5, 5, 20, 20]),  # inside: moved
        ([0, 25, 20, 40], [0, 5, 10, 20]),  # half outside: clipped
        ([0, 25, 12, 40], None),  # a sixth left: dropped
        ([200, 25, 220, 40], None),
        ([15, 25, 17, 27], [5, 5, 7, 7]),  # small but whole: kept
    ],
)
def test_crop_moves_clips_and_drops_boxes(pack, box, expected):
    got = pack.crop_boxes(np.array([box], np.float32), left=10, top=20, side=100)
    assert got.tolist() == ([expected] if expected else [])
    assert pack.crop_boxes(np.empty((0, 4), np.float32), 0, 0, 10).shape == (0, 4)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("20160131T204259_Cargo_x1_y2.tif", "train"),
        ("20150902T102505_Tanker_x1_y2.tif", "train"),
        ("20160131T101646_Cargo_x1_y2.tif", "validation"),
        ("20150823T221233_Cargo_x1_y2.tif", "validation"),
        ("20140101T000000_Cargo_x1_y2.tif", "none"),
        ("hrsid_mini36/images/P0016_1_2_3_4.jpg", "train"),
        ("hrsid_mini36/images/P0017_1_2_3_4.jpg", "validation"),
        ("hrsid_official4/P0094_0_800_3000_3800.png", "validation"),
        ("elsewhere/P0001.png", "none"),
    ],
)
def test_part_goes_by_scene(pack, name, part):
    assert pack.part_of(name) == part


def test_no_scene_is_in_both_parts_and_every_chip_has_one(pack):
    data = data_folder()
    names = [f"hrsid_mini36/images/{p.name}" for p in (data / "hrsid_mini36" / "images").iterdir()]
    names += [f"hrsid_official4/{p.name}" for p in (data / "hrsid_official4").glob("*.png")]
    names += [p.name for p in (data / "opensarship").glob("*.tif")]
    scenes: dict[str, set[str]] = {"train": set(), "validation": set(), "none": set()}
    for name in names:
        stem = Path(name).name
        scenes[pack.part_of(name)].add(stem[:5] if stem.startswith("P") else stem[:15])
    assert not scenes["none"]
    assert scenes["train"]
    assert scenes["validation"]
    assert not scenes["train"] & scenes["validation"]


def test_real_readers_keep_to_their_part(pack):
    data = data_folder()
    train = {ship.name for ship in pack.read_opensar(data, "train")}
    validation = {ship.name for ship in pack.read_opensar(data, "validation")}
    assert {name[:15] for name in train} <= set(pack.OPENSAR_TRAIN)
    assert {name[:15] for name in validation} <= set(pack.OPENSAR_VALIDATION)
    assert len(train) > 100
    assert len(validation) > 60
    chips = pack.Pack()
    mini = [c for c in pack.read_hrsid(data, "hrsid_mini36") if pack.part_of(c[0]) == "train"]
    assert sum(len(boxes) for _, _, boxes in mini) > 40
    pack.add_hrsid_crops(chips, 12, mini, seed=1)
    assert np.stack(chips.chips).shape == (12, 320, 320)
    assert sum(map(len, chips.boxes)) > 4
    pack.add_mosaics(chips, 4, 900_000, pack.read_opensar(data, "train"))
    assert chips.source[-4:] == ["opensarship"] * 4
    held = pack.real_validation(pack.read_hrsid(data, "hrsid_official4"), "hrsid_official4")
    assert len(held.chips) == 4
    assert sum(map(len, held.boxes)) == 146  # the README's count


def test_held_out_seeds_and_conditions_are_not_the_training_ones(pack):
    assert pack.HELD_OUT_SEED > 900_000 + 4000  # beyond every training seed
    rng = np.random.default_rng(0)
    drawn = [pack.held_out_conditions(rng, 10.0) for _ in range(200)]
    assert {c.looks for c in drawn} == {4, 5}
    assert max(c.swell for c in drawn) <= 0.25
    assert pack.simulated_validation(1, 10.0, side=96).chips[0].shape == (96, 96)
