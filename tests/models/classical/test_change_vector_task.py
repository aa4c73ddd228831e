"""The change-vector Task: lengths by hand, the scale from the survey, and a run of the engine."""

import numpy as np
import pytest
import rasterio
import shapely
from kestrel.engine.run import run_job
from kestrel.models import registry
from kestrel.models.otsu import histogram, otsu
from kestrel.models.task import Block, SceneInfo, Tiles
from kestrel.tests.support import pair_toys, rasters
from kestrel.tests.support.jobs import Recorder

SCENE = SceneInfo(300, 300, "uint8", (1.0, 1.0))


def built(**params):
    return registry.builder("change_vector")(params, "", "cpu", SCENE)


def block(before, after, valid):
    return Block(np.concatenate([before, after]).astype(np.float32), valid, 0, 0)


def tiles(before, after):
    images = {"before": before[None].astype(np.float32), "after": after[None].astype(np.float32)}
    shape = (1, *before.shape[1:])
    return Tiles(images, np.ones(shape, bool), None, np.zeros(1, int), np.zeros(1, int))


def test_feature_task_is_a_pair_of_two_dates_filled_alike():
    task = built()
    assert [(each.role, each.bands, each.fill) for each in task.inputs] == [
        ("before", 3, "other"),
        ("after", 3, "other"),
    ]
    assert (task.kind, task.outputs, task.pair, task.smallest) == ("scores", ("change",), True, 256)
    assert (task.notes["threshold"], task.notes["min_area"]) == ("otsu", 50)
    assert task.model_id == "kestrel:detectchangevector"


def test_feature_probability_is_the_length_over_the_longest_valid_one():
    before = np.zeros((3, 1, 4))
    after = np.zeros((3, 1, 4))
    after[:, 0, 1] = (0.2, 0.3, 0.6)  # 0.7
    after[:, 0, 2] = (0.1, 0.15, 0.3)  # 0.35
    after[:, 0, 3] = 1  # the longest, but not valid
    valid = np.array([[True, True, True, False]])
    survey = built().survey
    task = survey(iter([block(before, before, valid), block(before, after, valid)]))
    assert task.survey is None
    assert task.notes["longest"] == pytest.approx(0.7, rel=1e-6)
    [found] = task.predict(task.prepare(tiles(before, after)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[[0, 1, 0.5, 1]]], rtol=1e-6)


def test_feature_alike_dates_give_zero_and_a_warning():
    same = np.full((3, 2, 2), 0.5)
    task = built().survey(iter([block(same, same, np.ones((2, 2), bool))]))
    [found] = task.predict(task.prepare(tiles(same, same)))
    assert not found.any()
    assert "nothing stands out" in task.notes["warnings"][-1]


def test_feature_scene_without_a_valid_pixel_builds():
    task = built().survey(iter([]))
    assert len(task.notes["warnings"]) == 1
    assert task.predict(task.prepare(tiles(np.zeros((3, 2, 2)), np.ones((3, 2, 2)))))[0].max() == 1


def test_oracle_engine_gives_the_lengths_of_the_whole_scene(tmp_path):
    """Tiles, blending and stretch change nothing: 8-bit values over 255, length over the longest."""
    rng = np.random.default_rng(0)
    dates = rng.integers(0, 256, (2, 3, 260, 300), np.uint8)
    for name, image in zip(("before", "after"), dates, strict=True):
        transform = rasterio.transform.from_origin(500000, 4500000, 1, 1)
        with rasterio.open(
            tmp_path / f"{name}.tif",
            "w",
            driver="GTiff",
            width=300,
            height=260,
            count=3,
            dtype="uint8",
            crs="EPSG:32630",
            transform=transform,
            photometric="RGB",
        ) as file:
            file.write(image)
    asked = pair_toys.job(
        tmp_path / "before.tif", tmp_path / "after.tif", {"scores": tmp_path / "p.tif"}, tile=96, overlap=16
    )
    run_job(asked, Recorder(), registry.builder("change_vector"))
    with rasterio.open(tmp_path / "p.tif") as file:
        found = file.read(1)
    wanted = np.sqrt(np.square(dates[1] / 255 - dates[0] / 255).sum(axis=0))
    np.testing.assert_allclose(found, wanted / wanted.max(), atol=2e-6)


def test_oracle_survey_knows_otsus_threshold_over_its_blocks():
    rng = np.random.default_rng(1)
    before = rng.uniform(0.2, 0.4, (2, 3, 50, 60))
    after = np.where(rng.random((2, 1, 50, 60)) < 0.1, 0.7, before + 0.02)
    valid = rng.random((2, 50, 60)) < 0.8
    task = built().survey(map(block, before, after, valid))
    [found] = zip(
        *(task.predict(task.prepare(tiles(*pair))) for pair in zip(before, after, strict=True)), strict=True
    )
    exact = otsu(histogram(np.concatenate([each[0][v] for each, v in zip(found, valid, strict=True)])))
    assert task.notes["otsu"] == pytest.approx(exact, abs=1.5 / 1024)


def test_oracle_a_part_is_cut_at_the_threshold_of_the_whole_scene(tmp_path):
    """Where EXTENT or AOI lets nothing but unchanged ground through, nothing counts as change."""
    rng = np.random.default_rng(2)
    before = rng.integers(90, 110, (3, 260, 300)).astype("uint8")
    after = rng.integers(90, 110, (3, 260, 300)).astype("uint8")
    after[:, 30:80, 30:90] = 240
    dates = [rasters.write(tmp_path / f"{n}.tif", image) for n, image in enumerate((before, after))]
    masks = []
    x, y = rasters.PLACES["north_up"][1] * (100, 20)
    east = shapely.box(x, y - 2000, x + 1500, y)
    for aoi in (None, shapely.intersection(east, shapely.Point(x, y).buffer(1400)).wkt):
        places = {"mask": tmp_path / "m.tif", "probability": tmp_path / "p.tif"}
        asked = pair_toys.job(*dates, places, aoi_wkt=aoi, crs_wkt="EPSG:32633" if aoi else None)
        outcome = run_job(asked, Recorder(), registry.builder("change_vector"))
        assert outcome.figures["change"]["threshold_source"] == "otsu"
        with rasterio.open(places["mask"]) as file:
            masks.append(file.read(1))
    whole, part = masks
    assert whole.sum() == 50 * 60
    assert (part == 0).sum() > 5000
    assert not (part == 1).any()
