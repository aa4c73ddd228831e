"""Packed images and the sampler: seeds, alignment, no resampling, no leak, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.models.dehazing.data import (
    TESTING,
    TRAINING,
    Pairs,
    Sampler,
    Scenes,
    batches,
    load_pairs,
    load_scenes,
    simulated_pairs,
    unit,
)
from kestrel.models.dehazing.simulate import TEST, TRAIN
from kestrel.models.task import ModelError


def stack(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), dtype=np.uint8)


def pairs(count: int = 4, side: int = 24) -> Pairs:
    """Every pixel of ``clear`` names its image and place; ``hazy`` is its complement."""
    clear = np.broadcast_to(
        np.arange(side * side, dtype=np.float32).reshape(side, side), (count, 3, side, side)
    )
    clear = (clear + side * side * np.arange(count, dtype=np.float32)[:, None, None, None]) / 1e5
    return Pairs(1 - clear, clear, np.arange(count), np.arange(count) % 2)


def test_batches_depend_on_seed_and_number_alone():
    made = [Sampler((stack(3, 40, 50),), pairs(), 16, 4, seed) for seed in (7, 7, 8)]
    for a, b in zip(made[0](11), made[1](11), strict=True):
        assert (a == b).all()
    assert (made[0](11)[1] != made[0](12)[1]).any()
    assert (made[0](11)[1] != made[2](11)[1]).any()
    # a training that goes on at batch 3 sees what the one that never stopped saw
    whole, resumed = batches(made[0]), batches(made[0], 3)
    first = [next(whole) for _ in range(5)]
    for a, b in zip(first[3], next(resumed), strict=True):
        assert (a == b).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 24), st.integers(0, 1000))
def test_property_real_crops_are_cut_at_the_same_place(crop, step):
    """The complement stays the complement, and neighbours stay neighbours: moved and turned, no more."""
    hazy, clear = Sampler((), pairs(), crop, 3, 0)(step)
    assert hazy.shape == clear.shape == (3, 3, crop, crop)
    assert np.allclose(hazy, 1 - clear, atol=1e-6)
    places = np.rint(clear[:, 0] * 1e5).astype(int)
    for place in places:
        steps = {abs(int(d)) for axis in (0, 1) for d in np.diff(place, axis=axis).ravel()}
        assert steps in ({1, 24}, set())
        assert len(np.unique(place // 576)) == 1  # one image


def test_all_eight_orientations_are_drawn_and_every_corner_is_reached():
    seen, corners = set(), set()
    sampler = Sampler((), pairs(1), 23, 8, 0)
    for step in range(40):
        for place in np.rint(sampler(step)[1][:, 0] * 1e5).astype(int):
            seen.add((int(place[0, 1] - place[0, 0]), int(place[1, 0] - place[0, 0])))
            corners.add(int(place.min()))
    assert len(seen) == 8
    assert corners == {0, 1, 24, 25}


def test_simulated_crops_keep_their_truth_and_are_eight_bit():
    scenes = stack(2, 30, 34)
    hazy, clear = Sampler((scenes,), None, 30, 6, 0)(0)
    assert hazy.dtype == clear.dtype == np.float32
    assert hazy.min() >= 0
    assert hazy.max() <= 1
    for image in (hazy, clear):
        assert np.abs(image * 255 - np.rint(image * 255)).max() < 1e-4
    known = {tuple(np.sort(np.rint(c * 255).astype(np.uint8).ravel())) for c in clear}
    cuts = {tuple(np.sort(s[:, :, c : c + 30].ravel())) for s in scenes for c in range(5)}
    assert known <= cuts  # native pixels: the same values, none in between
    assert (hazy != clear).any()


def test_real_share_is_kept():
    sampler = Sampler((np.zeros((1, 3, 24, 24), np.uint8),), pairs(), 8, 50, 0, real_share=0.3)
    real = np.mean([(sampler(step)[1].reshape(50, -1).max(axis=1) > 0).mean() for step in range(20)])
    assert real == pytest.approx(0.3, abs=0.06)


def test_stacks_of_several_sizes_are_all_drawn_from():
    stacks = tuple(
        np.full((n, 3, side, side), value, np.uint8) for n, side, value in ((1, 20, 10), (3, 32, 20))
    )
    values = np.concatenate([Sampler(stacks, None, 16, 8, 0)(s)[1][:, 0, 0, 0] * 255 for s in range(20)])
    assert set(np.rint(values)) == {10, 20}
    assert np.mean(np.rint(values) == 10) == pytest.approx(0.25, abs=0.12)


def test_held_out_block_is_never_drawn():
    data = pairs(6)
    kept = data.without(1)
    assert set(kept.block) == {0}
    assert len(kept) + len(data.only(1)) == len(data)
    assert len(data.without(-1)) == 6
    sampler = Sampler((), kept, 8, 16, 0)
    images = {int(v) for s in range(20) for v in np.rint(sampler(s)[1][:, 0, 0, 0] * 1e5).astype(int) // 576}
    assert images == {0, 2, 4}


def test_exception_nothing_to_draw_and_crop_too_large():
    with pytest.raises(ModelError, match="no image"):
        Sampler((), None, 8, 1, 0)
    with pytest.raises(ModelError, match="CROP is 25, the smallest image has 24"):
        Sampler((stack(1, 64, 64),), pairs(), 25, 1, 0)


def test_exception_files_that_are_no_pack(tmp_path):
    with pytest.raises(ModelError, match=r"real\.npz is not a packed data set"):
        load_pairs(tmp_path)
    np.savez(tmp_path / "real.npz", hazy=np.zeros((2, 3, 4, 4)), clear=0, number=0, block=0)
    with pytest.raises(ModelError, match="not 8-bit images"):
        load_pairs(tmp_path)
    images = stack(2, 4, 4)
    np.savez(tmp_path / "real.npz", hazy=images, clear=images[:1], number=[1, 2], block=[0, 0])
    with pytest.raises(ModelError, match="different number"):
        load_pairs(tmp_path)
    np.savez(tmp_path / "clear.npz", scenes=images, name=["a"], split=[0])
    with pytest.raises(ModelError, match="another number"):
        load_scenes(tmp_path)


def test_simulated_pairs_repeat_and_differ_from_training():
    scenes = Scenes(stack(3, 20, 22), np.array(["a", "b", "c"]), np.array([0, 2, 2]))
    assert len(scenes.part(TRAINING)) == 1
    held = scenes.part(TESTING)
    first, again, other = (
        simulated_pairs(held, r, s, times=2) for r, s in ((TEST, 1), (TEST, 1), (TRAIN, 1))
    )
    assert first.hazy.shape == (4, 3, 20, 22)
    assert first.hazy.dtype == np.uint8
    assert first.number.tolist() == [0, 0, 1, 1]
    assert (first.clear == held[[0, 0, 1, 1]]).all()
    assert (first.hazy == again.hazy).all()
    assert (first.hazy != other.hazy).any()
    assert (first.hazy[0] != first.hazy[1]).any()


def test_unit_divides_counts_and_leaves_floats():
    assert unit(np.array([255], np.uint8)) == 1
    image = np.array([0.3], np.float32)
    assert unit(image) is image
