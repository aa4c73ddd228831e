import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.models import registry
from kestrel.models.classical import dark_channel
from kestrel.models.classical.dark_channel import build, find_airlight, reach, restore, transmission
from kestrel.models.classical.haze import simulate
from kestrel.models.task import Block, ModelError, SceneInfo, Tiles
from scipy import ndimage

SCENE = SceneInfo(400, 300, "uint8", (10.0, 10.0))
GREY = [0.8, 0.85, 0.9]

patches = st.sampled_from([1, 3, 5])
sides = st.integers(1, 90)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def spans(draw, length, margin):
    """Start and stop of a window along an axis that keeps a pixel when it loses its margins."""
    kept = draw(st.integers(0, length - 1))
    start = draw(st.integers(0, kept - margin)) if kept >= margin else 0
    stop = draw(st.integers(kept + margin + 1, length)) if kept + margin < length else length
    return start, stop


def ground(seed, shape):
    """Blocks of colour with shadows and fine texture: what the prior asks of a landscape."""
    rng = np.random.default_rng(seed)
    cells = [n // 6 + 1 for n in shape]
    blocks = rng.random((3, *cells)).repeat(6, axis=1).repeat(6, axis=2)[:, : shape[0], : shape[1]]
    shadow = rng.random(shape) < 0.1
    return (blocks * np.where(shadow, 0.05, rng.uniform(0.6, 0.8, shape))).astype(np.float32)


def as_tiles(image, valid, places=((0, 0),), shape=None):
    height, width = shape or valid.shape
    cut = [(slice(r, r + height), slice(c, c + width)) for r, c in places]
    images = np.stack([image[:, *p] for p in cut])
    return Tiles({"image": images}, np.stack([valid[p] for p in cut]), None, *np.array(places).T)


def run(task, tiles):
    return task.predict(task.prepare(tiles))


def everywhere(shape):
    return np.ones(shape, bool)


# --- oracle: no result depends on a tile


@settings(max_examples=80)
@given(st.data(), sides, sides, seeds, patches, st.sampled_from([0.0, 0.02, 0.5]))
def test_oracle_a_window_cropped_by_the_margin_equals_the_whole(data, height, width, seed, patch, invalid):
    rng = np.random.default_rng(seed)
    image = rng.random((3, height, width), dtype=np.float32)
    valid = rng.random((height, width)) >= invalid
    task = build({"patch": patch, "airlight": GREY}, "", "cpu", SCENE)
    whole = run(task, as_tiles(image, valid))[0]
    (top, bottom), (left, right) = (data.draw(spans(n, task.margin)) for n in (height, width))
    part = run(task, as_tiles(image, valid, [(top, left)], (bottom - top, right - left)))[0]
    # a side on the raster's border keeps its pixels, any other loses the margin
    keep = tuple(
        slice(start + task.margin * (start > 0), stop - task.margin * (stop < n))
        for start, stop, n in ((top, bottom, height), (left, right, width))
    )
    inner = tuple(slice(k.start - o, k.stop - o) for k, o in zip(keep, (top, left), strict=True))
    assert whole[0][keep].size
    np.testing.assert_allclose(part[:, *inner], whole[:, *keep], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("patch", [1, 3, 15])
def test_oracle_margin_is_the_exact_reach(patch):
    side, valid = 2 * reach(patch) + 41, everywhere(2 * [2 * reach(patch) + 41])
    image = np.random.default_rng(2).uniform(0.4, 0.6, (3, side, side)).astype(np.float32)
    changed = image.copy()
    changed[:, side // 2, side // 2] = 0.0
    one, two = (transmission(i, valid, np.float32(GREY), patch, 0.95) for i in (image, changed))
    moved = np.argwhere(np.abs(one - two) > 1e-10) - side // 2
    assert np.abs(moved).max() == reach(patch) == build({"patch": patch}, "", "cpu", SCENE).margin


@settings(max_examples=40)
@given(sides, sides, seeds, patches)
def test_property_invalid_values_change_nothing(height, width, seed, patch):
    rng = np.random.default_rng(seed)
    image = rng.random((3, height, width), dtype=np.float32)
    valid = rng.random((height, width)) >= 0.3
    other = np.where(valid, image, rng.random((3, height, width), dtype=np.float32))
    one, two = (restore(i, valid, np.float32(GREY), patch, 0.95) for i in (image, other))
    np.testing.assert_array_equal(one[:, valid], two[:, valid])
    np.testing.assert_array_equal(two[:, ~valid], other[:, ~valid])


@settings(max_examples=40)
@given(sides, sides, seeds, patches, st.sampled_from(["rows", "columns", "both"]))
def test_property_flips_commute(height, width, seed, patch, axes):
    rng = np.random.default_rng(seed)
    image = rng.random((3, height, width), dtype=np.float32)
    valid = rng.random((height, width)) >= 0.2
    axis = {"rows": (-2,), "columns": (-1,), "both": (-2, -1)}[axes]
    flipped = restore(np.flip(image, axis), np.flip(valid, axis), np.float32(GREY), patch, 0.95)
    result = restore(image, valid, np.float32(GREY), patch, 0.95)
    np.testing.assert_allclose(np.flip(flipped, axis), result, rtol=1e-6, atol=1e-6)


# --- feature: the prior


@settings(max_examples=40)
@given(sides, sides, seeds, st.sampled_from([1, 3, 5, 7, 15, 31]))
def test_property_dark_channel_is_the_minimum_filter(height, width, seed, patch):
    image = np.random.default_rng(seed).random((3, height, width), dtype=np.float32)
    expected = ndimage.minimum_filter(image.min(axis=0), patch, mode="constant", cval=np.inf)
    found = dark_channel.dark_channel(image, everywhere((height, width)), patch)
    np.testing.assert_array_equal(found, expected)


def test_feature_even_haze_is_taken_off():
    clear = ground(3, (120, 150))
    clear[:, ::4, ::4] = 0.0  # the prior holds in every patch
    for t in (0.4, 0.7):
        hazy = clear * np.float32(t) + np.float32(GREY)[:, None, None] * np.float32(1 - t)
        result = restore(hazy, everywhere(clear.shape[1:]), np.float32(GREY), 15, 1.0)
        np.testing.assert_allclose(result, clear, atol=1e-5)


def test_feature_simulated_haze_becomes_less():
    clear = ground(4, (300, 300))
    haze = simulate(clear, 4, angstrom=0.0)
    task = build({}, "", "cpu", SCENE)
    assert task.survey is not None
    valid = everywhere((300, 300))
    task = task.survey(iter([Block(haze.image, valid, 0, 0)]))
    result = run(task, as_tiles(haze.image, valid))[0]
    before, after = (np.sqrt(np.mean(np.square(i - clear))) for i in (haze.image, result))
    assert after < before / 2


@pytest.mark.parametrize("patch", [1, 15])
def test_feature_without_omega_the_input_comes_back(patch):
    image = ground(5, (50, 60))
    task = build({"omega": 0, "patch": patch, "airlight": GREY}, "", "cpu", SCENE)
    np.testing.assert_array_equal(run(task, as_tiles(image, everywhere((50, 60))))[0], image)


def test_feature_black_ground_shows_no_haze():
    image = ground(6, (60, 60))
    image[2] = 0.0  # transmission is 1 everywhere
    task = build({"airlight": GREY}, "", "cpu", SCENE)
    np.testing.assert_array_equal(run(task, as_tiles(image, everywhere((60, 60))))[0], image)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("patch", [1, 15])
def test_feature_constant_images_stay_constant_and_finite(value, patch):
    image = np.full((3, 40, 70), value, np.float32)
    valid = everywhere((40, 70))
    task = build({"patch": patch}, "", "cpu", SCENE)
    assert task.survey is not None
    result = run(task.survey(iter([Block(image, valid, 0, 0)])), as_tiles(image, valid))[0]
    airlight = max(value, dark_channel.DARKEST_AIRLIGHT)
    t = max(1 - 0.95 * value / airlight, 0.1)
    np.testing.assert_allclose(result, (value - airlight) / t + airlight, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (200, 1), (13, 17)])
def test_shape_small_rasters(shape):
    task = build({"airlight": GREY}, "", "cpu", SCENE)
    result = run(task, as_tiles(ground(7, shape), everywhere(shape)))[0]
    assert (result.shape, result.dtype) == ((3, *shape), np.float32)
    assert np.isfinite(result).all()


def test_shape_each_tile_of_a_batch_is_its_own():
    image, valid = ground(8, (60, 100)), everywhere((60, 100))
    task = build({"patch": 3, "airlight": GREY}, "", "cpu", SCENE)
    places = [(0, 0), (0, 40), (20, 10)]
    batch = run(task, as_tiles(image, valid, places, (40, 60)))
    for place, result in zip(places, batch, strict=True):
        np.testing.assert_array_equal(result, run(task, as_tiles(image, valid, [place], (40, 60)))[0])


def test_feature_a_tile_without_valid_pixels_comes_back():
    image = ground(9, (30, 30))
    task = build({"airlight": GREY}, "", "cpu", SCENE)
    np.testing.assert_array_equal(run(task, as_tiles(image, np.zeros((30, 30), bool)))[0], image)


# --- feature: the survey


def haze_bank(shape=(200, 240), airlight=GREY):
    """Dark ground, and in one corner 20 x 20 pixels of nothing but haze."""
    image = ground(10, shape) * np.float32(0.5)
    image[:, :20, :20] = np.float32(airlight)[:, None, None]
    return image


def cut(image, valid, size):
    """Blocks of ``size`` in reading order; the last ones are smaller."""
    for r in range(0, valid.shape[0], size):
        for c in range(0, valid.shape[1], size):
            part = slice(r, r + size), slice(c, c + size)
            yield Block(np.where(valid[part], image[:, *part], 0), valid[part], r, c)


@pytest.mark.parametrize("size", [300, 80])
def test_feature_airlight_is_the_colour_of_the_haziest_part(size):
    image = haze_bank()
    found = find_airlight(cut(image, everywhere(image.shape[1:]), size), 5)
    np.testing.assert_allclose(found, GREY, atol=1e-6)


def test_feature_airlight_is_neither_nodata_nor_a_white_roof():
    image = haze_bank()
    image[:, 100:104, 100:104] = 1.0  # smaller than the patch
    image[:, 150:, :] = 1.0  # nodata
    valid = everywhere(image.shape[1:])
    valid[150:] = False
    np.testing.assert_allclose(find_airlight(cut(image, valid, 80), 5), GREY, atol=1e-6)


def test_feature_few_valid_pixels_do_not_look_like_haze():
    image = haze_bank()
    valid = everywhere(image.shape[1:])
    valid[100:160, 100:160] = np.random.default_rng(11).random((60, 60)) < 0.05
    image[:, 100:160, 100:160] = np.random.default_rng(12).uniform(0.85, 1.0, (3, 60, 60))
    image[:, 105:160:10, 105:160:10] = 0.0
    np.testing.assert_allclose(find_airlight(cut(image, valid, 300), 15), GREY, atol=1e-6)


def test_feature_what_is_kept_of_many_blocks_is_what_all_of_them_give(monkeypatch):
    image = ground(13, (240, 240))
    blocks = list(cut(image, everywhere((240, 240)), 60))
    expected = find_airlight(iter(blocks), 5)
    monkeypatch.setattr(dark_channel, "KEPT", 60)  # 0.1 % of 57 600 are 58
    np.testing.assert_array_equal(find_airlight(iter(blocks), 5), expected)


def test_feature_airlight_is_never_near_zero():
    image = np.zeros((3, 40, 40), np.float32)
    found = find_airlight(iter([Block(image, everywhere((40, 40)), 0, 0)]), 15)
    np.testing.assert_array_equal(found, np.float32(dark_channel.DARKEST_AIRLIGHT))


def test_feature_a_block_smaller_than_the_patch_counts():
    image = np.full((3, 1, 60), 0.7, np.float32)
    np.testing.assert_allclose(find_airlight(iter([Block(image, everywhere((1, 60)), 0, 0)]), 15), 0.7)


@pytest.mark.parametrize("blocks", [0, 3])
def test_feature_a_scene_without_valid_pixels_is_left_alone(blocks):
    image = ground(14, (50, 50))
    task = build({}, "", "cpu", SCENE)
    assert task.survey is not None
    nothing = Block(np.zeros((3, 50, 50), np.float32), np.zeros((50, 50), bool), 0, 0)
    task = task.survey(iter([nothing] * blocks))
    np.testing.assert_array_equal(run(task, as_tiles(image, everywhere((50, 50))))[0], image)


def test_feature_a_given_airlight_needs_no_survey():
    given = build({"airlight": GREY}, "", "cpu", SCENE)
    assert given.survey is None
    assert given.notes["airlight"] == GREY
    surveyed = build({}, "", "cpu", SCENE).survey(iter(cut(haze_bank(), everywhere((200, 240)), 80)))
    image = haze_bank()
    tiles = as_tiles(image, everywhere(image.shape[1:]))
    np.testing.assert_allclose(run(given, tiles)[0], run(surveyed, tiles)[0], atol=1e-5)
    assert surveyed.notes["airlight"] == pytest.approx(GREY, abs=1e-5)


# --- the Task


def test_smoke_the_registry_offers_it():
    task = registry.builder("dark_channel")({}, "", "cpu", SCENE)
    assert (task.name, task.kind, task.model_id) == ("dark_channel", "raster", "kestrel:dehazedarkchannel")
    assert (task.change, task.shrinkable, task.multiple, task.factor) == (True, True, 1, 1)
    assert (task.inputs[0].bands, len(task.outputs)) == (3, 3)
    assert task.overlap(task.tile) == 2 * task.margin == 2 * (15 // 2 + 4 * 15)
    assert "reflectance" in task.notes["warnings"][0]


def test_feature_the_stretch_is_the_users():
    scale = build({"stretch_min": [10], "stretch_max": [100]}, "", "cpu", SCENE).inputs[0].scale
    assert (scale.mode, scale.lows, scale.highs) == ("given", (10.0,), (100.0,))
    automatic = build({}, "", "cpu", SCENE).inputs[0].scale
    assert (automatic.percentiles, automatic.black) == ((2.0, 99.9), "zero")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"patch": 14}, "odd"),
        ({"patch": 0}, "1 to 101"),
        ({"patch": 103}, "1 to 101"),
        ({"patch": 15.0}, "1 to 101"),
        ({"patch": True}, "1 to 101"),
        ({"omega": -0.1}, "0 to 1"),
        ({"omega": 1.1}, "0 to 1"),
        ({"omega": float("nan")}, "0 to 1"),
        ({"omega": "much"}, "0 to 1"),
        ({"airlight": [0.5, 0.5]}, "three numbers"),
        ({"airlight": [0.0, 0.5, 0.5]}, "three numbers"),
        ({"airlight": "white"}, "three numbers"),
        ({"airlight": [0.5, 0.5, float("nan")]}, "three numbers"),
    ],
)
def test_exception_parameters(params, said):
    with pytest.raises(ModelError) as error:
        build(params, "", "cpu", SCENE)
    assert said in error.value.message
    assert next(iter(params)).upper() in error.value.message
