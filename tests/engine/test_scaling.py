"""Scale modes against their formulas, and numbers fixed once per scene."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kestrel.engine.errors import EngineError
from kestrel.engine.scaling import resolve
from kestrel.engine.statistics import Statistics
from kestrel.models.sar_ships.stretch import stretch
from kestrel.models.task import Scale


def statistics(values):
    values = np.asarray(values)
    return Statistics(np.sort(values.ravel()), "the whole raster")


def scaled(values, **scale):
    values = np.asarray(values)
    return resolve(Scale(**scale), statistics(values)).apply(values)


def test_feature_auto_is_uint8_as_is_for_8_bit():
    values = np.arange(256, dtype=np.uint8)
    assert np.allclose(scaled(values), np.arange(256) / 255, atol=1e-7)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "float32", "float64", "int8"])
def test_feature_auto_is_the_percentile_stretch_for_the_rest(dtype):
    values = (np.arange(1001) % 101).astype(dtype)
    low, high = np.percentile(values, (1, 99.5))
    expected = np.clip((values.astype(float) - low) / (high - low), 0, 1)
    found = scaled(values)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-6)


def test_feature_large_integers_keep_their_differences():
    values = np.array([4_000_000_000, 4_000_000_001, 4_000_000_002], np.uint32)
    found = scaled(values, percentiles=(0.0, 100.0))
    assert found.tolist() == [0, 0.5, 1]


def test_feature_db_and_linear_meet():
    db = np.array([-40, -25, -10, 5, 20], np.float32)
    expected = [0, 0, 0.5, 1, 1]
    assert np.allclose(scaled(db, mode="db"), expected, atol=1e-6)
    assert np.allclose(scaled(10 ** (db / 10), mode="linear"), expected, atol=1e-6)
    assert np.allclose(scaled(db, mode="db", minimum=-40.0, maximum=20.0), (db + 40) / 60, atol=1e-6)


def test_feature_linear_takes_zero_power():
    assert scaled(np.array([0, 1], np.float32), mode="linear")[0] == 0


def test_feature_power():
    db = np.array([-40, -10, 0, 20], np.float32)
    assert np.allclose(scaled(db, mode="db", to="power"), 10 ** (np.clip(db, -25, 5) / 10), rtol=1e-6)
    assert np.allclose(scaled(db, to="power"), 10 ** (db / 10), rtol=1e-6)
    power = np.array([0.0001, 0.1, 1, 100], np.float32)
    limits = 10**-2.5, 10**0.5
    assert np.allclose(scaled(power, mode="linear", to="power"), np.clip(power, *limits), rtol=1e-6)
    amplitude = np.array([0, 3, 200], np.uint8)
    assert scaled(amplitude, to="power").tolist() == [0, 9, 40000]
    assert scaled(amplitude, mode="uint8", to="power").tolist() == [0, 9, 40000]


def test_feature_equal_percentiles_fall_back_to_the_extremes():
    values = np.zeros(10_000, np.uint16)
    values[0] = 500
    scaling = resolve(Scale(), statistics(values))
    assert (scaling.low, scaling.high) == (0, 500)
    assert "percentiles are equal" in scaling.source


def test_exception_uint8_on_other_data():
    with pytest.raises(EngineError, match=r"uint8 expects values from 0 to 255.*0 to 300"):
        scaled(np.array([0, 300], np.uint16), mode="uint8")
    # and where the statistics' sample missed the value
    scaling = resolve(Scale("uint8"), statistics(np.array([0, 200], np.uint16)))
    with pytest.raises(EngineError, match="uint8 expects"):
        scaling.apply(np.array([256], np.uint16))


def test_exception_limits_and_negative_power():
    with pytest.raises(EngineError, match="SCALE_MIN 5 must be below SCALE_MAX -25"):
        scaled(np.array([0, 1], np.float32), mode="db", minimum=5.0, maximum=-25.0)
    with pytest.raises(EngineError, match="linear expects power from 0"):
        scaled(np.array([-20, -10], np.float32), mode="linear")


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=50, unique=True))
def test_property_unit_stays_in_its_range_and_keeps_order(values):
    values = np.array(values, np.float32)
    found = scaled(values, percentiles=(0.0, 100.0))
    assert ((found >= 0) & (found <= 1)).all()
    order = np.argsort(values)
    assert (np.diff(found[order]) >= 0).all()


@given(st.integers(0, 200))
def test_property_the_result_of_a_pixel_depends_on_nothing_but_its_value(cut):
    values = np.random.default_rng(0).integers(0, 3000, 201).astype(np.uint16)
    scaling = resolve(Scale(), statistics(values))
    assert (scaling.apply(values)[cut:] == scaling.apply(values[cut:])).all()


@pytest.mark.parametrize("factor", [1e-320, 1e-42, 1e-30, 1e27])
@pytest.mark.parametrize("to", ["unit", "power"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_feature_extreme_ranges_stay_finite(factor, to, dtype):
    values = (np.linspace(1, 100, 50) * factor).astype(dtype)
    if values[0] == values[-1]:
        pytest.skip("float32 holds nothing that small")
    result = scaled(values, mode="percentile", to=to)
    assert np.isfinite(result).all()
    assert (np.diff(result) >= 0).all()


def test_oracle_the_percentile_stretch_is_the_one_of_the_training_data():
    values = np.random.default_rng(0).gamma(2, 50, 1000).astype(np.float32)
    scaling = resolve(Scale(mode="percentile"), statistics(values))
    assert scaling.low is not None
    assert scaling.high is not None
    assert np.array_equal(scaling.apply(values), stretch(values, scaling.low, scaling.high))
