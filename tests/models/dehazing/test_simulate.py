"""Simulated haze: the scattering model holds, the seed decides, training and test ranges differ."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.models.dehazing.simulate import TEST, TRAIN, hazed, rounded

seeds = st.integers(0, 2**32 - 1)


def scene(side: int = 40) -> np.ndarray:
    return np.random.default_rng(0).random((3, side, side), dtype=np.float32)


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([TRAIN, TEST]))
def test_property_values_stay_in_range_and_blue_loses_most(seed, ranges):
    hazy, transmission, airlight = hazed(scene(), np.random.default_rng(seed), ranges)
    assert hazy.dtype == transmission.dtype == airlight.dtype == np.float32
    assert hazy.shape == transmission.shape == (3, 40, 40)
    assert hazy.min() >= 0
    assert hazy.max() <= 1 + 1e-6
    assert transmission.min() > 0
    assert transmission.max() <= 1
    red, green, blue = transmission
    assert (red >= green - 1e-6).all()
    assert (green >= blue - 1e-6).all()
    assert red.min() >= ranges.thickest[0] - 1e-6


def test_feature_light_is_mixed_linearly():
    """With gamma known, every hazy count is the formula's."""
    ranges = replace(TRAIN, gamma=(2.2, 2.2), untouched=0.0)
    clear = scene()
    hazy, t, airlight = hazed(clear, np.random.default_rng(5), ranges)
    expected = (clear.astype(float) ** 2.2 * t + airlight[:, None, None] ** 2.2 * (1 - t)) ** (1 / 2.2)
    assert np.abs(hazy - expected).max() < 1e-5
    assert np.abs(hazy - clear).max() > 0.05


def test_same_state_gives_the_same_haze_and_another_another():
    first, again, other = (hazed(scene(), np.random.default_rng(s), TRAIN)[0] for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_untouched_scenes_come_back_as_they_were():
    clear = scene()
    hazy, transmission, _ = hazed(clear, np.random.default_rng(0), replace(TRAIN, untouched=1.0))
    assert (hazy == clear).all()
    assert hazy is not clear
    assert (transmission == 1).all()
    share = [hazed(clear, np.random.default_rng(s), TRAIN)[1].min() == 1 for s in range(400)]
    assert 0.01 < np.mean(share) < 0.12  # 5 %


def test_transmission_is_smooth_and_not_constant():
    """Neighbours differ far less than the whole scene: a bank is wider than a pixel."""
    _, t, _ = hazed(scene(200), np.random.default_rng(3), replace(TEST, evenness=(0.0, 0.0)))
    red = t[0]
    assert red.max() - red.min() > 0.15
    assert np.abs(np.diff(red, axis=0)).max() < 0.15 * (red.max() - red.min())


def test_training_is_thin_to_thick():
    least = [hazed(scene(16), np.random.default_rng(s), TRAIN)[1][0].min() for s in range(300)]
    assert np.mean(np.array(least) < 0.4) > 0.1
    assert np.mean(np.array(least) > 0.8) > 0.1


def test_test_ranges_lie_outside_those_of_training():
    apart = 0
    for name in (field.name for field in fields(TRAIN)):
        train, test = getattr(TRAIN, name), getattr(TEST, name)
        if isinstance(train, tuple):
            apart += test[1] < train[0] or test[0] > train[1]
    assert apart >= 4  # airlight, width, angstrom, gamma


def test_exception_wrong_shape():
    with pytest.raises(ValueError, match=r"\(3, H, W\)"):
        hazed(np.zeros((4, 8, 8), np.float32), np.random.default_rng(0), TRAIN)


def test_rounded_is_what_a_file_holds():
    values = np.array([[-0.1, 0.5, 1.2, 100.4 / 255]], np.float32)
    assert (rounded(values) * 255).round(4).tolist() == [[0, 128, 255, 100]]
