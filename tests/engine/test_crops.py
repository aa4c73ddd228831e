"""Crops for a training: where they lie, what they hold, and which are for validation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kestrel.engine.crops import FOLDS, cut_crops, split
from kestrel.engine.events import Track
from kestrel.engine.reference import check_reference
from kestrel.engine.scaling import Scaling
from kestrel.engine.scene import open_scene
from kestrel.tests.support.jobs import Recorder
from kestrel.tests.support.rasters import UTM, write
from rasterio import Affine

BYTES = (Scaling("uint8", 0.0, 255.0, "unit", "data type"),) * 3

lattices = st.integers(1, 14).flatmap(
    lambda side: st.sets(st.tuples(st.integers(0, side), st.integers(0, side)), min_size=2, max_size=200)
)


def noise(height, width, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(1, 255, (3, height, width)).astype(dtype)


def cut(paths, side=16, scalings=BYTES):
    scene = open_scene(str(paths[0]), (1, 2, 3))
    names = zip(("clear",), paths[1:], strict=False)
    others = {name: check_reference(scene, str(path), (1, 2, 3)) for name, path in names}
    return cut_crops(scene, "hazy", others, scalings, side, Track(Recorder()))


@given(lattices)
def test_property_both_parts_have_crops_and_blocks_stay_whole(places):
    places = sorted(places)
    validation, side = split(places)
    assert 0 < validation.sum() < len(places)
    blocks = {}
    for (row, col), held_out in zip(places, validation, strict=True):
        blocks.setdefault((row // side, col // side), set()).add(bool(held_out))
    assert all(len(kinds) == 1 for kinds in blocks.values())


@pytest.mark.parametrize("side", [9, 20, 41])
def test_property_a_fifth_of_a_full_lattice_is_held_out_in_every_part_of_it(side):
    places = [(row, col) for row in range(side) for col in range(side)]
    validation, block = split(places)
    assert validation.mean() == pytest.approx(1 / FOLDS, abs=0.05)
    shown = validation.reshape(side, side)
    # a knight's move: FOLDS blocks in a row or column hold one of validation
    reach = FOLDS * block
    for start in range(0, side - reach + 1, block):
        assert shown[start : start + reach].any(axis=0).all()
        assert shown[:, start : start + reach].any(axis=1).all()


def test_feature_one_diagonal_of_blocks_is_split_too():
    # all of one fold by the knight's move
    validation, side = split([(4 * i, 8 * i) for i in range(10)])
    assert side == 4
    assert validation.sum() == 2


def test_feature_split_does_not_depend_on_anything_but_places():
    places = [(row, col) for row in range(7) for col in range(9)]
    assert np.array_equal(split(places)[0], split(list(places))[0])


def test_oracle_crops_are_the_pixels_of_both_layers(tmp_path):
    hazy, clear = noise(50, 70, 1), noise(50, 70, 2)
    found = cut([write(tmp_path / "h.tif", hazy), write(tmp_path / "c.tif", clear)])
    assert found.places == tuple((row, col) for row in (0, 16, 32) for col in (0, 16, 32, 48))
    for role, image in (("hazy", hazy), ("clear", clear)):
        crops = found.crops.images[role]
        assert (crops.dtype, crops.shape) == (np.float32, (12, 3, 16, 16))
        for (row, col), crop in zip(found.places, crops, strict=True):
            np.testing.assert_allclose(crop, image[:, row : row + 16, col : col + 16] / 255, atol=1e-7)


def test_feature_crops_with_nodata_in_either_layer_are_left_out(tmp_path):
    hazy, clear = noise(64, 64, 1), noise(64, 64, 2)
    hazy[1, 3, 3] = 0  # one band of one pixel
    clear[2, 40, 20] = 0
    paths = [write(tmp_path / f"{n}.tif", i, nodata=0) for n, i in (("h", hazy), ("c", clear))]
    found = cut(paths)
    assert (len(found), found.looked, found.lattice) == (14, 16, 16)
    assert not {(0, 0), (32, 16)} & set(found.places)


def test_feature_clear_layer_on_another_grid_covers_its_part(tmp_path):
    hazy = write(tmp_path / "h.tif", noise(64, 64, 1))
    flat = np.full((3, 40, 40), 102, np.uint8)
    moved = Affine(8, 0, 500_000 + 160, 0, -8, 5_000_000 - 160)  # 20 to 52 and 16 to 48 of 10 m pixels
    clear = write(tmp_path / "c.tif", flat, crs=UTM, transform=moved)
    found = cut([hazy, clear])
    assert found.places == ((16, 16), (16, 32), (32, 16), (32, 32))
    np.testing.assert_allclose(found.crops.images["clear"], 0.4, atol=1e-6)


def test_feature_more_than_fits_is_thinned_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr("kestrel.engine.crops.MOST_BYTES", 10 * 16 * 16 * 3 * 4)
    found = cut([write(tmp_path / "h.tif", noise(160, 160))])
    assert (len(found), found.looked, found.lattice) == (10, 10, 100)
    rows = [row for row, _ in found.places]
    assert (min(rows), max(rows)) == (0, 144)


def test_shape_raster_smaller_than_a_crop_has_none(tmp_path):
    found = cut([write(tmp_path / "h.tif", noise(15, 90))])
    assert (len(found), found.crops.images["hazy"].shape) == (0, (0, 3, 16, 16))
