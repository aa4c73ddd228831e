"""One stretch for each band: typed or automatic, with the numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kestrel.engine.errors import EngineError
from kestrel.engine.scaling import Scaling
from kestrel.engine.statistics import Statistics
from kestrel.engine.stretch import NO_PIXEL, display, outside, outside_warning, resolve_stretch
from kestrel.models.scaling import scale_from, stretch_from
from kestrel.models.task import ModelError, Scale

AUTO = stretch_from({})


def statistics(values, dtype="uint16"):
    return Statistics(np.sort(np.asarray(values).astype(dtype)), "the whole raster")


def ends(scalings):
    return [(s.low, s.high) for s in scalings]


def test_feature_automatic_is_0_to_255_for_uint8_alone():
    values = np.arange(101)
    found = resolve_stretch(AUTO, [statistics(values, "uint8")] * 3)
    assert ends(found) == [(0, 255)] * 3
    for dtype in ("uint16", "int16", "int8", "float32", "float64"):
        assert ends(resolve_stretch(AUTO, [statistics(values, dtype)])) == [(2, 98)]


def test_feature_every_band_has_percentiles_of_its_own():
    found = resolve_stretch(AUTO, [statistics(np.arange(101) * k) for k in (1, 10, 100)])
    assert ends(found) == [(2, 98), (20, 980), (200, 9800)]
    assert found[0].source == "percentiles 2 and 98 of the whole raster"
    assert found[1].apply(np.array([0, 20, 500, 980, 5000], np.uint16)).tolist() == [0, 0, 0.5, 1, 1]


def test_feature_equal_percentiles_fall_back_to_the_extremes():
    values = np.zeros(1000)
    values[0] = 7
    assert ends(resolve_stretch(AUTO, [statistics(values)])) == [(0, 7)]


@pytest.mark.parametrize("value", [0, 5, -3e20, 1e-30])
def test_feature_a_single_valid_pixel_has_a_stretch(value):
    (found,) = resolve_stretch(AUTO, [statistics([value], "float32")])
    assert found.source == "the only valid pixel"
    assert found.apply(np.array([value], np.float32)).tolist() == [0]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (("0", "3000"), [(0, 3000)] * 3),
        (("1,2,3", " 10, 20 ,30.5"), [(1, 10), (2, 20), (3, 30.5)]),
        (([-1], [1, 2, 3]), [(-1, 1), (-1, 2), (-1, 3)]),
        ((0, 1e4), [(0, 1e4)] * 3),
    ],
)
def test_feature_given(typed, expected):
    scale = stretch_from({"stretch_min": typed[0], "stretch_max": typed[1]})
    found = resolve_stretch(scale, [statistics(np.arange(9), "uint8"), None, None])
    assert ends(found) == expected
    assert {(s.mode, s.source) for s in found} == {("given", "parameters")}


@pytest.mark.parametrize("empty", [{}, {"stretch_min": None, "stretch_max": []},
                                   {"stretch_min": "", "stretch_max": " "}])  # fmt: skip
def test_feature_empty_is_automatic(empty):
    assert stretch_from(empty) == Scale("auto", percentiles=(2.0, 98.0))


def test_feature_no_valid_pixel_is_no_reason_to_refuse():
    found = resolve_stretch(AUTO, (None, None, None))
    assert found == (Scaling("percentile", 0.0, 1.0, "unit", NO_PIXEL),) * 3


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        ("1", "", "STRETCH_MIN is given, but STRETCH_MAX is empty"),
        ([], [5.0], "STRETCH_MAX is given, but STRETCH_MIN is empty"),
        ("1,2", "5", "STRETCH_MIN has 2 numbers, it must have 1 or 3"),
        ("1", "1,2,3,4", "STRETCH_MAX has 4 numbers"),
        ("1", "1,x,3", "STRETCH_MAX holds 'x', which is not a number"),
        ("1,,3", "5", "STRETCH_MIN holds '', which is not a number"),
        ("nan", "5", "STRETCH_MIN holds 'nan'"),
        ([float("-inf")], [5], "STRETCH_MIN holds -inf"),
        ([True], [5], "STRETCH_MIN holds True"),
        ({"a": 1}, [5], "STRETCH_MIN holds {'a': 1}"),
    ],
)
def test_exception_typed_numbers(low, high, words):
    with pytest.raises(ModelError, match=words.replace("{", r"\{")):
        stretch_from({"stretch_min": low, "stretch_max": high})


@pytest.mark.parametrize(
    ("lows", "highs", "words"),
    [
        ((5.0,), (5.0,), "STRETCH_MIN 5 must be below STRETCH_MAX 5 of band 4"),
        ((0.0, 9.0, 0.0), (5.0,), "STRETCH_MIN 9 must be below STRETCH_MAX 5 of band 3"),
        ((0.0, 0.0), (5.0,), "STRETCH_MIN has 2 numbers for 3 bands"),
    ],
)
def test_exception_given_against_bands(lows, highs, words):
    scale = Scale("given", lows=lows, highs=highs)
    with pytest.raises(EngineError, match=words) as error:
        resolve_stretch(scale, (None, None, None), (4, 3, 2))
    assert error.value.code == "parameter"


def test_exception_given_is_no_scale_mode():
    with pytest.raises(ModelError, match=r"SCALE_MODE is 'given', it must be one of auto, .*, linear"):
        scale_from({"scale_mode": "given"})


def test_feature_values_outside_a_given_stretch_are_said():
    bands = [statistics(np.arange(100)), statistics(np.arange(100)), None]
    scalings = resolve_stretch(Scale("given", lows=(3.0, 2.0, 0.0), highs=(96.0, 96.0, 1.0)), bands)
    # 0, 1, 2 below and 97, 98, 99 above; one less is 5 % and not worth a word
    assert outside(scalings[0], bands[0]) == 0.06
    assert outside(scalings[1], bands[1]) == 0.05
    text = outside_warning(scalings, bands, (4, 3, 2))
    assert "6% of band 4 (3 to 96)" in text
    assert "band 3" not in text
    assert outside_warning(scalings[1:], bands[1:]) is None


def test_feature_the_automatic_stretch_never_warns():
    bands = [statistics([0] * 40 + [1] * 20 + [9] * 40, "float32")]
    assert outside_warning(resolve_stretch(AUTO, bands), bands) is None


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=60, unique=True),
    st.tuples(st.floats(-1e6, 1e6), st.floats(1, 1e6)),
)
def test_property_the_share_outside_is_what_a_count_gives(values, limits):
    low, high = limits[0], limits[0] + limits[1]
    found = Statistics(np.sort(np.array(values, np.float32)), "")
    (scaling,) = resolve_stretch(Scale("given", lows=(low,), highs=(high,)), [found])
    assert outside(scaling, found) == sum(not low <= v <= high for v in values) / len(values)


def test_feature_black_at_no_light_is_shared_by_all_bands():
    scale = Scale(percentiles=(2.0, 99.9), black="zero")
    bright, dark = np.arange(1000, 5001, dtype=np.uint16), np.arange(500, 2501, dtype=np.uint16)
    found = resolve_stretch(scale, [Statistics(bright, "here"), Statistics(dark, "here")])
    assert [(s.low, s.high) for s in found] == [(0.0, 4996.0)] * 2


def test_feature_black_at_no_light_reaches_down_to_negative_values():
    scale = Scale(percentiles=(2.0, 99.9), black="zero")
    values = np.linspace(-0.5, 0.5, 1001).astype(np.float32)
    (found,) = resolve_stretch(scale, [Statistics(values, "here")])
    assert found.low == pytest.approx(-0.48)
    assert found.high == pytest.approx(0.499)


def test_feature_8_bit_data_keep_their_own_range_whatever_black_is():
    scale = Scale(percentiles=(2.0, 99.9), black="zero")
    (found,) = resolve_stretch(scale, [Statistics(np.arange(10, 200, dtype=np.uint8), "here")])
    assert (found.low, found.high) == (0.0, 255.0)


def test_feature_what_a_viewer_shows_is_qgiss_cut_of_the_input():
    values = np.arange(1000, 5001, dtype=np.uint16)
    known = [Statistics(values, "here")]
    assert display([Scaling("percentile", 0.0, 4996.0, "unit", "")], known) == ((1080.0, 4920.0),)
    assert display([Scaling("given", 0.0, 9000.0, "unit", "")], known) == ((0.0, 9000.0),)
    assert display([Scaling("percentile", 0.0, 1.0, "unit", NO_PIXEL)], [None]) == ((0.0, 1.0),)
