"""Crops of image pairs: what each kind of augmentation does to the dates and to the label."""

from dataclasses import replace

import numpy as np
import pytest
from kestrel.models.building_change.augment import misregistered, moved, photometric, softened, turned
from kestrel.models.building_change.data import (
    PLAIN,
    SCORED,
    TRAINING,
    Mix,
    Pairs,
    Sampler,
    batches,
    load_pairs,
    load_sites,
    statistics,
)
from kestrel.models.building_change.paste import built, grown, soft_mask, stood, taken_back
from kestrel.models.building_change.simulate import draw_buildings, set_buildings
from kestrel.models.task import ModelError
from kestrel.tests.support.change_pairs import made_pairs


def sampler(mix=PLAIN, **changes):
    return Sampler(**{"pairs": made_pairs(4, 64, 0), "crop": 32, "batch": 6, "seed": 3, "mix": mix} | changes)


def test_feature_plain_crops_are_cut_from_one_place_of_both_dates_and_the_label():
    rows, cols = np.mgrid[:64, :64]
    grid = np.stack([rows, cols, rows * 0])[None].astype(np.uint8)
    label = (rows + 3 * cols) % 7 == 0
    pairs = Pairs(grid, grid + np.uint8(100), label[None], np.zeros(1), np.zeros(1))
    before, after, found = sampler(pairs=pairs)(0)
    assert before.dtype == after.dtype == np.float32
    np.testing.assert_allclose(after - before, 100 / 255, atol=1e-6)
    row, col = (np.rint(before[:, band] * 255).astype(int) for band in (0, 1))
    assert (found == ((row + 3 * col) % 7 == 0)).all()
    assert len({(r.min(), c.min(), r[0, 0], c[0, 0]) for r, c in zip(row, col, strict=True)}) > 3


def test_feature_centred_crops_hold_a_change():
    pairs = made_pairs(4, 64, 0)
    label = np.zeros_like(pairs.label)
    label[2, 5, 60] = True
    for step in range(5):
        assert (sampler(Mix(1, *[0] * 7), pairs=replace(pairs, label=label))(step)[2].sum((1, 2)) == 1).all()


def test_feature_unchanged_pairs_are_one_date_without_a_label():
    before, after, label = sampler(replace(PLAIN, unchanged=1.0))(0)
    assert (before == after).all()
    assert not label.any()


def test_feature_only_crops_without_change_swap_their_dates():
    pairs = made_pairs(4, 64, 0)
    marked = replace(pairs, before=np.zeros_like(pairs.before), after=np.full_like(pairs.after, 255))
    before, _, label = sampler(replace(PLAIN, swapped=1.0), pairs=marked, crop=16, batch=40)(0)
    assert (before[:, 0, 0, 0] == ~label.any((1, 2))).all()
    assert 0 < label.any((1, 2)).sum() < 40


def test_save_load_a_batch_depends_on_seed_and_number_alone():
    ours = sampler(Mix())
    direct = [ours(step) for step in (2, 3)]
    source = batches(ours, 2)
    for expected, found in zip(direct, source, strict=False):
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a, b)
    source.close()
    assert (sampler(Mix(), seed=4)(2)[0] != direct[0][0]).any()


def test_shape_full_mix_stays_in_range():
    for step in range(4):
        before, after, label = sampler(Mix(*[0.7] * 8))(step)
        assert before.shape == after.shape == (6, 3, 32, 32)
        assert (label.shape, label.dtype) == ((6, 32, 32), np.bool_)
        for date in (before, after):
            assert date.dtype == np.float32
            assert date.min() >= 0
            assert date.max() <= 1


def test_feature_statistics_by_numpy():
    pairs = made_pairs(3, 32, 1)
    both = np.concatenate([pairs.before, pairs.after]).astype(np.float64) / 255
    mean, std = statistics(pairs)
    np.testing.assert_allclose(mean, both.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(std, both.std((0, 2, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": made_pairs(2, 64, 0).only(SCORED)}, "no image pair"),
        ({"crop": 80}, "64 pixels"),
        ({"pairs": replace(made_pairs(2, 64, 0), label=np.zeros((2, 64, 64), bool))}, "holds a change"),
    ],
)
def test_exception_nothing_to_learn_from(changes, message):
    with pytest.raises(ModelError, match=message):
        sampler(**changes)


def test_exception_file_that_is_not_packed(tmp_path):
    with pytest.raises(ModelError, match="not a packed data set"):
        load_pairs(tmp_path)
    pairs = made_pairs(2, 32, 0)
    np.savez(tmp_path / "levir.npz", **{**vars(pairs), "label": pairs.label[:1]})
    with pytest.raises(ModelError, match="different number"):
        load_pairs(tmp_path)
    with pytest.raises(ModelError, match="not a packed data set"):
        load_sites(tmp_path / "levir.npz")
    np.savez(tmp_path / "levir.npz", **vars(pairs))
    assert len(load_pairs(tmp_path).only(TRAINING)) == 2


def test_feature_moved_by_whole_and_half_pixels():
    image = np.random.default_rng(0).random((3, 8, 9), dtype=np.float32)
    np.testing.assert_array_equal(moved(image, 2, -3)[:, 2:, :-3], image[:, :-2, 3:])
    np.testing.assert_allclose(moved(image, 0.5, 0)[:, 1:], (image[:, 1:] + image[:, :-1]) / 2, atol=1e-6)
    np.testing.assert_array_equal(moved(image, 0, 0), image)


def test_feature_softened_keeps_flat_ground_and_spreads_a_point():
    flat = np.full((3, 5, 5), 0.3, np.float32)
    np.testing.assert_allclose(softened(flat, 1), flat, atol=1e-6)
    point = np.zeros((3, 5, 5), np.float32)
    point[:, 2, 2] = 1
    np.testing.assert_allclose(softened(point, 1)[0, 1:4, 1:4], np.outer([1, 2, 1], [1, 2, 1]) / 16)
    np.testing.assert_array_equal(softened(point, 0), point)


def test_property_light_changes_and_stays_in_range():
    image = np.random.default_rng(0).random((3, 16, 16), dtype=np.float32)
    seen = set()
    for seed in range(20):
        out = photometric(image, np.random.default_rng(seed))
        assert 0 <= out.min() <= out.max() <= 1
        seen.add(round(float(out.mean()), 5))
        assert misregistered(out, np.random.default_rng(seed)).shape == image.shape
    assert len(seen) == 20


def test_feature_eight_different_turns():
    array = np.arange(9).reshape(3, 3)
    assert len({turned(array, code).tobytes() for code in range(8)}) == 8


def test_feature_masks_grow_by_squares_and_fade():
    mask = np.zeros((9, 9), bool)
    mask[4, 4] = True
    assert grown(mask, 2).sum() == 25
    assert (grown(mask, 0) == mask).all()
    weight = soft_mask(mask, 1)
    assert (weight[3:6, 3:6] == 1).all()
    assert weight[4, 8] == 0 < weight[4, 7] < weight[4, 6] < 1


def test_feature_built_puts_buildings_and_label_at_one_place():
    rng = np.random.default_rng(5)
    ground, roof = np.full((3, 64, 64), 0.2, np.float32), np.full((3, 64, 64), 0.9, np.float32)
    mask = np.zeros((64, 64), bool)
    mask[24:40, 24:40] = True
    after, label = ground, np.zeros((64, 64), bool)
    while not label.any():
        after, label = built(ground, np.zeros_like(label), roof, mask, rng)
    assert not (label & ~mask).any()
    assert (after[:, ~grown(mask, 10)] == ground[:, ~grown(mask, 10)]).all()


def test_feature_what_stood_before_is_set_into_both_dates_away_from_changes():
    before, after, donor = np.random.default_rng(1).random((3, 3, 64, 64), dtype=np.float32)
    mask, label = np.zeros((2, 64, 64), bool)
    mask[10:50, 10:50], label[30:, :] = True, True
    for seed in range(20):
        first, second = stood(before, after, label, donor, mask, np.random.default_rng(seed))
        assert ((first != before).any(0) == (second != after).any(0)).all()
        assert (second[:, label] == after[:, label]).all()


def test_feature_changes_taken_back_lose_their_label_and_show_the_ground_before():
    before, after = np.zeros((3, 64, 64), np.float32), np.ones((3, 64, 64), np.float32)
    label = np.zeros((64, 64), bool)
    label[20:44, 20:44] = True
    rng = np.random.default_rng(0)
    for _ in range(10):
        out, left = taken_back(before, after, label, rng)
        assert not (left & ~label).any()
        gone = label & ~left
        assert (out[0][gone] < 1).all() or not gone.any()
        assert (out[0][left] > 0).all()


def test_feature_drawn_buildings_are_where_their_mask_says():
    rng = np.random.default_rng(2)
    image = np.full((3, 64, 64), 0.4, np.float32)
    shares = []
    for _ in range(12):
        out, mask = set_buildings(image, draw_buildings(rng, 64), rng)
        assert 0 <= out.min() <= out.max() <= 1
        assert (out == image).all() or mask.any()
        shares.append(mask.mean())
    assert 0.05 < np.mean(shares) < 0.6
