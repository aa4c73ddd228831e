"""Eight-bit stretches equal the engine's scale modes by formula."""

import numpy as np
import pytest
from kestrel.models.sar_ships import stretch


def test_percentile_equals_the_formula():
    values = np.random.default_rng(0).gamma(2, 3, (50, 70)).astype(np.float32)
    low, high = np.percentile(values, [1, 99.5])
    expected = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)
    got = stretch.stretch_percentile(values)
    assert got.dtype == np.uint8
    assert np.abs(got.astype(float) - expected).max() <= 1
    assert (got.astype(float) != expected).mean() < 1e-3  # float32 may round a tie the other way


def test_db_maps_minus_25_to_0_and_5_to_255():
    sigma0_db = np.array([-40.0, -25.0, -10.0, 5.0, 20.0])
    assert stretch.stretch_db(10 ** (sigma0_db / 20)).tolist() == [0, 0, 128, 255, 255]


def test_quantise_puts_the_sea_at_its_grey_and_saturates():
    assert stretch.quantise(np.array([0.1, 0.2, 5.0]), sea_median=0.1, grey=20).tolist() == [20, 40, 255]


def test_exception_on_limits_in_the_wrong_order():
    with pytest.raises(ValueError, match=r"upper limit 1\.0 must lie above the lower limit 2\.0"):
        stretch.stretch(np.zeros(3), 2.0, 1.0)
