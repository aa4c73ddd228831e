"""Whole Jobs of two dates: one grid, one stretch, nodata, shifts, refusals and warnings."""

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from affine import Affine
from kestrel.engine.errors import EngineError
from kestrel.engine.run import run_job
from kestrel.models.task import Input
from kestrel.tests.support import pair_toys as toys
from kestrel.tests.support import rasters
from kestrel.tests.support.jobs import Recorder
from rasterio.warp import Resampling, calculate_default_transform, reproject
from scipy import ndimage

NODATA = -9999.0


def pair(height=160, width=150, seed=0):
    """Two dates as uint8 with a block that has changed."""
    before = np.rint(toys.ground(height, width, seed=seed)).astype("uint8")
    after = before.copy()
    after[:, 40:70, 50:90] = 255 - after[:, 40:70, 50:90]
    return before, after


def at(path, image, transform, **profile):
    rasters.write(path, image, transform=transform, **profile)
    return path


def place(col=0.0, row=0.0, scale=1.0):
    return rasters.PLACES["north_up"][1] * Affine.translation(col, row) * Affine.scale(scale)


def warnings_of(events):
    return " ".join(text for level, text in events.lines if level == "warning")


@pytest.fixture
def two(tmp_path):
    before, after = pair()
    return rasters.write(tmp_path / "a.tif", before), rasters.write(tmp_path / "b.tif", after)


def test_smoke_two_dates_on_one_grid(two, tmp_path):
    events = Recorder()
    outcome, found = toys.run(*two, tmp_path / "out.tif", events=events)
    before, after = pair()
    expected = np.abs(after.astype(float) - before).mean(axis=0) / 255
    assert found[0] == pytest.approx(expected, abs=1e-6)
    figures = outcome.figures
    assert {role: each["resampled"] for role, each in figures["layers"].items()} == {
        "before": False,
        "after": False,
    }
    assert len(figures["inputs"]) == 2
    assert np.hypot(*figures["registration"]["shift_px"]) < 0.2
    assert not warnings_of(events)


@pytest.mark.slow
def test_oracle_tiles_threads_executor_and_extent_give_the_same(two, tmp_path):
    _, one = toys.run(*two, tmp_path / "one.tif", tile=160)
    _, tiled = toys.run(*two, tmp_path / "tiled.tif", tile=64, overlap=16, batch=3)
    assert tiled == pytest.approx(one, abs=1e-6)
    _, serial = toys.run(*two, tmp_path / "serial.tif", threads=False)
    with ThreadPoolExecutor(2) as executor:
        _, units = toys.run(*two, tmp_path / "units.tif", executor=executor)
    _, threaded = toys.run(*two, tmp_path / "threaded.tif")
    assert np.array_equal(threaded, serial)
    assert np.array_equal(units, serial)
    x, y = rasters.ORIGIN
    _, part = toys.run(
        *two, tmp_path / "part.tif", extent=[x + 300, y - 1200, x + 1100, y - 400], crs_wkt="EPSG:32633"
    )
    assert np.array_equal(part, serial[:, 40:120, 30:110])


def test_oracle_pieces_of_one_ground_are_laid_on_each_other(tmp_path):
    """AFTER begins 20 columns left of BEFORE and 30 rows below, and ends before it."""
    big, changed = pair(200, 220)
    a = at(tmp_path / "a.tif", big[:, 10:170, 40:220], place(40, 10))
    b = at(tmp_path / "b.tif", changed[:, 40:190, 20:200], place(20, 40))
    _, found = toys.run(a, b, tmp_path / "out.tif", toys.shown())
    rows, cols = slice(40, 170), slice(40, 200)
    expected = np.concatenate([big[:, rows, cols], changed[:, rows, cols]]) / np.float32(255)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-6
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.transform == place(40, 40)


def test_oracle_another_crs_gives_what_the_warped_raster_gives(tmp_path):
    """Fault 16: a pair in two CRS gives the same as the pair warped beforehand."""
    before, after = pair(220, 230)
    a = rasters.write(tmp_path / "a.tif", before)
    b = tmp_path / "b.tif"
    with rasterio.open(rasters.write(tmp_path / "after.tif", after)) as dataset:
        transform, width, height = calculate_default_transform(
            dataset.crs, "EPSG:32632", dataset.width, dataset.height, *dataset.bounds
        )
        moved = np.zeros((3, height, width), "uint8")
        reproject(
            dataset.read(), moved, src_transform=dataset.transform, src_crs=dataset.crs, src_nodata=0,
            dst_transform=transform, dst_crs="EPSG:32632", dst_nodata=0, resampling=Resampling.cubic,
            XSCALE="1", YSCALE="1",
        )  # fmt: skip
    at(b, moved, transform, crs="EPSG:32632", nodata=0)
    events = Recorder()
    outcome, found = toys.run(a, b, tmp_path / "out.tif", events=events)
    assert outcome.figures["layers"]["after"]["resampled"]
    assert any("it has another CRS" in text for _, text in events.lines)
    assert np.hypot(*outcome.figures["registration"]["shift_px"]) < 0.2
    changed = found[0] > 0.15
    expected = np.zeros(changed.shape, bool)
    expected[40:70, 50:90] = True
    inner, outer = ndimage.binary_erosion(expected), ndimage.binary_dilation(expected)
    strong = np.abs(after.astype(float) - before).mean(axis=0) / 255 > 0.25
    assert changed[inner & strong].mean() > 0.99
    assert changed[~outer].sum() == 0


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint8"])
@pytest.mark.parametrize("moved", [(0.0, 0.0), (0.3, 0.4)])
def test_fault_08_nodata_in_either_date_is_nodata(tmp_path, dtype, moved):
    before, after = pair()
    mark = 0 if dtype == "uint8" else NODATA
    images = [image.astype(dtype) for image in (before, after)]
    images[0][:, 20:30, 20:40] = mark
    images[1][0, 25:45, 30:50] = mark  # one band alone
    a = rasters.write(tmp_path / "a.tif", images[0], nodata=mark)
    b = at(tmp_path / "b.tif", images[1], place(*moved), nodata=mark)
    _, found = toys.run(a, b, tmp_path / "out.tif")
    missing = found[0] == NODATA
    expected = np.zeros(missing.shape, bool)
    expected[20:30, 20:40] = expected[25:45, 30:50] = True
    assert np.array_equal(missing, expected)
    assert np.isfinite(found).all()


def test_feature_fill_is_the_same_in_both_dates(tmp_path):
    before, after = pair()
    before[:, 20:40, 20:40] = 0
    after[:, 30:60, 30:60] = 0
    seen = []

    def look(one, other):
        seen.append((one, other))
        return toys.difference(one, other)

    a = rasters.write(tmp_path / "a.tif", before, nodata=0)
    b = rasters.write(tmp_path / "b.tif", after, nodata=0)
    toys.run(a, b, tmp_path / "out.tif", functools.partial(toys.build, answer=look), tile=160)
    ((one, other),) = seen
    missing = np.zeros(one.shape[1:], bool)
    missing[20:40, 20:40] = missing[30:60, 30:60] = True
    assert np.array_equal(one[:, missing], other[:, missing])
    assert one[:, 25, 25] == pytest.approx(after[:, 25, 25] / 255)
    assert other[:, 55, 55] == pytest.approx(before[:, 55, 55] / 255)
    assert (one[:, 35, 35] > 0).all()  # neither has it: a neighbour's, not a hole


@pytest.mark.parametrize("shift", [(3.0, -2.0), (2.4, 1.7), (-6.5, 0.3)])
def test_feature_a_shift_is_reported_and_taken_back(tmp_path, shift):
    before, after = pair(220, 230)
    a = rasters.write(tmp_path / "a.tif", before)
    moved = ndimage.shift(after.astype(float), (0, shift[1], shift[0]), order=3, mode="nearest")
    b = rasters.write(tmp_path / "b.tif", np.clip(np.rint(moved), 0, 255).astype("uint8"))
    events = Recorder()
    outcome, _ = toys.run(a, b, tmp_path / "no.tif", events=events)
    assert outcome.figures["registration"]["shift_px"] == pytest.approx(shift, abs=0.2)
    assert "ALIGN=shift moves it back" in warnings_of(events)
    outcome, found = toys.run(a, b, tmp_path / "yes.tif", align="shift")
    told = outcome.figures["registration"]
    assert told["moved_px"] == pytest.approx([-shift[0], -shift[1]], abs=0.2)
    assert np.hypot(*told["left_px"]) < 0.2
    _, plain = toys.run(a, rasters.write(tmp_path / "c.tif", after), tmp_path / "plain.tif")
    valid = found[0] != NODATA
    assert valid[8:-8, 8:-8].all()
    changed, expected = (each[0] > 0.15 for each in (found, plain))
    assert not (changed & valid & ~ndimage.binary_dilation(expected, iterations=1)).any()
    assert changed[ndimage.binary_erosion(expected) & valid].mean() > 0.97


def test_exception_align_refuses_what_it_cannot_trust(tmp_path):
    a = rasters.write(tmp_path / "a.tif", pair(seed=1)[0])
    b = rasters.write(tmp_path / "b.tif", pair(seed=2)[0])
    with pytest.raises(EngineError, match=r"AFTER b\.tif lies beside BEFORE a\.tif cannot be told .*ALIGN"):
        toys.run(a, b, tmp_path / "out.tif", align="shift")
    assert not (tmp_path / "out.tif").exists()
    big = toys.ground(200, 200).astype("uint8")
    a = rasters.write(tmp_path / "a.tif", big[:, :160, :160])
    b = rasters.write(tmp_path / "b.tif", big[:, :160, 14:174])
    with pytest.raises(EngineError, match=r"lies -14\.0, [+-]0\.0 pixels .*ALIGN moves by 10 at most"):
        toys.run(a, b, tmp_path / "out.tif", align="shift")
    with pytest.raises(EngineError, match="ALIGN is 'warp'; it must be none or shift"):
        toys.run(a, b, tmp_path / "out.tif", align="warp")


def test_feature_one_stretch_from_both_dates(tmp_path):
    rng = np.random.default_rng(0)
    before = rng.integers(0, 1001, (3, 160, 160)).astype("uint16")
    after = (before + 1000).astype("uint16")
    a, b = rasters.write(tmp_path / "a.tif", before), rasters.write(tmp_path / "b.tif", after)
    outcome, _ = toys.run(a, b, tmp_path / "out.tif")
    low, high = outcome.figures["stretch"]["low"], outcome.figures["stretch"]["high"]
    assert low[:3] == low[3:]
    assert high[:3] == high[3:]
    both = np.stack([np.concatenate([x.ravel(), y.ravel()]) for x, y in zip(before, after, strict=True)])
    assert low[:3] == pytest.approx(np.percentile(both, 2, axis=1))
    assert high[:3] == pytest.approx(np.percentile(both, 98, axis=1))


def test_feature_matched_radiometry_takes_a_curve_back(tmp_path):
    before = (20 * toys.ground(160, 160)).astype("uint16")
    after = (np.sqrt(before / 5000) * 3000 + 400).astype("uint16")
    a, b = rasters.write(tmp_path / "a.tif", before), rasters.write(tmp_path / "b.tif", after)
    _, raw = toys.run(a, b, tmp_path / "raw.tif")
    outcome, found = toys.run(a, b, tmp_path / "out.tif", match_radiometry=True)
    assert outcome.figures["radiometry_matched"]
    assert raw.mean() > 0.05
    assert found.max() < 0.005  # a step of 1 in AFTER is up to 3 of 4000 in BEFORE


def test_feature_matching_sees_no_tiles_and_no_extent(tmp_path):
    before, after = pair()
    dark = (after * 0.6).astype("uint8")
    a, b = rasters.write(tmp_path / "a.tif", before), rasters.write(tmp_path / "b.tif", dark)
    _, one = toys.run(a, b, tmp_path / "one.tif", match_radiometry=True, tile=160)
    _, tiled = toys.run(a, b, tmp_path / "two.tif", match_radiometry=True, tile=64, overlap=16)
    assert tiled == pytest.approx(one, abs=1e-6)


def refuse(match, a, b, tmp_path, make=None, **fields):
    with pytest.raises(EngineError, match=match):
        toys.run(a, b, tmp_path / "out.tif", make, **fields)
    assert not (tmp_path / "out.tif").exists()


def test_fault_16_refusals(tmp_path, two):
    _, after = pair()
    a, b = two
    far = at(tmp_path / "far.tif", after, place(5000, 0))
    refuse(r"BEFORE a\.tif and AFTER far\.tif do not overlap", a, far, tmp_path)
    bare = rasters.write(tmp_path / "bare.tif", after, "no_crs")
    refuse(r"bare\.tif has no CRS, but a\.tif has one", a, bare, tmp_path)
    grey = rasters.write(tmp_path / "grey.tif", after[:2])
    refuse(r"AFTER: grey\.tif has 2 bands; change detection needs three visible bands", a, grey, tmp_path)
    deep = rasters.write(tmp_path / "deep.tif", after.astype("uint16") * 9)
    refuse(r"BEFORE a\.tif is uint8 and AFTER deep\.tif uint16, so one automatic", a, deep, tmp_path)
    refuse(
        r"BEFORE a\.tif and AFTER b\.tif share 150 x 160 pixels; at least 256",
        a, b, tmp_path, toys.builder(smallest=256),
    )  # fmt: skip
    missing = tmp_path / "missing.tif"
    refuse(r"AFTER: .*missing\.tif does not exist", a, missing, tmp_path)


@pytest.mark.parametrize("kind", ["rotated", "sheared", "south_up"])
def test_fault_14_any_affine_grid(tmp_path, kind):
    before, after = pair()
    a, b = (rasters.write(tmp_path / f"{n}.tif", each, kind) for n, each in enumerate((before, after)))
    outcome, found = toys.run(a, b, tmp_path / "out.tif")
    assert not outcome.figures["layers"]["after"]["resampled"]
    assert found[0] == pytest.approx(np.abs(after.astype(float) - before).mean(axis=0) / 255, abs=1e-6)
    with rasterio.open(a) as one, rasterio.open(tmp_path / "out.tif") as other:
        assert one.transform == other.transform


def test_fault_15_points_are_no_grid(tmp_path, two):
    image = pair()[1][0]
    points = rasters.write_gcps(tmp_path / "gcp.tif", image, rasters.gcps(*image.shape))
    make = toys.builder(bands=1)
    refuse(r"gcp\.tif is placed by control points or RPC only", two[0], points, tmp_path, make)


def test_oracle_pieces_of_a_window_are_the_window(tmp_path, two, monkeypatch):
    from kestrel.engine import align

    b = at(tmp_path / "c.tif", pair()[1], place(0.4, -0.3))
    _, one = toys.run(two[0], b, tmp_path / "one.tif", toys.shown())
    monkeypatch.setattr(align, "PIECE", 30)
    monkeypatch.setattr(align, "MIN_SIDE", 30)
    _, other = toys.run(two[0], b, tmp_path / "other.tif", toys.shown())
    assert np.array_equal(one, other)


def test_feature_mixed_types_work_with_a_stretch_or_matched(tmp_path, two):
    a, _ = two
    deep = rasters.write(tmp_path / "deep.tif", pair()[1].astype("uint16"))
    _, plain = toys.run(*two, tmp_path / "plain.tif")
    _, found = toys.run(a, deep, tmp_path / "out.tif", stretch_min="0", stretch_max="255")
    assert found == pytest.approx(plain, abs=1e-6)
    deep = rasters.write(tmp_path / "deep.tif", pair()[1].astype("uint16") * 9)
    _, found = toys.run(a, deep, tmp_path / "matched.tif", match_radiometry=True)
    assert found[:, :30] == pytest.approx(0, abs=0.03)  # the block that changed bends the curve a little


def test_exception_a_task_gets_its_roles(tmp_path, two):
    asked = toys.job(*two, {"scores": tmp_path / "out.tif"})
    del asked.inputs["after"]
    with pytest.raises(EngineError, match="AFTER: a raster is needed for toy_change"):
        run_job(asked, Recorder(), toys.builder())


def test_feature_warnings(tmp_path, two):
    a, b = two
    _, after = pair()

    def told(one, other, **fields):
        events = Recorder()
        toys.run(one, other, tmp_path / "out.tif", events=events, **fields)
        return warnings_of(events)

    assert "BEFORE a.tif and AFTER a.tif are the same raster" in told(a, a)
    assert "the dates are reversed" in told(a, b, date_before="2020-05-01", date_after="2012-01-31")
    assert "reversed" not in told(a, b, date_before="2012-01-31", date_after="2020-05-01")
    coarse = at(tmp_path / "c.tif", after[:, 1::3, 1::3], place(0, 0, 3))
    text = told(a, coarse)
    assert "Pixels of AFTER c.tif are 3 times larger" in text
    assert "different sensors" in text
    bare = [rasters.write(tmp_path / f"{n}.tif", image, "bare") for n, image in enumerate(pair())]
    assert "have no CRS" in told(*bare)


def test_feature_dates_come_from_the_files(tmp_path, two):
    for path, date in zip(two, ("2019:07:01 10:20:30", "2015:07:01 09:00:00"), strict=True):
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(TIFFTAG_DATETIME=date)
    events = Recorder()
    outcome, _ = toys.run(*two, tmp_path / "out.tif", events=events)
    assert outcome.figures["dates"] == {"before": "2019-07-01 10:20:30", "after": "2015-07-01 09:00:00"}
    assert "BEFORE a.tif is of 2019-07-01 10:20:30" in warnings_of(events)
    # QGIS and many programs write midnight where they know the day only
    typed = {"date_before": "2014-07-01T00:00:00", "date_after": "20150701"}
    outcome, _ = toys.run(*two, tmp_path / "out.tif", **typed)
    assert outcome.figures["dates"] == {"before": "2014-07-01", "after": "2015-07-01"}


def test_oracle_both_dates_reach_the_survey(tmp_path, two):
    seen = []

    def look(task, blocks):
        seen.extend(blocks)
        return dataclasses.replace(task, survey=None)

    def make(*args):
        task = toys.build(*args)
        return dataclasses.replace(task, survey=lambda blocks: look(task, blocks))

    toys.run(*two, tmp_path / "out.tif", make)
    expected = np.concatenate(pair()) / np.float32(255)
    assert seen
    for block in seen:
        rows, cols = (
            np.s_[a : a + n] for a, n in zip((block.row, block.col), block.valid.shape, strict=True)
        )
        assert block.image == pytest.approx(expected[:, rows, cols], abs=1e-6)


def test_feature_a_report_of_scores_of_two_dates(tmp_path, two):
    places = {"scores": tmp_path / "out.tif", "report": tmp_path / "report.html"}
    run_job(toys.job(*two, places), Recorder(), toys.builder())
    assert "1 of BEFORE a.tif" in (tmp_path / "report.html").read_text()


def cube_and_heights(params, weights, device, scene):
    """Five bands and one, each with a stretch of its own: what the task sees is what it answers."""
    task = toys.build(params, weights, device, scene, outputs=tuple("12345h"))
    inputs = Input("hsi", bands=5, fill="nearest"), Input("lidar", bands=1, fill="median")

    def prepare(tiles):
        return list(zip(tiles.images["hsi"], tiles.images["lidar"], strict=True))

    def predict(pairs):
        return [np.concatenate(pair) for pair in pairs]

    return dataclasses.replace(task, inputs=inputs, pair=False, prepare=prepare, predict=predict)


def test_feature_inputs_of_other_kinds_keep_their_own_stretch(tmp_path):
    cube = (10 * toys.ground(120, 130, 5)).astype("uint16")
    heights = toys.ground(120, 130, 1, seed=3).astype("float32") - 200
    a = rasters.write(tmp_path / "cube.tif", cube)
    # heights at twice the resolution, one pixel of them missing
    fine = heights.repeat(2, axis=1).repeat(2, axis=2)
    fine[0, 20:22, 40:42] = np.nan
    b = at(tmp_path / "heights.tif", fine, place(0, 0, 0.5))
    asked = toys.job(a, b, {"scores": tmp_path / "out.tif"})
    inputs = {"hsi": asked.inputs["before"], "lidar": asked.inputs["after"]}
    outcome = run_job(dataclasses.replace(asked, inputs=inputs), Recorder(), cube_and_heights)
    figures = outcome.figures
    assert figures["registration"] is None
    assert figures["stretch"]["low"][5] == pytest.approx(np.percentile(heights, 1), rel=0.02)
    assert figures["stretch"]["low"][0] == pytest.approx(np.percentile(cube[0], 1), rel=0.02)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        found = dataset.read()
    missing = np.zeros(found.shape, bool)
    missing[:, 10, 20] = True
    assert np.array_equal(found == NODATA, missing)
    low, high = (np.array(figures["stretch"][end])[:, None, None] for end in ("low", "high"))
    expected = np.clip((np.concatenate([cube, heights]) - low) / (high - low), 0, 1)
    inner = np.s_[:, 12:, 22:]  # beside the missing one, heights are of fewer samples
    assert np.abs(found[inner][:5] - expected[inner][:5]).max() < 1e-5
    assert np.abs(found[5] - expected[5])[12:, 22:].mean() < 0.02  # a quarter of a pixel's neighbours


def test_feature_an_area_of_interest_masks_both_dates(tmp_path, two):
    x, y = rasters.ORIGIN
    triangle = (
        f"POLYGON(({x + 200} {y - 200}, {x + 1005} {y - 200}, {x + 200} {y - 1005}, {x + 200} {y - 200}))"
    )
    _, found = toys.run(*two, tmp_path / "out.tif", aoi_wkt=triangle, crs_wkt="EPSG:32633")
    _, whole = toys.run(*two, tmp_path / "whole.tif")
    rows, cols = np.mgrid[20:101, 20:101] + 0.5
    inside = rows + cols < 120.5
    assert np.array_equal(found[0] != NODATA, inside)
    assert np.array_equal(found[0][inside], whole[0, 20:101, 20:101][inside])
