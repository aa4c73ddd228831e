import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kestrel.models.dehazing.dense import dense_share
from kestrel.models.task import Block


def block(image, valid=None):
    valid = np.ones(image.shape[1:], bool) if valid is None else valid
    return Block(np.where(valid, image, 0).astype(np.float32), valid, 0, 0)


def textured(height, width, level=0.8, spread=0.1, seed=0):
    return np.random.default_rng(seed).normal(level, spread, (3, height, width))


def test_feature_bright_and_flat_cells_count():
    image = textured(64, 96)
    image[:, :32, :64] = 0.9  # two of six cells
    assert dense_share(iter([block(image)])) == pytest.approx(2 / 6)


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_feature_dark_and_flat_is_water(level):
    assert dense_share(iter([block(np.full((3, 64, 64), level))])) == 0


def test_feature_cells_with_invalid_pixels_do_not_count():
    image, valid = np.full((3, 64, 64), 0.9), np.ones((64, 64), bool)
    valid[0, 0] = False
    assert dense_share(iter([block(image, valid), block(textured(64, 64))])) == pytest.approx(3 / 7)


def test_feature_nothing_seen_is_nothing_lost():
    assert dense_share(iter([])) == 0
    assert dense_share(iter([block(np.full((3, 31, 200), 0.9))])) == 0
    assert dense_share(iter([block(np.full((3, 64, 64), 0.9), np.zeros((64, 64), bool))])) == 0


@given(st.integers(1, 120), st.integers(1, 120), st.floats(0, 1), st.floats(0, 0.2), st.integers(0, 99))
def test_property_it_is_a_share(height, width, level, spread, seed):
    assert 0 <= dense_share(iter([block(textured(height, width, level, spread, seed))])) <= 1
