"""Boxes follow their pixels through every augmentation, and packed data are read or refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.models.sar_ships.augment import PAD, compose, relight, resampling, turn, window
from kestrel.models.sar_ships.dataset import (
    draw_weights,
    join,
    load_packed,
    padded,
    spread,
    to_tensor,
    training_batch,
)
from kestrel.models.task import ModelError

sizes = st.tuples(st.integers(6, 20), st.integers(6, 20))


def bright_box(height, width, x0, y0, x1, y1):
    chip = np.zeros((height, width), dtype=np.uint8)
    chip[y0:y1, x0:x1] = 200
    return chip, np.array([[x0, y0, x1, y1]], dtype=np.float32)


def extent(image, least):
    rows, cols = np.nonzero(image > least)
    return [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]


def packed(tmp_path, **changes):
    rng = np.random.default_rng(0)
    content = {
        "chips": rng.integers(0, 60, (4, 96, 96)).astype(np.uint8),
        "boxes": np.array([[10, 10, 30, 24], [50, 60, 70, 90], [0, 0, 9, 9]], dtype=np.float32),
        "offsets": np.array([0, 1, 1, 3, 3]),
        "source": np.array([0, 0, 1, 0]),
        "sources": np.array(["simulated", "hrsid"]),
        "pixel_m": np.array([10, 10, 0, 3], dtype=np.float32),
    } | changes
    path = tmp_path / "packed.npz"
    np.savez(path, **content)
    return path


@given(sizes, st.integers(0, 7), st.data())
@settings(max_examples=60, deadline=None)
def test_property_box_turns_with_the_chip(size, code, data):
    h, w = size
    x0, y0 = data.draw(st.integers(0, w - 2)), data.draw(st.integers(0, h - 2))
    x1, y1 = data.draw(st.integers(x0 + 1, w)), data.draw(st.integers(y0 + 1, h))
    chip, boxes = turn(*bright_box(h, w, x0, y0, x1, y1), code)
    assert extent(chip, 0) == boxes[0].tolist()


def test_feature_eight_codes_give_eight_pictures():
    chip = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert (
        len(
            {
                turn(chip, np.zeros((0, 4)), code)[0].tobytes()
                + bytes(turn(chip, np.zeros((0, 4)), code)[0].shape)
                for code in range(8)
            }
        )
        == 8
    )


@pytest.mark.parametrize("scale", [0.5, 0.73, 1.0, 1.5])
def test_feature_box_scales_with_the_chip(scale):
    rng = np.random.default_rng(1)
    chip, boxes = bright_box(120, 120, 40, 50, 70, 80)
    for _ in range(10):
        image, moved = window(chip, boxes, (150, 140), scale, rng)
        image = np.where(image == PAD, 0, image)
        if len(moved) and (moved[0, 2:] - moved[0, :2] > 30 * scale - 0.01).all():
            np.testing.assert_allclose(extent(image, 100), moved[0], atol=0.51 + 0.5 * scale)
            return
    raise AssertionError("no window held the whole box")


def test_feature_scale_one_copies_pixels():
    chip = np.random.default_rng(0).integers(0, 255, (40, 40)).astype(np.uint8)
    matrix = resampling(40, 40, 0.0, 1.0)
    np.testing.assert_allclose(matrix @ chip.astype(np.float32) @ matrix.T, chip, atol=1e-3)


def test_feature_halving_averages_pairs():
    np.testing.assert_allclose(resampling(8, 4, 0.0, 0.5) @ np.ones(8), np.ones(4), atol=1e-6)
    ramp = np.arange(8.0)
    np.testing.assert_allclose((resampling(8, 4, 0.0, 0.5) @ ramp)[1:3], [2.5, 4.5], atol=1e-5)


def test_feature_cut_boxes_stay_only_with_enough_left():
    chip, boxes = np.zeros((100, 100), np.uint8), np.array([[0.0, 0, 100, 100], [0, 0, 3, 3]])
    _, moved = window(chip, boxes, (20, 20), 1.0, np.random.default_rng(0))
    assert len(moved) == 0, "4 % of the large box is left, the small one is outside"
    _, moved = window(chip, boxes, (60, 60), 1.0, np.random.default_rng(0))
    np.testing.assert_allclose(moved, [[0, 0, 60, 60]])


@given(st.integers(0, 1000), st.sampled_from([1, 4]))
@settings(max_examples=30, deadline=None)
def test_property_composed_boxes_lie_in_the_image(seed, count):
    rng = np.random.default_rng(seed)
    chips = [bright_box(90, 90, 20, 30, 45, 70) for _ in range(count)]
    image, boxes = compose(chips, 64, rng)
    assert image.shape == (64, 64)
    assert image.dtype == np.float32
    assert 0 <= image.min() <= image.max() <= 255
    assert (boxes >= 0).all()
    assert (boxes <= 64).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 2 - 1e-4).all()


def test_feature_relighting_is_monotonic():
    out = relight(np.arange(256, dtype=np.float32), np.random.default_rng(0))
    assert (np.diff(out) >= 0).all()
    assert out[0] == 0


def test_save_load_packed_data(tmp_path):
    data = load_packed(packed(tmp_path))
    assert len(data) == 4
    assert data.sources == ("simulated", "hrsid")
    assert [len(data.boxes_of(i)) for i in range(4)] == [1, 0, 2, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {"offsets": np.array([0, 1, 1, 3, 4])},
        {"chips": np.zeros((4, 96, 96), np.float32)},
        {"source": np.array([0, 0])},
        {"sources": np.array([{"a": 1}], dtype=object)},
    ],
)
def test_exception_packed_data_that_do_not_fit(tmp_path, changes):
    with pytest.raises(ModelError, match="not a packed data set"):
        load_packed(packed(tmp_path, **changes))


def test_exception_packed_file_is_missing_or_something_else(tmp_path):
    with pytest.raises(ModelError, match="not a packed data set"):
        load_packed(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("ships")
    with pytest.raises(ModelError, match="not a packed data set"):
        load_packed(tmp_path / "text.npz")


def test_feature_join_and_spread_keep_each_chips_boxes(tmp_path):
    data = load_packed(packed(tmp_path))
    both = join([data, data])
    assert both.sources == data.sources
    for i in range(8):
        assert np.array_equal(both.boxes_of(i), data.boxes_of(i % 4))
    few = spread(both, 4)
    assert [len(few.boxes_of(i)) for i in range(4)] == [1, 2, 1, 2]
    assert np.array_equal(few.chips[1], data.chips[2])


def test_feature_shares_of_the_sources(tmp_path):
    data = load_packed(packed(tmp_path))
    np.testing.assert_allclose(draw_weights(data, {}), 0.25)
    np.testing.assert_allclose(draw_weights(data, {"hrsid": 0.4}), [0.2, 0.2, 0.4, 0.2])
    for shares in ({"nobody": 0.1}, {"hrsid": 1.2}):
        with pytest.raises(ModelError, match="do not fit"):
            draw_weights(data, shares)


def test_feature_batches_follow_from_seed_and_step(tmp_path):
    data = load_packed(packed(tmp_path))
    weights = draw_weights(data, {})
    a, b, other = (training_batch(data, weights, 64, 3, 7, step) for step in (5, 5, 6))
    assert a[0].shape == (3, 3, 64, 64)
    assert all((x == y).all() for x, y in zip(a, b, strict=True))
    assert not (a[0] == other[0]).all()
    assert (a[0][:, 0] == a[0][:, 2]).all()
    assert a[1].shape[1] == 6


def test_feature_padding_to_a_multiple():
    chip = padded(np.zeros((800, 800), np.uint8), 64)
    assert chip.shape == (832, 832)
    assert (chip[800:] == 114).all()
    assert padded(chip, 64).shape == (832, 832)
    assert to_tensor(chip[None]).max().item() == pytest.approx(114 / 255)
