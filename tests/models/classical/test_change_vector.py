"""Change-vector analysis: lengths by hand, Otsu against a search of all thresholds, sums over pieces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.models.classical.change_vector import (
    BINS,
    FARTHEST,
    FLAT,
    Moments,
    histogram,
    magnitude,
    otsu,
)


def test_feature_lengths_by_hand():
    before = np.zeros((3, 1, 3), np.float32)
    after = before.copy()
    after[:, 0, 1] = (0.2, 0.3, 0.6)
    after[:, 0, 2] = 1
    np.testing.assert_allclose(magnitude(before, after)[0] * np.sqrt(3), [0, 0.7, np.sqrt(3)], rtol=1e-6)


def test_feature_standardised_dates_do_not_see_gain_and_offset():
    rng = np.random.default_rng(0)
    before = rng.uniform(0.2, 0.5, (3, 20, 20)).astype(np.float32)
    gain, offset = np.array([[0.5, 1.5, 1.2], [0.1, 0.05, 0.2]], np.float32)[:, :, None, None]
    after = before * gain + offset
    valid = np.ones((20, 20), bool)
    moments = (Moments.of(before, valid), Moments.of(after, valid))
    assert magnitude(before, after).min() > 0.01
    np.testing.assert_allclose(magnitude(before, after, moments), 0, atol=1e-6)


def test_feature_moments_add_up_over_pieces_and_leave_out_invalid_pixels():
    rng = np.random.default_rng(1)
    image, valid = rng.random((3, 30, 8), dtype=np.float32), rng.random((30, 8)) < 0.6
    whole = Moments.of(image[:, :11], valid[:11]) + Moments.of(image[:, 11:], valid[11:])
    np.testing.assert_allclose(whole.mean, image[:, valid].mean(1), rtol=1e-6)
    np.testing.assert_allclose(whole.deviation, image[:, valid].std(1), rtol=1e-5)
    flat = Moments.of(np.full((3, 2, 2), 0.5, np.float32), np.ones((2, 2), bool))
    np.testing.assert_allclose(flat.deviation, FLAT)
    far = np.zeros((3, 2, 2), np.float32)
    far[:, 0, 0] = 1  # 127 deviations from a flat scene count as the farthest
    assert magnitude(far * 0 + 0.5, far + 0.5, (flat, flat))[0, 0] == pytest.approx(FARTHEST / (2 * FARTHEST))


def brute_force(counts):
    """The largest variance between two classes over all thresholds, and what a threshold reaches."""
    values = np.repeat((np.arange(len(counts)) + 0.5) / len(counts), counts)
    reached = {}
    for k in range(1, len(counts)):
        low, high = values[values < k / len(counts)], values[values >= k / len(counts)]
        reached[k] = len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0
    return reached


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=24).filter(lambda c: np.count_nonzero(c) > 1))
def test_property_otsu_is_the_best_of_all_thresholds(counts):
    reached = brute_force(counts)
    assert reached[round(otsu(counts) * len(counts))] == pytest.approx(max(reached.values()))


def test_feature_otsu_parts_two_heaps_and_finds_nothing_in_one():
    counts = histogram(np.array([0.1] * 90 + [0.7] * 10))
    assert 0.1 < otsu(counts) <= 0.7
    assert otsu(histogram(np.full(5, 0.3))) == otsu(np.zeros(BINS)) == 1


def test_feature_histograms_add_up_and_keep_the_ends():
    values = np.array([[0.0, 1.0], [0.5, 0.25]])
    counts = histogram(values[0]) + histogram(values[1])
    np.testing.assert_array_equal(counts, histogram(values))
    assert counts[[0, BINS - 1, BINS // 2, BINS // 4]].tolist() == [1, 1, 1, 1]
