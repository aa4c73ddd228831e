"""Tile plans: every pixel covered, no window outside, anchored to the whole raster."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kestrel.engine.errors import EngineError
from kestrel.engine.grid import plan_grid, starts

sizes = st.integers(1, 5000)
tiles = st.integers(1, 20).map(lambda n: n * 32)


@st.composite
def plans(draw):
    tile = draw(tiles)
    return draw(sizes), draw(sizes), tile, draw(st.integers(0, tile - 1))


@given(plans())
def test_property_every_pixel_is_covered_and_no_window_leaves_the_raster(plan):
    height, width, tile, overlap = plan
    grid = plan_grid(height, width, tile, overlap, 32, 0)
    for size, begins, side in ((height, grid.ys, grid.tile[0]), (width, grid.xs, grid.tile[1])):
        ends = [min(b + side, size) for b in begins]
        assert begins[0] == 0
        assert ends[-1] == size
        assert all(b <= e for b, e in zip(begins[1:], ends, strict=False))
        assert side % 32 == 0
        assert side <= tile
        assert side - size < 32  # padded only to the next multiple


@given(plans())
def test_property_starts_are_regular_but_the_last(plan):
    size, _, tile, overlap = plan
    begins = starts(size, tile, overlap)
    steps = np.diff(begins)
    assert (steps[:-1] == tile - overlap).all()
    assert (steps > 0).all()
    assert (steps <= tile - overlap).all()


def test_feature_known_plan():
    grid = plan_grid(1000, 700, 640, 128, 64, 0)
    assert grid.ys == (0, 360)
    assert grid.xs == (0, 60)
    assert grid.at(1, 0).number == 2


@pytest.mark.parametrize(
    ("size", "expected"), [(1, (0,)), (640, (0,)), (641, (0, 1)), (1152, (0, 512)), (1153, (0, 512, 513))]
)
def test_feature_sizes_around_a_tile(size, expected):
    assert starts(size, 640, 128) == expected


@pytest.mark.parametrize(
    ("tile", "overlap", "margin", "words"),
    [
        (100, 10, 0, "TILE 100 is not a multiple of 64"),
        (0, 0, 0, "TILE 0 is not a multiple of 64"),
        (128, 128, 0, "OVERLAP 128 must be at least 0 and smaller than TILE 128"),
        (128, -1, 0, "OVERLAP -1"),
        (128, 10, 16, "twice the model's margin"),
    ],
)
def test_exception_names_the_value(tile, overlap, margin, words):
    with pytest.raises(EngineError, match=words) as caught:
        plan_grid(1000, 1000, tile, overlap, 64, margin)
    assert caught.value.hint


def test_feature_touching_selects_by_shared_area():
    grid = plan_grid(1000, 1000, 256, 56, 64, 0)  # starts 0, 200, 400, 600, 744
    assert [t.number for t in grid.touching(10, 10, 20, 20)] == [0]
    assert [t.number for t in grid.touching(210, 10, 220, 20)] == [0, 1]
    assert grid.touching(1000, 0, 1010, 10) == []
    assert len(grid.touching(0, 0, 1000, 1000)) == len(grid)
