"""The tally of a raster run: numpy's whole-image figures, whatever windows it was fed with."""

import json
import pickle

import numpy as np
import pytest
from kestrel.engine.raster_tally import BINS, SIZE, Tally
from scipy.ndimage import minimum_filter

#: dtype -> stretch that some values leave on both sides.
STRETCHES = {
    "uint8": (40, 200),
    "int8": (-50, 60),
    "uint16": (500, 3000),
    "int16": (-300, 900),
    "int32": (-70_000, 90_000),
    "uint32": (10, 3e9),
    "float32": (-0.1, 0.8),
    "float64": (0, 1),
}


def images(dtype, shape=(3, 61, 83), seed=0):
    """Return (before, after, valid): values all over the stretch and beyond, data type's ends too."""
    rng = np.random.default_rng(seed)
    low, high = STRETCHES[dtype]
    found = []
    for _ in range(2):
        values = low + (high - low) * rng.normal(0.5, 0.4, shape)
        if np.dtype(dtype).kind in "iu":
            ends = np.iinfo(dtype)
            values = np.clip(np.rint(values), ends.min, ends.max)
            values[:, 0, :2] = ends.min, ends.max
        found.append(values.astype(dtype))
    return *found, rng.random(shape[1:]) > 0.1


def pieces(shape, rows, cols):
    """Return windows (row, col, h, w) that cover a raster once."""
    return [(r, c, min(rows, shape[0] - r), min(cols, shape[1] - c))
            for r in range(0, shape[0], rows) for c in range(0, shape[1], cols)]  # fmt: skip


def feed(tally, before, after, valid, windows):
    for r, c, h, w in windows:
        place = np.s_[r : r + h, c : c + w]
        tally.add(r, c, before[:, *place], after[:, *place], valid[place])
    return tally


def whole(before, after, valid, stretch, **settings):
    tally = Tally(*valid.shape, (stretch[0],), (stretch[1],), **settings)
    tally.add(0, 0, before, after, valid)
    return tally


def assert_same(one, other, exact):
    assert one.valid_pixels == other.valid_pixels
    assert one.invalid_pixels == other.invalid_pixels
    for mine, theirs in zip(one.figures()["bands"], other.figures()["bands"], strict=True):
        tolerance = 0 if exact else 1e-12
        for name, value in mine.items():
            assert value == theirs[name] or value == pytest.approx(theirs[name], rel=tolerance, abs=tolerance)
    assert one.look() == other.look()
    for mine, theirs in zip(one.histograms(), other.histograms(), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(one.pictures, other.pictures, strict=True))


@pytest.mark.parametrize("dtype", STRETCHES)
def test_oracle_figures_are_those_of_numpy(dtype):
    before, after, valid = images(dtype)
    low, high = STRETCHES[dtype]
    found = json.loads(json.dumps(whole(before, after, valid, (low, high)).figures(), allow_nan=False))
    assert found["valid_pixels"] == valid.sum()
    assert found["invalid_pixels"] == (~valid).sum()
    for when, image in (("before", before), ("after", after)):
        for band, row in zip(image, found["bands"], strict=True):
            values = band[valid].astype(float)
            assert row[f"mean_{when}"] == pytest.approx(values.mean(), rel=1e-12)
            assert row[f"std_{when}"] == pytest.approx(values.std(), rel=1e-12)
            beyond = (band[valid] <= low) | (band[valid] >= high)
            assert 0 < row[f"clipped_{when}"] == pytest.approx(beyond.mean())
            if np.dtype(dtype).kind == "f":
                assert row[f"saturated_{when}"] is None
            else:
                full = np.isin(band[valid], (np.iinfo(dtype).min, np.iinfo(dtype).max))
                assert row[f"saturated_{when}"] == pytest.approx(full.mean())


@pytest.mark.parametrize("dtype", STRETCHES)
@pytest.mark.parametrize(("rows", "cols"), [(61, 83), (16, 83), (7, 11), (1, 83), (61, 1)])
def test_oracle_any_windows_in_any_order_and_merged_give_the_same(dtype, rows, cols):
    before, after, valid = images(dtype)
    windows = pieces(valid.shape, rows, cols)
    np.random.default_rng(1).shuffle(windows)
    parts = [Tally(*valid.shape, *([end] for end in STRETCHES[dtype])) for _ in range(3)]
    for number, part in enumerate(parts):
        feed(part, before, after, valid, windows[number::3])
    total = pickle.loads(pickle.dumps(parts[0]))
    for part in parts[1:]:
        total.merge(part)
    assert_same(total, whole(before, after, valid, STRETCHES[dtype]), exact=np.dtype(dtype).itemsize <= 2)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_oracle_many_pixels_are_counted_value_by_value(dtype, share):
    before, after, _ = images(dtype, (1, 301, 303))  # odd, and beyond the short way for small windows
    valid = np.random.default_rng(2).random(before.shape[1:]) >= share
    edges, counts, _ = whole(before, after, valid, STRETCHES[dtype]).histograms()[0]
    values = before[0][valid].astype(float)
    assert counts.sum() == valid.sum()
    assert np.array_equal(counts, np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0])


def test_oracle_sums_survive_a_large_offset():
    image = np.random.default_rng(0).normal(1e6, 0.5, (1, 50, 50))
    row = whole(image, image, np.ones((50, 50), bool), (1e6 - 2, 1e6 + 2)).figures()["bands"][0]
    assert row["std_before"] == pytest.approx(image.std(), rel=1e-9)


@pytest.mark.parametrize("dtype", STRETCHES)
def test_feature_histograms_cover_the_stretch_and_a_quarter_more(dtype):
    low, high = STRETCHES[dtype]
    quarter = (high - low) / 4
    for edges, before, _ in whole(*images(dtype), (low, high)).histograms():
        assert len(before) <= BINS
        assert edges[0] <= low - quarter + 1
        assert edges[-1] >= high + quarter - 1
        assert edges[-1] - edges[0] < 1.6 * (high - low)
        assert before.sum() == images(dtype)[2].sum()
        if np.dtype(dtype).kind in "iu":  # whole numbers, so a uniform image gives a flat histogram
            assert (edges[1] - edges[0]) % 1 == 0
            assert edges[0] % 1 == 0.5


def test_feature_pictures_are_every_kth_pixel():
    height, width = 2 * SIZE + 300, 700
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 256, (2, 3, height, width), dtype=np.uint8)
    valid = rng.random((height, width)) > 0.3
    tally = Tally(height, width, (0,), (255,))
    feed(tally, before, after, valid, pieces(valid.shape, 256, 500))
    assert max(tally.seen.shape) <= SIZE
    lattice = np.s_[:: tally.step, :: tally.step]
    assert tally.step == 3
    for found, image in zip(tally.stretched(), (before, after), strict=True):
        expected = np.where(valid, image / 255, np.nan)[:, *lattice].astype(np.float32)
        assert np.array_equal(found, expected, equal_nan=True)


def test_oracle_the_look_by_its_definitions():
    before, after, valid = images("float64", (3, 40, 50))
    look = whole(before, after, valid, (0, 1)).look(patch=5)
    assert (look["step"], look["patch"]) == (1, 5)
    for when, image in (("before", before), ("after", after)):
        image = np.clip(image, 0, 1)
        dark = minimum_filter(np.where(valid, image.min(0), np.inf), 5, mode="constant", cval=np.inf)
        light = (0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2])[valid]
        share = np.histogram(light, 256, (-0.5 / 255, 255.5 / 255))[0] / light.size
        entropy = -sum(p * np.log2(p) for p in share if p)
        assert look[f"dark_channel_{when}"] == pytest.approx(dark[valid].mean(), abs=1e-6)
        assert look[f"contrast_{when}"] == pytest.approx(light.std(), rel=1e-5)
        assert look[f"entropy_{when}"] == pytest.approx(entropy, abs=0.01)


def test_feature_entropy_of_one_and_of_two_levels():
    flat = np.full((3, 8, 8), 100, np.uint8)
    halves = flat.copy()
    halves[:, :4] = 0
    look = whole(flat, halves, np.ones((8, 8), bool), (0, 255)).look(patch=1)
    assert (look["entropy_before"], look["entropy_after"]) == (0, 1)
    assert look["contrast_before"] == pytest.approx(0, abs=1e-7)
    assert look["contrast_after"] == pytest.approx(50 / 255, rel=1e-6)
    assert look["dark_channel_after"] == pytest.approx(50 / 255, rel=1e-6)


def test_feature_nothing_valid_and_nothing_fed():
    empty = Tally(20, 30, (0,), (1,))
    assert empty.figures() == {"valid_pixels": 0, "invalid_pixels": 0, "bands": [], "look": None}
    assert empty.histograms() == []
    image = np.zeros((3, 20, 30), np.float32)
    tally = whole(image, image * np.nan, np.zeros((20, 30), bool), (0, 1))
    found = json.loads(json.dumps(tally.figures(), allow_nan=False))
    assert found["invalid_pixels"] == 600
    assert found["bands"][2]["mean_before"] is None
    tally.merge(empty)
    empty.merge(tally)
    assert empty.figures() == tally.figures()


def test_feature_without_detail_only_the_figures_of_bands():
    before, after, valid = images("uint16")
    brief, full = (whole(before, after, valid, STRETCHES["uint16"], detail=d) for d in (False, True))
    assert brief.pictures is None
    assert brief.histograms() == []
    expected = full.figures()
    del expected["look"]
    assert brief.figures() == expected
