"""Figures of change maps: hand numbers, the paper's table, thresholds, intervals, objects."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.models.building_change.metrics import (
    BINS,
    Confusion,
    Curve,
    confusion,
    interval,
    match_objects,
)


def test_feature_toy_confusion_by_hand():
    found = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
    truth = np.array([[1, 0, 1, 0], [1, 0, 0, 0]], bool)
    c = confusion(found, truth)
    assert c == Confusion(tp=2, fp=1, fn=1, tn=4)
    assert (c.precision, c.recall, c.f1, c.iou) == pytest.approx((2 / 3, 2 / 3, 2 / 3, 1 / 2))
    assert c.kappa == pytest.approx((6 / 8 - 34 / 64) / (1 - 34 / 64))  # chance: (3 * 3 + 5 * 5) / 64


def test_feature_kappa_of_the_papers_table():
    # SSA-Net's row of table 2: P .8870, R .8004, 10.3 % changed pixels give kappa .8243
    n, changed = 1e9, 0.103e9
    tp = 0.8004 * changed
    fp = tp / 0.8870 - tp
    c = Confusion(*(round(v) for v in (tp, fp, changed - tp, n - changed - fp)))
    assert c.kappa == pytest.approx(0.8243, abs=1e-4)
    assert (c.f1, c.iou) == pytest.approx((0.8415, 0.7263), abs=1e-4)


def test_feature_nothing_there_and_nothing_found():
    c = confusion(np.zeros((2, 2), bool), np.zeros((2, 2), bool))
    assert (c.precision, c.recall, c.f1, c.iou, c.kappa) == (0, 0, 0, 0, 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 3.5]))
def test_property_a_curve_counts_as_its_thresholds_do(seed, top):
    rng = np.random.default_rng(seed)
    truth = rng.random((8, 9)) < 0.3
    score = rng.integers(0, BINS, truth.shape) / BINS * top + top / (2 * BINS)  # in the middle of bins
    curve = Curve.of(score[:3], truth[:3], top) + Curve.of(score[3:], truth[3:], top)
    for k in (0, 1, 300, 999, 1000):
        assert curve.at(k / BINS * top) == confusion(score >= k / BINS * top, truth)
    threshold, f1 = curve.best()
    assert f1 == pytest.approx(curve.at(threshold).f1)
    assert f1 >= max(confusion(score >= t, truth).f1 for t in np.unique(score)) - 1e-12


def test_feature_interval_holds_the_figure_and_pairs_the_images():
    rng = np.random.default_rng(1)
    images = [Confusion(*map(int, rng.integers(50, 100, 4))) for _ in range(7)]
    worse = [Confusion(c.tp - 20, c.fp, c.fn + 20, c.tn) for c in images]
    low, high = interval(images)
    assert low < sum(images, Confusion()).f1 < high
    low, high = interval(images, worse)
    assert 0 < low < high  # the same images drawn for both: the lead is sure, though F1 is not
    assert interval(images, images) == (0, 0)


def test_feature_objects_match_once_and_from_the_least_overlap():
    truth, found = np.zeros((2, 10, 30), np.int64)
    truth[0:4, 0:4], found[0:4, 2:6] = 1, 1  # IoU 8 / 24: matches at 0.3, not at 0.34
    truth[6:10, 10:14], found[6:10, 10:12], found[6:10, 12:14] = 2, 2, 3  # cut in two: one half matches
    truth[0:3, 20:23] = 3  # missed
    assert match_objects(found, truth) == Confusion(2, 1, 1, 0)
    assert match_objects(found, truth, 0.34) == Confusion(1, 2, 2, 0)
    assert match_objects(np.zeros_like(truth), truth) == Confusion(0, 0, 3, 0)
