import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.models.classical.guided_filter import guided_filter

sides = st.integers(1, 24)
seeds = st.integers(0, 2**32 - 1)


def arrays(seed, shape, invalid=0.3):
    """Guide, values and a mask of which about the given share is invalid."""
    rng = np.random.default_rng(seed)
    return rng.random(shape), rng.random(shape), rng.random(shape) >= invalid


def by_the_book(guide, values, valid, radius, eps):
    """He's equations 5, 6 and 8, window by window: a straight line is fitted, lines are averaged."""
    lines = np.full((2, *guide.shape), np.nan)
    windows = {}
    for y, x in np.argwhere(valid):
        window = (slice(max(y - radius, 0), y + radius + 1), slice(max(x - radius, 0), x + radius + 1))
        windows[y, x] = window
        inside = valid[window]
        g, v = guide[window][inside], values[window][inside]
        # ridge regression: the slope alone is held small
        design = np.array([[np.mean(g * g) + eps, g.mean()], [g.mean(), 1.0]])
        lines[:, y, x] = np.linalg.solve(design, [np.mean(g * v), v.mean()])
    result = np.full(guide.shape, np.nan)
    for (y, x), window in windows.items():
        slope, shift = np.nanmean(lines[:, *window], axis=(1, 2))
        result[y, x] = slope * guide[y, x] + shift
    return result


@pytest.mark.parametrize("shape", [(9, 13), (1, 20), (30, 4), (1, 1)])
@pytest.mark.parametrize("invalid", [0.0, 0.4])
@pytest.mark.parametrize("radius", [1, 3, 40])
def test_feature_equals_the_equations(shape, invalid, radius):
    guide, values, valid = arrays(1, shape, invalid)
    expected = by_the_book(guide, values, valid, radius, 1e-3)
    result = guided_filter(guide, values, valid, radius, 1e-3)
    np.testing.assert_allclose(result[valid], expected[valid], atol=1e-10)


@settings(max_examples=60)
@given(sides, sides, seeds, st.integers(1, 9), st.floats(-5, 5))
def test_property_constants_are_kept(height, width, seed, radius, constant):
    guide, _, valid = arrays(seed, (height, width))
    result = guided_filter(guide, np.full((height, width), constant), valid, radius, 1e-3)
    np.testing.assert_allclose(result[valid], constant, atol=1e-10)


@settings(max_examples=60)
@given(sides, sides, seeds, st.integers(1, 9))
def test_property_linear_in_the_values(height, width, seed, radius):
    guide, values, valid = arrays(seed, (height, width))
    other = np.random.default_rng(seed + 1).random((height, width))
    one, two, both = (
        guided_filter(guide, v, valid, radius, 1e-3) for v in (values, other, 2 * values - 3 * other)
    )
    np.testing.assert_allclose(both[valid], (2 * one - 3 * two)[valid], atol=1e-9)


@settings(max_examples=60)
@given(sides, sides, seeds, st.integers(1, 9))
def test_property_what_is_invalid_is_not_looked_at(height, width, seed, radius):
    guide, values, valid = arrays(seed, (height, width))
    marked = (np.where(valid, a, np.nan) for a in (guide, values))
    result = guided_filter(*marked, valid, radius, 1e-3)
    expected = guided_filter(guide, values, valid, radius, 1e-3)
    np.testing.assert_array_equal(result[valid], expected[valid])
    assert np.isfinite(result[valid]).all()


def test_feature_a_window_of_valid_pixels_alone_equals_that_array():
    guide, values, _ = arrays(2, (40, 50))
    valid = np.zeros((40, 50), bool)
    valid[5:30, 10:45] = True
    inner = guide[5:30, 10:45], values[5:30, 10:45], np.ones((25, 35), bool)
    result = guided_filter(guide, values, valid, 6, 1e-3)[5:30, 10:45]
    np.testing.assert_allclose(result, guided_filter(*inner, 6, 1e-3), atol=1e-10)


def test_feature_edges_of_the_guide_are_kept_and_noise_goes():
    guide = np.zeros((40, 40))
    guide[:, 20:] = 1.0
    noise = np.random.default_rng(3).normal(0, 0.1, guide.shape)
    result = guided_filter(guide, guide + noise, np.ones(guide.shape, bool), 8, 1e-3)
    step = result[:, 20].mean() - result[:, 19].mean()
    assert step == pytest.approx(1.0, abs=0.05)
    assert (result - guide).std() < 0.03
