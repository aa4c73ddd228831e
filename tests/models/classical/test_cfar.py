import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.models.classical import cfar
from kestrel.models.classical.cfar import build, detect, windows_for
from kestrel.models.classical.clutter import measure, threshold_factor
from kestrel.models.task import ModelError, SceneInfo, Tiles
from scipy import stats

WINDOWS = windows_for((10.0, 10.0), 300.0, 600.0)


def sea(seed, side, looks=4.0, mean=1.0):
    return np.random.default_rng(seed).gamma(looks, mean / looks, (side, side)).astype(np.float32)


def with_ships(power, ships):
    """Multiply the power inside each (x1, y1, x2, y2) by its factor."""
    power = power.copy()
    for (x1, y1, x2, y2), factor in ships:
        power[y1:y2, x1:x2] *= factor
    return power


def scene(side, pixel_m=(10.0, 10.0), dtype="float32"):
    return SceneInfo(side, side, dtype, pixel_m)


def iou(a, b):
    sides = np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])
    common = np.prod(np.clip(sides, 0, None))
    return common / (np.prod(a[2:4] - a[:2]) + np.prod(np.subtract(b[2:4], b[:2])) - common)


# --- feature: the law behind the threshold


def test_feature_single_look_threshold_is_finn_and_johnsons():
    cells = np.array([32.0, 500.0, 5000.0, 1e6])
    expected = cells * (1e-6 ** (-1 / cells) - 1)
    np.testing.assert_allclose(threshold_factor(1e-6, np.ones(4), cells), expected, rtol=3e-3)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.2, 200.0), st.floats(100.0, 1e6), st.sampled_from([1e-9, 1e-6, 1e-3, 1e-1]))
def test_property_factor_is_the_quantile_of_the_ratio(shape, cells, pfa):
    factor = threshold_factor(pfa, np.array([shape]), np.array([cells]))[0]
    # P(X > factor Y), Y the mean of the cells: integrated over log Y, no F law involved
    law = stats.gamma(shape * cells, scale=1 / (shape * cells))
    mean = np.geomspace(law.ppf(1e-13), law.isf(1e-13), 4000)
    weight = law.pdf(mean) * mean * np.log(mean[1] / mean[0])
    chance = [
        np.sum(stats.gamma.sf(shape * f * mean, shape) * weight) for f in (factor * 0.996, factor * 1.004)
    ]
    assert chance[1] < pfa < chance[0]


@pytest.mark.parametrize("looks", [1.0, 4.4, 20.0])
@pytest.mark.parametrize("pfa", [1e-2, 1e-3, 1e-4])
def test_feature_false_alarm_rate_on_gamma_clutter_is_pfa(looks, pfa):
    power = sea(1, 1200, looks)
    clutter = measure(power, np.ones(power.shape, bool), WINDOWS.guard, WINDOWS.background)
    rate = np.mean(power > clutter.mean * threshold_factor(pfa, clutter.shape, clutter.cells))
    assert pfa / 1.5 < rate < pfa * 1.5


def test_feature_shape_is_the_number_of_looks():
    power = sea(2, 600, looks=4.4)
    clutter = measure(power, np.ones(power.shape, bool), WINDOWS.guard, WINDOWS.background)
    assert np.median(clutter.shape) == pytest.approx(4.4, rel=0.05)
    assert np.median(clutter.mean) == pytest.approx(1.0, rel=0.02)
    assert clutter.cells.max() == 61**2 - 31**2


def test_feature_texture_raises_the_threshold():
    texture = np.random.default_rng(3).gamma(2.0, 0.5, (600, 600)).astype(np.float32)
    flat, rough = sea(3, 600), sea(3, 600) * texture
    usable = np.ones((600, 600), bool)
    shapes = [np.median(measure(p, usable, WINDOWS.guard, WINDOWS.background).shape) for p in (flat, rough)]
    # (1 + 1/4)(1 + 1/2) - 1 = 0.875 = 1 / 1.14 of the K distribution, less what is censored
    assert shapes[0] > 3.5
    assert 1.0 < shapes[1] < 1.8


# --- feature: ships in, boxes out


@pytest.mark.parametrize("pixel_m", [3.0, 10.0])
def test_feature_ships_are_found_with_their_boxes(pixel_m):
    windows = windows_for((pixel_m, pixel_m), 300.0, 600.0)
    ships = [(30, 40, 60, 48), (150, 150, 156, 172), (230, 300, 245, 306)]
    power = with_ships(sea(4, 400), [(s, 60.0) for s in ships])
    boxes = detect(power, windows=windows)
    assert len(boxes) == len(ships)
    for ship in ships:
        assert max(iou(box, np.array(ship)) for box in boxes) > 0.8


def test_feature_neighbours_do_not_hide_a_ship():
    fleet = [((x, y, x + 8, y + 8), 1000.0) for x, y in itertools.product(range(20, 280, 40), repeat=2)]
    faint = ((148, 155, 160, 163), 15.0)
    boxes = detect(with_ships(sea(5, 300), [*fleet, faint]), windows=WINDOWS)
    assert max(iou(box, np.array(faint[0])) for box in boxes) > 0.5


def test_feature_score_rises_with_contrast():
    scores = []
    for factor in (15.0, 40.0, 200.0, 1000.0):
        boxes = detect(with_ships(sea(6, 200), [((90, 90, 110, 98), factor)]), windows=WINDOWS)
        assert len(boxes) == 1
        scores.append(float(boxes[0, 4]))
    assert scores == sorted(scores)
    assert 0 <= scores[0] < scores[-1] < 1


def test_feature_land_neither_trains_nor_decides():
    power = sea(7, 300)
    land = np.zeros(power.shape, bool)
    land[:, :140] = True
    ship = (150, 100, 170, 107)
    power = with_ships(power, [((0, 0, 140, 300), 5000.0), (ship, 15.0)])
    usable = measure(power, ~land, WINDOWS.guard, WINDOWS.background)
    assert usable.mean[103, 160] == pytest.approx(1.0, rel=0.05)
    boxes = detect(power, None, land, windows=WINDOWS)
    assert len(boxes) == 1
    assert iou(boxes[0], np.array(ship)) > 0.6


def test_feature_nodata_neither_trains_nor_decides():
    power = sea(8, 300)
    valid = np.ones(power.shape, bool)
    valid[100:200] = False
    marked = np.where(valid, power, np.float32(1e6))
    hidden = np.where(valid, power, np.float32(0))
    np.testing.assert_array_equal(
        detect(marked, valid, windows=WINDOWS), detect(hidden, valid, windows=WINDOWS)
    )
    assert len(detect(marked, np.zeros_like(valid), windows=WINDOWS)) == 0


def test_feature_what_is_too_large_or_too_small_is_no_ship():
    island = ((50, 50, 120, 120), 100.0)  # 700 m
    speck = ((200, 200, 201, 201), 1e4)  # 100 m2
    assert len(detect(with_ships(sea(9, 300), [island, speck]), windows=WINDOWS)) == 0


def test_feature_rounding_is_not_a_quiet_sea():
    power = np.zeros((200, 200), np.float32)
    power[60:63, 60:63] = 1.0  # amplitude 1 of 255
    power[120:126, 120:130] = 40.0**2
    assert len(detect(power, windows=WINDOWS)) == 2
    boxes = detect(power, windows=WINDOWS, quantum=1.0)
    assert len(boxes) == 1
    np.testing.assert_array_equal(boxes[0, :4], (120, 120, 130, 126))


def test_feature_quiet_sea_gives_nothing():
    assert len(detect(sea(10, 1000), windows=WINDOWS)) == 0
    assert len(detect(np.full((100, 100), 3.0, np.float32), windows=WINDOWS)) == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(-60, 60))
def test_property_units_do_not_matter(exponent):
    power = with_ships(sea(11, 160), [((70, 70, 90, 77), 50.0)])
    boxes = detect(power, windows=WINDOWS)
    assert len(boxes) == 1
    np.testing.assert_array_equal(detect(np.ldexp(power, exponent), windows=WINDOWS), boxes)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (7, 3), (61, 200)])
def test_shape_small_rasters(shape):
    power = sea(12, 200)[: shape[0], : shape[1]]
    assert detect(power, windows=WINDOWS).shape[1] == 6


# --- oracle: a tiled scene gives the boxes of the whole one


@pytest.mark.parametrize(("tile", "pixel_m"), [(512, (10.0, 10.0)), (640, (7.0, 10.0)), (833, (4.0, 10.0))])
def test_oracle_tiles_give_the_boxes_of_the_whole_scene(tile, pixel_m, monkeypatch):
    # the real limits would ask for scenes of many megapixels here
    monkeypatch.setattr(cfar, "LONGEST_OBJECT_M", 400.0)
    monkeypatch.setattr(cfar, "FINEST_M", 8.0)  # blocks of two columns at 4 m
    side = 1100
    rng = np.random.default_rng(13)
    ships = [
        ((x, y, x + rng.integers(5, 14), y + rng.integers(3, 14)), rng.uniform(15, 500))
        for x, y in rng.integers(0, side - 40, (60, 2))
    ]
    power = with_ships(sea(13, side), ships)
    valid = np.ones(power.shape, bool)
    valid[300:420, 500:700] = False
    task = build({"guard": 200, "background": 360}, "", "cpu", scene(side, pixel_m))
    whole = task.predict(task.prepare(as_tiles(power, valid, [(0, 0)], side)))[0]
    assert task.overlap(tile) <= tile // 2
    starts = sorted({*range(0, side - tile, tile - task.overlap(tile)), side - tile})
    places = list(itertools.product(starts, starts))
    found = task.predict(task.prepare(as_tiles(power, valid, places, tile)))
    moved = [b + np.array([c, r, c, r, 0, 0], np.float32) for (r, c), b in zip(places, found, strict=True)]
    tiled = np.concatenate(moved)
    assert len(whole) > 30
    assert {tuple(np.rint(b[:4])) for b in tiled} == {tuple(np.rint(b[:4])) for b in whole}
    for box in tiled:
        twin = whole[np.all(whole[:, :4] == box[:4], axis=1)][0]
        assert box[4] == pytest.approx(twin[4], abs=1e-5)


def as_tiles(power, valid, places, side):
    cut = [(slice(r, r + side), slice(c, c + side)) for r, c in places]
    rows, cols = np.array(places).T
    images = {"image": np.stack([power[p] for p in cut])[:, None]}
    return Tiles(images, np.stack([valid[p] for p in cut]), None, rows, cols)


def test_feature_fine_pixels_are_averaged_in_blocks():
    power = with_ships(sea(14, 1200, looks=1.0), [((601, 402, 721, 442), 60.0)])
    task = build({}, "", "cpu", scene(1200, pixel_m=(0.5, 0.5)))
    boxes = task.predict(as_tiles(power, np.ones(power.shape, bool), [(0, 0)], 1200))[0]
    assert len(boxes) == 1
    assert iou(boxes[0], np.array((601, 402, 721, 442))) > 0.85
    assert set(boxes[0, :4] % 4) == {0}


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (5, 5)])
def test_shape_rasters_of_few_blocks(shape):
    task = build({}, "", "cpu", SceneInfo(shape[1], shape[0], "float32", (0.5, 0.5)))
    tiles = Tiles(
        {"image": np.ones((1, 1, *shape), np.float32)},
        np.ones((1, *shape), bool),
        None,
        *np.zeros((2, 1), int),
    )
    assert task.predict(tiles)[0].shape == (0, 6)


def test_oracle_overlap_holds_windows_and_the_longest_object():
    task = build({}, "", "cpu", scene(20_000))
    assert task.tile >= 1024
    assert task.overlap(task.tile) >= 4 * WINDOWS.background[0] + cfar.LONGEST_OBJECT_M / 10
    assert task.margin == 0
    assert not task.shrinkable


# --- the Task


def test_smoke_build_declares_boxes():
    task = build({"pfa": 1e-5, "guard": 0, "background": 0.0}, "", "cpu", scene(500))
    assert task.kind == "boxes"
    assert task.outputs == ("ship",)
    assert task.inputs[0].scale.to == "power"
    assert task.notes["params"] == {
        "pfa": 1e-5,
        "guard": cfar.DEFAULT_GUARD_M,
        "background": cfar.DEFAULT_BACKGROUND_M,
    }
    assert task.notes["warnings"] == []


def test_smoke_no_crs_warns_and_assumes_ten_metres():
    task = build({}, "", "cpu", scene(500, pixel_m=None))
    assert "no CRS" in task.notes["warnings"][0]
    assert task.overlap(1024) == WINDOWS.overlap[0] + 1


def test_feature_windows_follow_both_pixel_sides():
    windows = windows_for((5.0, 10.0), 300.0, 600.0)
    assert windows.guard == (15, 30)
    assert windows.background == (30, 60)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pfa": 0.5}, "PFA is 0.5"),
        ({"pfa": -1e-6}, "PFA is -1e-06"),
        ({"guard": -3}, "GUARD is -3"),
        ({"guard": 700}, "BACKGROUND 600 m does not reach beyond GUARD 700 m"),
        ({"background": 20}, "BACKGROUND 20 m does not reach"),
        ({"background": float("nan")}, "BACKGROUND is nan"),
        ({"background": "wide"}, "BACKGROUND is 'wide', it must be a number"),
        ({"guard": True}, "GUARD is True, it must be a number"),
        ({"scale_mode": "log"}, "SCALE_MODE is 'log'"),
        ({"scale_mode": "db", "scale_min": "low"}, "SCALE_MIN is 'low', it must be a number"),
        ({"scale_min": 5, "scale_max": -25}, "SCALE_MIN 5 must lie below SCALE_MAX -25"),
    ],
)
def test_exception_bad_parameters(params, message):
    with pytest.raises(ModelError) as error:
        build(params, "", "cpu", scene(500))
    assert message in error.value.message


def test_exception_pixels_too_fine_for_the_windows():
    with pytest.raises(ModelError, match=r"Pixels of 0.5 m need tiles"):
        build({}, "", "cpu", scene(20_000, pixel_m=(0.5, 0.5)))
    task = build({"guard": 150, "background": 300}, "", "cpu", scene(20_000, pixel_m=(0.5, 0.5)))
    assert task.overlap(task.tile) <= task.tile // 2
    # one tile holds a small scene whole, whatever its pixels
    assert build({}, "", "cpu", scene(6000, pixel_m=(0.3, 0.3))).tile == 6144
