"""Weights of tiles along an axis: they sum to one on every pixel, whatever the sizes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kestrel.engine.blend import BLOCK, Strip
from kestrel.engine.grid import plan_grid
from kestrel.engine.windows import axis_windows


@st.composite
def axes(draw):
    """Return size, tile, overlap, margin, factor: all that a plan accepts."""
    tile = draw(st.integers(1, 40))
    overlap = draw(st.integers(0, tile - 1))
    margin = draw(st.integers(0, overlap // 2))
    size = draw(st.one_of(st.integers(1, 130), st.just(tile), st.just(tile + 1)))
    return size, tile, overlap, margin, draw(st.integers(1, 4))


def windows(axis):
    size, tile, overlap, margin, factor = axis
    starts = plan_grid(1, size, tile, overlap, 1, margin).xs
    return axis_windows(size, starts, tile, overlap, margin, factor)


@given(axes())
def test_property_weights_sum_to_one_everywhere(axis):
    total = np.zeros(axis[0] * axis[4])
    for window in windows(axis):
        assert (window.weights > 0).all()
        total[window.start : window.stop] += window.weights
    assert np.abs(total - 1).max() < 1e-6


@given(axes())
def test_property_a_margin_is_kept_on_inner_sides_only(axis):
    size, tile, _, margin, factor = axis
    found = windows(axis)
    assert found[0].start == 0
    assert found[-1].stop == size * factor
    for before, after in itertools.pairwise(found):
        assert before.stop == before.tile_start + (min(tile, size) - margin) * factor
        assert after.start == after.tile_start + margin * factor


def test_feature_two_tiles_meet_in_a_linear_ramp():
    # tiles 0..8 and 4..12, margin 1: pixels 5 and 6 are shared, at a quarter and three quarters
    first, second = axis_windows(12, (0, 4), 8, 4, 1)
    np.testing.assert_allclose(first.weights, [1, 1, 1, 1, 1, 0.75, 0.25])
    np.testing.assert_allclose(second.weights, [0.25, 0.75, 1, 1, 1, 1, 1])
    assert (first.start, first.stop, second.start, second.stop) == (0, 7, 5, 12)


def test_feature_an_overlap_of_two_margins_cuts_in_the_middle():
    first, second = axis_windows(12, (0, 4), 8, 4, 2)
    assert (first.stop, second.start) == (6, 6)
    assert (first.weights == 1).all()
    assert (second.weights == 1).all()


@pytest.mark.parametrize("origin", [0, 100])
@pytest.mark.parametrize("until_step", [1, 7, 64])
def test_feature_a_strip_gives_its_rows_back_in_blocks(origin, until_step):
    rows = axis_windows(700, plan_grid(700, 10, 64, 16, 1, 0).ys, 64, 16, 0)
    (cols,) = axis_windows(10, (0,), 64, 16, 0)
    truth = np.random.default_rng(0).random((2, 700, 10), np.float32)
    strip = Strip(2, (origin, 700), (0, 10), origin, 64)
    out = np.full((2, 700, 10), np.nan, np.float32)
    last = origin
    for window in rows:
        for until in (*range(max(0, window.start - 40), window.start, until_step), window.start):
            for top, bottom, block in strip.finish(until):
                assert (top - origin) % BLOCK == 0
                assert top == last
                last = bottom
                out[:, top:bottom] = block
        strip.add(truth[:, window.tile_start : window.tile_start + 64], window, cols)
    for top, bottom, block in strip.finish(700):
        out[:, top:bottom] = block
    np.testing.assert_allclose(out[:, origin:], truth[:, origin:], rtol=1e-6)


def test_feature_rows_that_no_tile_touched_come_as_none():
    strip = Strip(1, (0, 1000), (0, 8), 0, 64)
    blocks = list(strip.finish(1000))
    assert [(top, bottom) for top, bottom, _ in blocks] == [(0, 256), (256, 512), (512, 768), (768, 1000)]
    assert all(block is None for _, _, block in blocks)
