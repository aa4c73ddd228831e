"""One stretch for two dates, and a histogram brought to another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.engine.matching import POINTS, Matched, curve, matched
from kestrel.engine.scaling import Scaling
from kestrel.engine.statistics import Statistics

seeds = st.integers(0, 2**31)


def stats(values):
    return Statistics(np.sort(values.ravel()), "the whole raster")


@given(seed=seeds, gain=st.floats(0.2, 5), offset=st.floats(-100, 100))
@settings(max_examples=20, deadline=None)
def test_property_a_linear_change_is_taken_back(seed, gain, offset):
    before = np.random.default_rng(seed).gamma(2, 100, 20_000)
    after = gain * before + offset
    scaling = Scaling("percentile", 0.0, 1000.0, "unit", "here")
    found = matched(scaling, stats(after), stats(before)).apply(after)
    assert np.abs(found - scaling.apply(before)).max() < 0.02  # the thinned tail
    assert np.abs(found - scaling.apply(before)).mean() < 1e-4


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_feature_equal_histograms_change_nothing(dtype):
    values = np.random.default_rng(0).integers(3, 200, 50_000).astype(dtype)
    scaling = Scaling("given", 0.0, 255.0, "unit", "parameters")
    found = matched(scaling, stats(values), stats(values))
    assert np.array_equal(found.apply(values), scaling.apply(values))


def test_feature_values_of_another_type_are_brought_to_bytes():
    """AFTER of 16 bits beyond 255 with the stretch of BEFORE's bytes."""
    before = np.random.default_rng(0).integers(0, 256, 50_000).astype("uint8")
    after = before.astype("uint16") * 9
    scaling = Scaling("uint8", 0.0, 255.0, "unit", "data type")
    found = matched(scaling, stats(after), stats(before))
    assert found.apply(after) == pytest.approx(before / 255, abs=1e-6)
    assert found.apply(after.astype("float32")) == pytest.approx(before / 255, abs=1e-6)
    assert found.apply(np.array([0, 60_000], "uint16")) == pytest.approx([0, 1])  # beyond: the ends


def test_feature_the_histogram_becomes_the_others():
    rng = np.random.default_rng(1)
    own, other = np.sort(rng.normal(50, 9, 30_000)), np.sort(rng.gamma(2, 100, 40_000))
    mine, theirs = curve(own, other)
    assert len(mine) <= POINTS
    assert (np.diff(mine) > 0).all()
    assert (np.diff(theirs) >= 0).all()
    brought = np.interp(own, mine, theirs)
    percents = np.arange(1, 100)
    expected = np.percentile(other, percents)
    assert np.percentile(brought, percents) == pytest.approx(expected, rel=0.01)


def test_feature_numbers_for_the_sidecar_are_the_stretchs():
    scaling = Scaling("percentile", 5.0, 90.0, "unit", "here")
    found = matched(scaling, stats(np.arange(10.0)), stats(np.arange(20.0)))
    assert isinstance(found, Matched)
    assert (found.low, found.high, found.mode) == (5.0, 90.0, "percentile")
