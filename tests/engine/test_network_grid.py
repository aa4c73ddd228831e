"""RESAMPLE: the network on pixels of its own size, everything else on the grid of the earlier date."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine
from kestrel.engine import network_run
from kestrel.engine.errors import Cancelled, EngineError
from kestrel.engine.joined import joined
from kestrel.engine.network_grid import network_grid, on_network_grid
from kestrel.engine.run import run_job
from kestrel.engine.scene import open_scene
from kestrel.tests.support import pair_toys as toys
from kestrel.tests.support import rasters
from kestrel.tests.support.jobs import Recorder
from rasterio.warp import Resampling, calculate_default_transform, reproject

SIZE = 150, 180
ROLES = "before", "after"
#: Rows and columns of what was built.
BUILT = np.s_[60:96, 45:90]


def trained_on(gsd, **changes):
    """A builder of a toy that was trained on pixels of ``gsd`` m."""

    def make(params, weights, device, scene):
        task = toys.build(params, weights, device, scene, **changes)
        fields = {"gsd": (gsd / 2, gsd * 2)}
        inputs = tuple(type(each)(**{**vars(each), **fields}) for each in task.inputs)
        return type(task)(**{**vars(task), "inputs": inputs})

    return make


def write_pair(folder, place="north_up", holes=False, **profile):
    """A flat ground and one rectangle in the later date, in pixels of about 10 m."""
    before = np.full((3, *SIZE), 100, "uint8")
    before[:, ::2, ::2] = 104  # something to see
    after = before.copy()
    after[:, *BUILT] = 250
    if holes:
        before[:, :40, 130:] = 0
        before[:, 101:104, 20:23] = 0
        after[:, 120:, :31] = 0
        profile["nodata"] = 0
    return (
        rasters.write(folder / "a.tif", before, place, **profile),
        rasters.write(folder / "b.tif", after, place, **profile),
    )


def run(before, after, folder, gsd, executor=None, **fields):
    """Run a Job; return (figures, probability, columns of the polygons, events)."""
    folder.mkdir(exist_ok=True)
    outputs = {"mask": folder / "m.tif", "probability": folder / "p.tif", "polygons": folder / "c.fgb"}
    asked = toys.job(before, after, outputs, **{"threshold": 0.3, "min_area": 0, **fields})
    events = Recorder()
    outcome = run_job(asked, events, trained_on(gsd), executor=executor)
    assert sorted(path.name for path in folder.iterdir()) == ["c.fgb", "m.tif", "p.tif"]
    with rasterio.open(outputs["probability"]) as dataset:
        probability = dataset.read(1)
    meta, _, _, data = pyogrio.raw.read(outputs["polygons"])
    return outcome.figures, probability, dict(zip(meta["fields"], data, strict=True)), events


def told(events):
    return " ".join(text for _, text in events.lines)


@pytest.mark.parametrize(
    ("place", "gsd"), [("north_up", 5), ("north_up", 30), ("north_up", 7.3), ("rotated", 23), ("oblong", 20)]
)
def test_oracle_what_was_built_stays_in_place(tmp_path, place, gsd):
    before, after = write_pair(tmp_path, place)
    figures, probability, columns, events = run(before, after, tmp_path / "out", gsd, resample=True)
    assert probability.shape == SIZE
    assert (probability != -9999).all()
    grid = figures["network_grid"]
    high = {"oblong": 20}.get(place, 10)
    assert grid["pixel_m"] == pytest.approx(gsd)
    assert grid["steps_px"] == pytest.approx([gsd / 10, gsd / high], rel=1e-2)
    assert grid["size"] == pytest.approx([SIZE[1] * 10 / gsd, SIZE[0] * high / gsd], abs=0.6)
    # beyond a pixel of the coarser grid from its outline the rectangle is whole, and nothing is around it
    wide, tall = (int(np.ceil(max(1, step))) + 1 for step in grid["steps_px"])
    (top, bottom), (left, right) = ((each.start, each.stop) for each in BUILT)
    inner = probability[top + tall : bottom - tall, left + wide : right - wide]
    assert inner.min() > 0.5
    around = probability.copy()
    around[top - tall : bottom + tall, left - wide : right + wide] = 0
    assert around.max() < 0.02
    # its weight and middle are those of the rectangle
    rows, cols = np.indices(SIZE)
    assert probability.sum() == pytest.approx(inner.mean() * 36 * 45, rel=0.03)
    assert np.average(rows + 0.5, weights=probability) == pytest.approx((top + bottom) / 2, abs=0.15)
    assert np.average(cols + 0.5, weights=probability) == pytest.approx((left + right) / 2, abs=0.15)
    assert figures["count"] == 1
    assert figures["tiles_total"] > columns["tile"][0] >= 0
    assert "RESAMPLE: the network runs on" in told(events)
    assert "Pixel size is" not in told(events)
    assert "resampling" in figures["seconds"]


def test_oracle_tiles_threads_executor_and_extent_give_the_same(tmp_path):
    before, after = write_pair(tmp_path, holes=True)
    whole = run(before, after, tmp_path / "one", 7.3, resample=True)[1]
    with ThreadPoolExecutor(2) as executor:
        units = run(before, after, tmp_path / "two", 7.3, executor, resample=True)[1]
    assert (units == whole).all()
    cut = run(before, after, tmp_path / "three", 7.3, resample=True, tile=96, overlap=32)[1]
    assert cut == pytest.approx(whole, abs=1e-5)
    transform = rasters.PLACES["north_up"][1]
    (left, top), (right, bottom) = transform * (30, 50), transform * (100, 110)
    extent = [left, bottom, right, top]
    part = run(before, after, tmp_path / "four", 7.3, resample=True, extent=extent)[1]
    assert (part == whole[50:110, 30:100]).all()
    aoi = f"POLYGON(({left} {top}, {right} {top}, {left} {bottom}, {left} {top}))"
    part = run(before, after, tmp_path / "five", 7.3, resample=True, aoi_wkt=aoi)[1]
    known = part != -9999
    assert known.mean() == pytest.approx(0.5 * (whole[50:110, 30:100] != -9999).mean(), abs=0.02)
    assert (part[known] == whole[50:110, 30:100][known]).all()


@pytest.mark.parametrize("gsd", [5, 37])
def test_oracle_valid_where_both_dates_are(tmp_path, gsd):
    before, after = write_pair(tmp_path, holes=True)
    plain = run(before, after, tmp_path / "one", gsd)[1]
    figures, probability, *_ = run(before, after, tmp_path / "two", gsd, resample=True)
    assert ((probability == -9999) == (plain == -9999)).all()
    assert figures["valid_pixels"] == (plain != -9999).sum() < plain.size
    assert probability[probability != -9999].min() >= 0


def test_oracle_another_crs_is_read_from_its_file(tmp_path):
    before, after = write_pair(tmp_path)
    with rasterio.open(after) as dataset:
        transform, width, height = calculate_default_transform(
            dataset.crs, "EPSG:32632", dataset.width, dataset.height, *dataset.bounds
        )
        moved = np.zeros((3, height, width), "uint8")
        reproject(
            dataset.read(), moved, src_transform=dataset.transform, src_crs=dataset.crs, src_nodata=0,
            dst_transform=transform, dst_crs="EPSG:32632", dst_nodata=0, resampling=Resampling.bilinear,
        )  # fmt: skip
    other = rasters.write(tmp_path / "c.tif", moved, transform=transform, crs="EPSG:32632", nodata=0)
    wanted = run(before, after, tmp_path / "one", 20)[1] > 0.3
    found = run(before, other, tmp_path / "two", 20, resample=True)[1] > 0.3
    assert (wanted & found).sum() / (wanted | found).sum() > 0.9


def test_feature_shift_and_matching_go_along(tmp_path):
    scene = np.rint(toys.ground(260, 300, sigma=3)).astype("uint8")
    later = scene.copy()
    later[:, 100:140, 120:170] = 250
    before = rasters.write(tmp_path / "a.tif", scene[:, 10:250, 10:290])
    # pictures 4 pixels right of and 3 below their place, and darker
    after = rasters.write(tmp_path / "b.tif", (later[:, 7:247, 6:286] * 0.7).astype("uint8"))
    fields = {"align": "shift", "match_radiometry": True, "threshold": 0.25}
    plain, one, *_ = run(before, after, tmp_path / "one", 20, **fields)
    figures, two, *_ = run(before, after, tmp_path / "two", 20, resample=True, **fields)
    assert figures["registration"] == plain["registration"]
    assert figures["stretch"] == plain["stretch"]
    assert figures["radiometry_matched"]
    wanted, found = one > 0.25, two > 0.25
    assert (wanted & found).sum() / (wanted | found).sum() > 0.85


@pytest.mark.parametrize("gsd", [9.8, 10.3])
def test_feature_pixels_that_fit_run_as_they_are(tmp_path, gsd):
    before, after = write_pair(tmp_path)
    figures, probability, _, events = run(before, after, tmp_path / "one", gsd, resample=True)
    assert figures["network_grid"] is None
    assert "RESAMPLE has nothing to do" in told(events)
    assert (probability == run(before, after, tmp_path / "two", gsd)[1]).all()


@pytest.mark.parametrize(
    ("gsd", "place", "more", "message"),
    [
        (0.5, "north_up", {}, "more than 16 times apart"),
        (200, "north_up", {}, "more than 16 times apart"),
        (20, "no_crs", {}, "no CRS that tells how many metres"),
        (None, "north_up", {}, "names no pixel size"),
        (20, "north_up", {"smallest": 100}, r"share 90 x 75 pixels of 20 m; at least 100"),
    ],
)
def test_faults_sizes_that_do_not_fit(tmp_path, gsd, place, more, message):
    before, after = write_pair(tmp_path, place)
    outputs = {"mask": tmp_path / "m.tif", "probability": tmp_path / "p.tif"}
    make = toys.builder(**more) if gsd is None else trained_on(gsd, **more)
    with pytest.raises(EngineError, match=message):
        run_job(toys.job(before, after, outputs, resample=True), Recorder(), make)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif"]


def test_feature_smallest_ground_counts_the_networks_pixels(tmp_path):
    before, after = write_pair(tmp_path)
    outputs = {"scores": tmp_path / "s.tif"}
    make = trained_on(5, smallest=256)
    figures = run_job(toys.job(before, after, outputs, resample=True), Recorder(), make).figures
    assert min(figures["network_grid"]["size"]) >= 256 > min(SIZE)


@pytest.mark.parametrize("fault", ["cancel", "disk"])
def test_faults_nothing_is_left(tmp_path, monkeypatch, fault):
    before, after = write_pair(tmp_path)
    events = Recorder()

    def fail(*_):
        if fault == "disk":
            raise OSError(28, "No space left on device")
        events.cancel.set()

    if fault == "disk":
        monkeypatch.setattr(network_run.Scratch, "_place", fail)
    else:
        back = network_run.brought_back
        monkeypatch.setattr(network_run, "brought_back", lambda *given: (fail(), back(*given))[1])
    outputs = {"mask": tmp_path / "m.tif", "probability": tmp_path / "p.tif"}
    wanted = Cancelled if fault == "cancel" else EngineError
    with pytest.raises(wanted):
        run_job(toys.job(before, after, outputs, resample=True), events, trained_on(5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif"]


def test_oracle_a_strip_thinner_than_a_pixel_is_filled_from_near(tmp_path):
    """Held to the nearest known value by hand, in windows of any place."""
    output = network_run.Piece(0, 40, 0, 50)
    values = np.full((1, 40, 50), -9999, np.float32)
    values[0, 10:20, 10:30] = np.random.default_rng(0).random((10, 20))
    with (tmp_path / "s").open("w+b") as file:
        scratch = network_run.Scratch(tmp_path / "s", file, output, 1)
        scratch.put(output, {"scores": (values, None)})
        found, known = scratch.read_filled(0, 0, 40, 50)
        rows, cols = np.indices((40, 50))
        near = np.clip(rows, 10, 19), np.clip(cols, 10, 29)
        far = np.hypot(rows - near[0], cols - near[1])
        assert (known[0] == (far <= network_run.FILL)).all()
        assert (found[0][known[0]] == values[0][near][known[0]]).all()
        part, there = scratch.read_filled(5, 7, 9, 11)
        assert (there == known[:, 5:14, 7:18]).all()
        assert (part[there] == found[:, 5:14, 7:18][there]).all()


def test_oracle_affine_of_the_network_grid(tmp_path):
    """BEFORE's corner and turn, square pixels."""
    paths = write_pair(tmp_path, "rotated")
    scene = joined([(role, open_scene(str(path), 3)) for role, path in zip(ROLES, paths, strict=True)])
    make = trained_on(25)
    grid = network_grid(scene, make({}, "", "cpu", None), {"resample": True})
    laid = on_network_grid(scene, grid)
    wanted = rasters.PLACES["rotated"][1] * Affine.scale(2.5)
    assert laid.georef.affine.almost_equals(wanted)
    assert (laid.width, laid.height) == (72, 60)
    assert laid.georef.pixel_m(30, 30) == pytest.approx((25, 25), rel=1e-3)
