"""The change applied to raw values: exact where nothing changes, clamped where it would leave the dtype."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from kestrel.engine.change import apply_change
from kestrel.engine.scaling import Scaling

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")


def stretch(low, high):
    return Scaling("given", low, high, "unit", "parameters")


@st.composite
def rasters_of_any_dtype(draw):
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    return draw(hnp.arrays(dtype, (5, 4)))


@given(rasters_of_any_dtype(), st.floats(0, 1))
def test_oracle_no_change_is_exact(raw, strength):
    out = apply_change(raw, np.zeros(raw.shape, np.float32), None, stretch(10, 300), strength)
    assert out.dtype == raw.dtype
    assert out.tobytes() == raw.tobytes()


@given(rasters_of_any_dtype(), hnp.arrays(bool, (5, 4)))
def test_property_pixels_that_may_not_change_do_not(raw, where):
    change = np.full(raw.shape, 0.5, np.float32)
    out = apply_change(raw, change, where, stretch(0, 100), 1.0)
    assert out[~where].tobytes() == raw[~where].tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_feature_the_change_is_scaled_and_rounded(dtype):
    raw = np.array([[10, 50, 90]], dtype)
    change = np.array([[0.105, -0.101, 0.0]], np.float32)
    out = apply_change(raw, change, None, stretch(0, 200), 0.5)
    wanted = np.array([[20.5, 39.9, 90]])
    if np.dtype(dtype).kind in "iu":
        wanted = np.rint(wanted)
    np.testing.assert_allclose(out, wanted, rtol=1e-6)


def test_feature_headroom_above_the_stretch_is_kept():
    # 3000 lies above the stretch: the model saw 1.0 and answered 0.9
    out = apply_change(
        np.array([[3000]], np.uint16), np.array([[-0.1]], np.float32), None, stretch(0, 1000), 1.0
    )
    assert out[0, 0] == 2900


@pytest.mark.parametrize("dtype", DTYPES[:8])
def test_feature_integers_are_clamped(dtype):
    limits = np.iinfo(dtype)
    raw = np.array([[limits.min, limits.max]], dtype)
    change = np.array([[-1, 1]], np.float32)
    out = apply_change(raw, change, None, stretch(0, 1e6), 1.0)
    assert out[0, 0] == limits.min
    # float64 has no 2**63 - 1: a changed value may end a little below the limit, never beyond it
    assert limits.max - 2048 <= int(out[0, 1]) <= limits.max
