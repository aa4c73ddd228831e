"""Whole Jobs with toys: the promises a user relies on, as oracles (ENGINE.md, section 8)."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from kestrel.engine.errors import Cancelled, EngineError
from kestrel.engine.job import Job
from kestrel.engine.run import run_job
from kestrel.models.task import Input, ModelError, Scale
from kestrel.tests.support import rasters, toys
from kestrel.tests.support.jobs import Recorder, job, read, run

TILE, OVERLAP = 64, 16
STEP = TILE - OVERLAP


def scattered(seed, height, width, count=25):
    """Return ships of 4 to 40 pixels with at least four empty pixels around each."""
    rng = np.random.default_rng(seed)
    taken = np.zeros((height, width), bool)
    ships = []
    while len(ships) < count:
        w, h = rng.integers(4, 41, 2)
        x, y = rng.integers(4, width - w - 4), rng.integers(4, height - h - 4)
        if not taken[y - 4 : y + h + 4, x - 4 : x + w + 4].any():
            taken[y : y + h, x : x + w] = True
            ships.append((int(x), int(y), int(x + w), int(y + h)))
    return ships


SHIPS = scattered(0, 320, 300)
IMAGE = rasters.sea(320, 300, SHIPS)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return rasters.write(tmp_path_factory.mktemp("run") / "scene.tif", IMAGE)


def boxes(found):
    """Return pixel boxes as a sorted list of tuples."""
    x, y, w, h = (found[name] for name in ("x_px", "y_px", "w_px", "h_px"))
    return sorted(map(tuple, np.column_stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2]).tolist()))


def same(a, b):
    """Say whether two results hold the same features in the same order, bit by bit."""
    return all(
        np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f")
        for name in a
        if name != "polygon"
    ) and [p.wkb for p in a["polygon"]] == [p.wkb for p in b["polygon"]]


def test_smoke_every_ship_once(scene, tmp_path):
    outcome, found = run(scene, tmp_path)
    assert boxes(found) == sorted(SHIPS)
    assert outcome.figures["count"] == len(SHIPS)
    assert outcome.warnings == []


@pytest.mark.parametrize("changes", [{"threads": False}, {"batch": 7}, {"batch": 1000}])
def test_oracle_threads_and_batch_change_nothing(scene, tmp_path, changes):
    _, plain = run(scene, tmp_path)
    _, other = run(scene, tmp_path, **changes)
    assert same(plain, other)


@pytest.mark.parametrize(("tile", "overlap"), [(64, 48), (96, 44), (128, 41), (304, 50), (512, 64)])
def test_oracle_tile_and_overlap_change_nothing_but_the_tile_number(scene, tmp_path, tile, overlap):
    _, plain = run(scene, tmp_path)
    _, other = run(scene, tmp_path, tile=tile, overlap=overlap)
    assert boxes(plain) == boxes(other)


def in_db(image):
    return (image.astype(np.float32) / 255 * 30 - 25).astype(np.float32)


@pytest.mark.parametrize("place", ["north_up", "rotated"])
@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, 2), (2, 1)])
def test_oracle_raster_moved_by_whole_steps_gives_identical_polygons(tmp_path, place, down, right):
    ships = scattered(1, 5 * STEP + TILE, 4 * STEP + TILE)
    image = in_db(rasters.sea(5 * STEP + TILE, 4 * STEP + TILE, ships))
    moved = in_db(rasters.sea(image.shape[0] + down * STEP, image.shape[1] + right * STEP, [], seed=9))
    moved[down * STEP :, right * STEP :] = image
    transform = rasters.PLACES[place][1] * rasterio.Affine.translation(-right * STEP, -down * STEP)
    a = rasters.write(tmp_path / "a.tif", image, place)
    b = rasters.write(tmp_path / "b.tif", moved, place, transform=transform)
    (_, one), (_, two) = (run(path, tmp_path, scale_mode="db") for path in (a, b))
    assert len(one["id"]) == len(ships)
    assert (two["x_px"] - one["x_px"] == right * STEP).all()
    assert (two["y_px"] - one["y_px"] == down * STEP).all()
    rings = [np.array([np.array(p.exterior.coords) for p in found["polygon"]]) for found in (one, two)]
    if place == "north_up":
        assert (rings[0] == rings[1]).all()
    else:  # the two affines differ in their last bits
        assert np.allclose(*rings, rtol=0, atol=1e-6)


@pytest.mark.parametrize("flip", [np.flipud, np.fliplr, np.transpose])
def test_oracle_flips_commute(tmp_path, flip):
    # 5 steps and a tile: the grid itself is symmetric
    side = 4 * STEP + TILE
    ships = scattered(2, side, side)
    image = rasters.sea(side, side, ships)
    _, plain = run(rasters.write(tmp_path / "a.tif", image), tmp_path)
    _, flipped = run(rasters.write(tmp_path / "b.tif", np.ascontiguousarray(flip(image))), tmp_path)
    x1, y1, x2, y2 = np.array(boxes(plain)).T
    expected = {
        np.flipud: (x1, side - y2, x2, side - y1),
        np.fliplr: (side - x2, y1, side - x1, y2),
        np.transpose: (y1, x1, y2, x2),
    }[flip]
    assert boxes(flipped) == sorted(map(tuple, np.column_stack(expected).tolist()))


def test_feature_ids_count_from_the_best_score_then_row_then_column(scene, tmp_path):
    def answer(image):
        found = toys.bright_boxes(image)
        found[:, 4] = np.round(0.5 + ((found[:, 2] - found[:, 0]) % 3) / 10, 1)
        return found

    _, found = run(scene, tmp_path, builder=lambda *_: toys.toy_task(answer), tile=512)
    assert found["id"].tolist() == list(range(1, len(SHIPS) + 1))
    keys = list(zip(-found["score"], found["y_px"], found["x_px"], strict=True))
    assert keys == sorted(keys)
    assert len(set(found["score"])) > 1


def test_feature_tile_number_is_row_times_columns_plus_column(scene, tmp_path):
    _, found = run(scene, tmp_path)
    columns = 6  # of 64 pixels with 16 overlap over 300: 0, 48, ... 192, 236
    for x, y, tile in zip(found["x_px"], found["y_px"], found["tile"], strict=True):
        row, col = divmod(tile, columns)
        top, left = min(row * STEP, 320 - TILE), min(col * STEP, 300 - TILE)
        assert top - 40 <= y <= top + TILE + 40
        assert left - 40 <= x <= left + TILE + 40


def test_feature_edge_is_the_rasters_edge_or_nodata(tmp_path):
    ships = [(0, 10, 12, 16), (40, 40, 60, 46), (100, 120, 110, 128), (140, 60, 150, 66)]
    image = rasters.sea(128, 192, ships)
    image[60:66, 150:153] = 0
    _, found = run(rasters.write(tmp_path / "a.tif", image, nodata=0), tmp_path)
    edge = dict(zip(found["x_px"], found["edge"], strict=True))
    assert edge == {6: True, 50: False, 105: True, 145: True}


def test_feature_confidence_and_lengths(scene, tmp_path):
    def answer(image):
        found = toys.bright_boxes(image)
        found[:, 4] = np.where(found[:, 2] - found[:, 0] > 20, 0.9, 0.2)
        return found

    def build(*_):
        return toys.toy_task(answer)

    _, found = run(scene, tmp_path, builder=build, tile=512)
    _, confident = run(scene, tmp_path, builder=build, tile=512, confidence=0.5)
    assert boxes(confident) == [b for b in boxes(found) if b[2] - b[0] > 20]
    outcome, long = run(scene, tmp_path, builder=build, tile=512, min_length=150.0, max_length=300.0)
    kept = (found["long_m"] >= 150) & (found["long_m"] <= 300)
    assert 0 < kept.sum() < len(SHIPS)
    assert sorted(long["long_m"]) == sorted(found["long_m"][kept])
    assert outcome.figures["dropped"]["length"] == len(SHIPS) - kept.sum()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tile": 100}, "TILE 100 is not a multiple of 8"),
        ({"tile": 64, "overlap": 64}, "OVERLAP 64 must be at least 0 and smaller than TILE 64"),
        ({"overlap": -1}, "OVERLAP must be a number from 0"),
        ({"nms_iou": 2}, "NMS_IOU must be a number from 0.01 to 1"),
        ({"min_length": 50, "max_length": 20}, "MIN_LENGTH 50 is larger than MAX_LENGTH 20"),
        ({"batch": "many"}, "BATCH must be a number"),
        ({"device": "tpu"}, "DEVICE 'tpu' is none of"),
        ({"scale_mode": "db", "scale_min": 5.0, "scale_max": -25.0}, "SCALE_MIN 5 must be below"),
    ],
)
def test_exception_parameters(scene, tmp_path, fields, words):
    with pytest.raises(EngineError, match=words):
        run(scene, tmp_path, **fields)
    assert not (tmp_path / "boxes.fgb").exists()


def test_exception_metres_without_crs(tmp_path):
    path = rasters.write(tmp_path / "a.tif", IMAGE, "no_crs")
    with pytest.raises(EngineError, match=r"MIN_LENGTH and MAX_LENGTH are in metres, but a\.tif has no CRS"):
        run(path, tmp_path, min_length=10)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_exception_device_that_is_missing(scene, tmp_path, device):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has an accelerator")
    with pytest.raises(EngineError, match=f"DEVICE {device} was asked for") as caught:
        run(scene, tmp_path, device=device)
    assert caught.value.code == "device"


def test_exception_of_a_model_keeps_its_words(scene, tmp_path):
    def build(*_):
        raise ModelError("The weights are for two bands.", "Choose others.")

    with pytest.raises(EngineError, match="two bands") as caught:
        run(scene, tmp_path, builder=build)
    assert (caught.value.code, caught.value.hint) == ("model", "Choose others.")


def test_exception_unknown_model_and_kind(scene, tmp_path):
    with pytest.raises(EngineError, match="There is no model 'toy'"):
        run(scene, tmp_path, builder=None)
    with pytest.raises(EngineError, match="no Jobs of kind 'evaluate'"):
        run_job(Job("evaluate", "toy", {}, {}, {}), Recorder())
    with pytest.raises(EngineError, match="names no output 'raster'"):
        run(scene, tmp_path, builder=lambda *_: toys.toy_task(kind="raster"))


@pytest.mark.parametrize(
    ("bad", "words"),
    [(np.zeros((1, 4)), "array of shape"), (np.array([[1, 1, 9, 9, 0.5, 3]]), "a class beyond its 1")],
)
def test_exception_model_that_breaks_its_contract(scene, tmp_path, bad, words):
    with pytest.raises(EngineError, match=words):
        run(scene, tmp_path, builder=lambda *_: toys.toy_task(lambda _: bad))


def test_feature_builder_gets_scene_and_resolved_device(scene, tmp_path):
    seen = {}

    def build(params, weights, device, info):
        seen.update(params=params, weights=weights, device=device, info=info)
        return toys.toy_task()

    run(scene, tmp_path, builder=build, weights="some", confidence=0.3)
    assert seen["weights"] == "some"
    assert seen["params"]["confidence"] == 0.3
    assert seen["device"] == "cpu"
    assert (seen["info"].height, seen["info"].width, seen["info"].dtype) == (320, 300, "uint8")
    assert seen["info"].pixel_m == pytest.approx((10.004, 10.004), abs=1e-3)


def test_feature_pixel_size_outside_the_models_warns(scene, tmp_path):
    build = lambda gsd: lambda *_: toys.toy_task(inputs=(Input("image", gsd=gsd, pad=0.0),))  # noqa: E731
    outcome, _ = run(scene, tmp_path, builder=build((0.5, 5.0)))
    assert outcome.warnings == ["Pixel size is 10 m; the model was trained on 0.5-5 m."]
    outcome, _ = run(scene, tmp_path, builder=build((5.0, 20.0)))
    assert outcome.warnings == []


def test_feature_progress_is_early_monotone_and_tells_the_rest(scene, tmp_path):
    events, start = Recorder(), time.monotonic()
    first = []
    plain = events.progress
    events.progress = lambda *a: (first.append(time.monotonic()), plain(*a))
    run(scene, tmp_path, builder=toys.build_slow, events=events)
    assert first[0] - start < 3
    fractions = [step[0] for step in events.steps]
    assert fractions == sorted(fractions)
    assert fractions[-1] <= 1
    tiles = [step for step in events.steps if step[3] == "tiles" and step[2]]
    assert tiles[-1][1] == tiles[-1][2]
    assert len(tiles) > 3
    assert all(step[4] is not None for step in tiles)
    assert any("tiles of 64 x 64 pixels" in text for _, text in events.lines)


@pytest.mark.parametrize("threads", [True, False])
def test_fault_21_cancel_mid_tiles(scene, tmp_path, threads):
    events = Recorder(cancel_at=2)
    with pytest.raises(Cancelled):
        run(scene, tmp_path, builder=toys.build_slow, events=events, threads=threads)
    assert not (tmp_path / "boxes.fgb").exists()
    assert not [t for t in threading.enumerate() if t.name == "kestrel-read-ahead"]
    _, found = run(scene, tmp_path)
    assert boxes(found) == sorted(SHIPS)


def test_fault_21_cancel_before_the_start(scene, tmp_path):
    events = Recorder()
    events.cancel.set()
    with pytest.raises(Cancelled):
        run(scene, tmp_path, events=events)


class Shortage(RuntimeError):
    """What torch raises on a full GPU, by its message."""


@pytest.mark.parametrize("error", [MemoryError("12 GB"), Shortage("CUDA out of memory. Tried to allocate")])
def test_fault_20_batch_halves_until_it_fits(scene, tmp_path, error):
    sizes = []

    def build(*_):
        def predict(images):
            sizes.append(len(images))
            if len(images) > 3:
                raise error
            return [toys.bright_boxes(image) for image in images]

        return toys.toy_task(predict=predict)

    outcome, found = run(scene, tmp_path, builder=build, batch=16)
    _, plain = run(scene, tmp_path)
    assert same(plain, found)
    assert sizes[:3] == [16, 8, 4]
    assert max(sizes[3:]) == 2
    assert outcome.figures["params_used"]["batch"] == 2
    assert any("Not enough memory for 16 tiles at once" in text for text in outcome.warnings)


def test_fault_20_one_tile_too_many_is_a_sentence(scene, tmp_path):
    def build(*_):
        def predict(_):
            raise MemoryError

        return toys.toy_task(predict=predict)

    with pytest.raises(EngineError, match="not enough memory on cpu for one tile of 64 x 64") as caught:
        run(scene, tmp_path, builder=build, batch=4)
    assert "smaller TILE" in caught.value.hint


def test_exception_other_runtime_errors_are_not_memory(scene, tmp_path):
    def build(*_):
        def predict(_):
            raise RuntimeError("shape mismatch")

        return toys.toy_task(predict=predict)

    with pytest.raises(RuntimeError, match="shape mismatch") as caught:
        run(scene, tmp_path, builder=build)
    assert caught.tb  # which would keep the reader alive, if only garbage collection ended it
    assert not [t for t in threading.enumerate() if t.name == "kestrel-read-ahead"]


def test_feature_figures_are_complete_and_plain(scene, tmp_path):
    outcome, _ = run(scene, tmp_path, confidence=0.1)
    figures = outcome.figures
    json.dumps(figures, allow_nan=False)
    names = "count tiles_run tiles_skipped tiles_total seconds scaling model params_used inputs versions"
    assert set(figures) >= {*names.split(), "valid_pixels", "invalid_pixels", "device"}
    assert figures["model"]["id"] == "toy@000000000000"
    assert figures["inputs"][0]["size"] == scene.stat().st_size
    assert figures["params_used"] == {"confidence": 0.1, "tile": 64, "overlap": 16, "batch": 1,
                                      "nms_iou": 0.45, "band": 1, "device": "cpu"}  # fmt: skip
    assert figures["seconds"]["predict"] > 0
    assert figures["valid_pixels"] == IMAGE.size


def test_feature_model_without_weights_names_itself(scene, tmp_path):
    _, found = run(scene, tmp_path, builder=lambda *_: toys.toy_task(model_id=""))
    assert set(found["model"]) == {"toy"}


def test_feature_nothing_found_is_an_empty_layer_with_all_fields(scene, tmp_path):
    outcome, found = run(scene, tmp_path, builder=lambda *_: toys.toy_task(lambda _: np.empty((0, 6))))
    assert outcome.figures["count"] == 0
    assert list(found) == ["polygon", "id", "score", "class", "x_px", "y_px", "w_px", "h_px", "long_m",
                           "short_m", "area_m2", "lon", "lat", "tile", "edge", "model"]  # fmt: skip


def test_feature_an_older_scratch_output_is_replaced(scene, tmp_path):
    (tmp_path / "boxes.fgb").write_text("old")
    done = run_job(job(scene, tmp_path), Recorder(), builder=toys.build)
    assert len(read(Path(done.outputs["boxes"]))["id"]) == len(SHIPS)


def test_feature_scale_wish_of_the_task_is_used(tmp_path):
    path = rasters.write(tmp_path / "a.tif", in_db(IMAGE))
    seen = []

    def build(*_):
        def prepare(tiles):
            seen.append(tiles.images["image"].copy())
            return tiles.images["image"][:, 0]

        return toys.toy_task(prepare=prepare, inputs=(Input("image", scale=Scale("db"), pad=0.0),), tile=512)

    outcome, _ = run(path, tmp_path, builder=build)
    assert np.allclose(seen[0][0, 0, :320, :300], IMAGE / 255, atol=1e-5)
    assert outcome.figures["scaling"]["mode"] == "db"
    assert outcome.figures["scaling"]["source"] == "parameters"


def test_feature_limits_that_leave_nothing_to_see_warn(scene, tmp_path):
    outcome, _ = run(scene, tmp_path, scale_mode="db")
    assert any("SCALE_MODE db from -25 to 5 dB makes nearly all pixels equal" in w for w in outcome.warnings)
    outcome, _ = run(scene, tmp_path, scale_mode="db", scale_min=0.0, scale_max=255.0)
    assert outcome.warnings == []
