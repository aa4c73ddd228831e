"""Outlines of masks that arrive in strips: exact, valid, independent of the strips."""

from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.engine import polygons
from kestrel.engine.polygons import Polygoniser, gather
from rasterio import features
from scipy import ndimage


@st.composite
def masks(draw):
    """Masks of 0, 1 and 255: noise of any density, sometimes of larger grains."""
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grain = draw(st.sampled_from([1, 1, 3]))
    shape = -(-height // grain), -(-width // grain)
    noise = rng.random(shape) < draw(st.floats(0.1, 0.9))
    mask = np.kron(noise, np.ones((grain, grain), bool))[:height, :width].astype(np.uint8)
    mask[rng.random(mask.shape) < draw(st.sampled_from([0, 0.05]))] = 255
    return mask


def outlines(mask, cuts=(), score=None, **settings):
    rows = sorted({0, len(mask), *(c for c in cuts if c < len(mask))})
    polygoniser = Polygoniser(mask.shape[1], **settings)
    parts = [polygoniser.put(a, mask[a:b], None if score is None else score[a:b]) for a, b in pairwise(rows)]
    return gather([*parts, polygoniser.finish()])


def by_gdal(mask):
    found = [
        shapely.geometry.shape(shape) for shape, _ in features.shapes(mask, mask=mask == 1, connectivity=4)
    ]
    return np.array(found, object)


def drawn(rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows], np.uint8)


def wkt(found):
    return shapely.to_wkt(found.polygons, rounding_precision=-1).tolist()


@settings(max_examples=40, deadline=None)
@given(mask=masks(), cuts=st.sets(st.integers(1, 23)))
def test_property_strips_change_nothing(mask, cuts):
    """Tiled equals untiled to the last corner, in shape, order and figures."""
    score = np.random.default_rng(1).random(mask.shape, dtype=np.float32)
    whole, cut = outlines(mask, (), score), outlines(mask, cuts, score)
    assert wkt(whole) == wkt(cut)
    for name in ("corner", "pixels", "p_mean", "p_max"):
        assert np.array_equal(getattr(whole, name), getattr(cut, name)), name


@settings(max_examples=25, deadline=None)
@given(mask=masks(), cuts=st.sets(st.integers(1, 23)))
def test_oracle_equals_gdal_and_the_mask(mask, cuts):
    """The same polygons as GDAL's on the whole mask; all valid; drawn they are the mask again."""
    found = outlines(mask, cuts)
    assert shapely.is_valid(found.polygons).all()
    assert np.array_equal(shapely.area(found.polygons), found.pixels)
    expected = shapely.make_valid(by_gdal(mask))
    assert len(found) == len(expected)
    assert all(shapely.equals(shape, expected).sum() == 1 for shape in found.polygons)
    back = np.zeros(mask.shape, np.uint8)
    if len(found):
        back = features.rasterize(((p, 1) for p in found.polygons), mask.shape, dtype=np.uint8)
    assert np.array_equal(back == 1, mask == 1)


def test_property_own_blocks_change_nothing(monkeypatch):
    mask = (np.random.default_rng(2).random((60, 37)) < 0.55).astype(np.uint8)
    whole = outlines(mask)
    monkeypatch.setattr(polygons, "BLOCK_PX", 100)
    assert wkt(outlines(mask)) == wkt(whole)


@pytest.mark.parametrize("cuts", [(), range(1, 50)])
def test_feature_mean_and_maximum(cuts):
    """Against scipy's, to what sums of 2**-24 steps allow."""
    rng = np.random.default_rng(3)
    mask = (rng.random((50, 41)) < 0.5).astype(np.uint8)
    score = rng.random(mask.shape, dtype=np.float32)
    label, count = ndimage.label(mask)
    found = outlines(mask, cuts, score)
    numbers = label[found.corner[:, 1], found.corner[:, 0]]
    assert sorted(numbers) == list(range(1, count + 1))
    assert np.allclose(found.p_mean, ndimage.mean(score.astype(float), label, numbers), rtol=0, atol=2.0**-24)
    assert np.array_equal(found.p_max, ndimage.maximum(score, label, numbers).astype(float))


def test_feature_objects_leave_as_soon_as_nothing_can_touch_them():
    mask = drawn(["##..", "##..", "....", "...#", "...#"])
    polygoniser = Polygoniser(4)
    counts = [len(polygoniser.put(row, mask[row : row + 1])) for row in range(5)]
    assert counts == [0, 0, 1, 0, 0]
    assert len(polygoniser.finish()) == 1


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (1, 2, 3)])
def test_feature_corners(cuts):
    """Corner to corner are two objects; a lake that touches the shore at a corner is a hole."""
    two = outlines(drawn(["#.", ".#"]), cuts)
    assert shapely.equals(two.polygons, [shapely.box(0, 0, 1, 1), shapely.box(1, 1, 2, 2)]).all()
    lake = outlines(drawn(["###.", "#.##", "###.", "...."]), cuts)
    curl = outlines(drawn(["###", "#.#", "##."]), cuts)
    for found, whole in ((lake, shapely.box(0, 0, 3, 3).union(shapely.box(3, 1, 4, 2))),
                         (curl, shapely.box(0, 0, 3, 3) - shapely.box(2, 2, 3, 3))):  # fmt: skip
        assert len(found) == 1
        assert shapely.is_valid(found.polygons[0])
        assert found.polygons[0].equals(whole - shapely.box(1, 1, 2, 2))
        assert shapely.get_num_interior_rings(found.polygons[0]) == 1


def test_feature_object_longer_than_many_strips():
    """A spiral through all strips stays one object; every ring turn is opened and joined later."""
    mask = np.zeros((41, 41), np.uint8)
    mask[:, ::4] = 1
    mask[0, 2::8] = mask[0, 1::8] = mask[0, 3::8] = 1
    mask[-1, 5::8] = mask[-1, 6::8] = mask[-1, 7::8] = 1
    found = outlines(mask, range(1, 41))
    assert len(found) == 1
    assert found.pixels[0] == mask.sum()


@pytest.mark.parametrize("least", [2, 5, 9, 30])
def test_feature_least_size_counts_holes(least):
    mask = (np.random.default_rng(4).random((80, 80)) < 0.6).astype(np.uint8)
    everything = outlines(mask)
    filled = shapely.area(shapely.polygons(shapely.get_exterior_ring(everything.polygons)))
    kept = outlines(mask, range(7, 80, 7), min_pixels=least)
    assert wkt(kept) == wkt(everything.take(filled >= least))
    assert 0 < len(kept) < len(everything)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (17, 13)])
def test_smoke_full_and_empty(shape):
    full = outlines(np.ones(shape, np.uint8), (3,))
    assert [p.equals(shapely.box(0, 0, shape[1], shape[0])) for p in full.polygons] == [True]
    assert len(full.polygons[0].exterior.coords) == 5
    assert np.isnan(full.p_mean).all()
    for value in (0, 255):
        assert len(outlines(np.full(shape, value, np.uint8), (3,))) == 0


def test_exception_rows_out_of_order():
    polygoniser = Polygoniser(3)
    polygoniser.put(0, np.ones((2, 3), np.uint8))
    with pytest.raises(AssertionError, match="3 after 2"):
        polygoniser.put(3, np.ones((2, 3), np.uint8))
