"""Raster runs under plans and areas that are easily got wrong: panels, restarts, slivers, sparse scenes."""

import errno
import functools
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kestrel.engine.errors import EngineError
from kestrel.engine.grid import plan_grid
from kestrel.engine.loop import IDLE, batches
from kestrel.engine.raster_plan import Piece, RasterPlan
from kestrel.engine.region import Region
from kestrel.engine.run import run_job
from kestrel.engine.tiles import Loaded
from kestrel.engine.windows import axis_windows
from kestrel.tests.support import raster_toys as toys
from kestrel.tests.support import rasters
from kestrel.tests.support.jobs import Recorder

X, Y = rasters.ORIGIN


def noise(height, width, bands=3, seed=0):
    return np.random.default_rng(seed).integers(1, 255, (bands, height, width), np.uint8, endpoint=True)


def holed(height, width, rng):
    """Noise with rectangles of 0 in all bands or in one."""
    image = noise(height, width, seed=int(rng.integers(2**31)))
    for _ in range(3):
        row, col, band = rng.integers(height), rng.integers(width), rng.integers(4)
        bands = slice(None) if band == 3 else slice(band, band + 1)
        image[bands, row : row + rng.integers(1, 120), col : col + rng.integers(1, 250)] = 0
    return image


def short_of_memory(image):
    """The brightest of 7 x 7, without room for tiles over 64."""
    if image.shape[1] > 64:
        raise MemoryError
    return toys.dilated(image)


def never(image):
    raise AssertionError("no tile should have run")


def test_feature_tiles_on_a_panels_seam_count_once(tmp_path):
    path = rasters.write(tmp_path / "in.tif", noise(300, 1500))
    outcome, _ = toys.run(path, tmp_path / "out.tif", memory_mb=1)
    figures = outcome.figures
    assert figures["tiles_run"] == figures["tiles_total"]
    assert figures["tiles_skipped"] == figures["tiles_nodata"] == 0


@pytest.mark.parametrize("overlap", [0, 32, 64, 100])
def test_exception_a_restart_with_smaller_tiles_needs_no_other_overlap(tmp_path, overlap):
    path = rasters.write(tmp_path / "in.tif", noise(200, 230))
    _, expected = toys.run(path, tmp_path / "one.tif", toys.builder(toys.dilated, margin=3, tile=64))
    make = toys.builder(short_of_memory, margin=3)
    outcome, out = toys.run(path, tmp_path / "out.tif", make, tile=128, overlap=overlap)
    assert any("tiles of 64" in text for text in outcome.warnings)
    assert outcome.figures["params_used"]["tile"] == 64
    assert np.array_equal(out, expected)


def test_exception_a_small_raster_restarts_with_less_than_its_own_size(tmp_path):
    path = rasters.write(tmp_path / "in.tif", noise(90, 100))
    make = toys.builder(short_of_memory, margin=3, tile=512)
    outcome, _ = toys.run(path, tmp_path / "out.tif", make)
    assert [text for text in outcome.warnings if "memory" in text] == [
        "There was not enough memory; starting again with tiles of 48 pixels."
    ]


def test_exception_units_without_room_for_their_rows(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    path = rasters.write(tmp_path / "in.tif", noise(100, 100))
    with ThreadPoolExecutor(1) as pool, pytest.raises(EngineError, match="no space left") as caught:
        toys.run(path, tmp_path / "out.tif", executor=pool)
    assert caught.value.code == "output"
    assert [file.name for file in tmp_path.iterdir()] == ["in.tif"]


def test_feature_where_polygons_of_an_area_overlap_there_is_no_hole(tmp_path):
    path = rasters.write(tmp_path / "in.tif", noise(120, 120))
    squares = [(10, 10), (40, 30)]  # columns and rows, of 50 pixels
    boxes = [
        shapely.box(X + 10 * col, Y - 10 * row - 500, X + 10 * col + 500, Y - 10 * row)
        for col, row in squares
    ]
    wkt = shapely.to_wkt(shapely.multipolygons(boxes))
    make = toys.builder(toys.constant, change=False)
    _, out = toys.run(path, tmp_path / "out.tif", make, aoi_wkt=wkt)
    wanted = np.zeros((120, 120), bool)
    for col, row in squares:
        wanted[row : row + 50, col : col + 50] = True
    assert np.array_equal(out[0] != -9999, wanted[10:80, 10:90])


@pytest.mark.parametrize("beyond", [1e-9, 1e-6])
@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_exception_an_extent_that_shares_an_edge_alone(tmp_path, side, beyond):
    """The extent of the raster next door: the same edge, but for rounding."""
    path = rasters.write(tmp_path / "in.tif", noise(200, 200))
    extent = {
        "left": [X - 500, Y - 2000, X + beyond, Y],
        "right": [X + 2000 - beyond, Y - 2000, X + 4000, Y],
        "top": [X, Y - beyond, X + 2000, Y + 500],
        "bottom": [X, Y - 4000, X + 2000, Y - 2000 + beyond],
    }[side]
    with pytest.raises(EngineError, match=r"in\.tif") as caught:
        toys.run(path, tmp_path / "out.tif", extent=extent)
    assert caught.value.code == "parameter"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.tif"]


@pytest.mark.parametrize("what", ["haze", "reference"])
def test_exception_what_only_a_restoration_has_is_refused_before_the_first_tile(tmp_path, what):
    path = rasters.write(tmp_path / "in.tif", noise(100, 100))
    asked = {"scores": tmp_path / "scores.tif"}
    fields = {"reference": path} if what == "reference" else {}
    if what == "haze":
        asked["haze"] = tmp_path / "haze.tif"
    make = toys.builder(never, kind="scores", change=False)
    with pytest.raises(EngineError, match="toy") as caught:
        run_job(toys.job(path, asked, **fields), Recorder(), make)
    assert caught.value.code == "parameter"
    assert [file.name for file in tmp_path.iterdir()] == ["in.tif"]


@pytest.mark.parametrize("size", [1, 4])
def test_property_no_batch_collects_tiles_without_data(size):
    """A sparse scene has thousands of them between two that fill a batch."""

    class Sized:
        pass

    Sized.size = size
    grid = plan_grid(640, 64 * 1000, 64, 0, 8, 0)
    filled = {0, 3, 900, 901, 902, 5000}
    tiles = [grid.at(i, j) for i in range(10) for j in range(1000)]
    image, valid = np.zeros((1, 64, 64), np.float32), np.zeros((64, 64), bool)
    loaded = (Loaded(tile, image if tile.number in filled else None, valid) for tile in tiles)
    groups = list(batches(loaded, Sized()))
    assert [item.tile for group in groups for item in group] == tiles
    for group in groups:
        images = sum(item.image is not None for item in group)
        assert images <= size
        assert len(group) <= images + IDLE


@pytest.mark.slow
def test_feature_memory_does_not_grow_with_tiles_without_data(tmp_path):
    peaks = []
    for height in (1500, 6000):
        image = np.zeros((3, height, 300), np.uint8)
        image[:, 5, 5] = 9
        path = rasters.write(tmp_path / f"{height}.tif", image, nodata=0, compress="deflate")
        del image
        tracemalloc.start()
        toys.run(path, tmp_path / "out.tif", tile=64, overlap=48, batch=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - 3 * 6000 * 300 < peaks[0] + 2_000_000  # the toy reads its output whole


def test_feature_a_hole_of_one_pixel_in_a_large_area_is_no_rectangle():
    whole = shapely.box(0, 0, 40_000, 40_000)
    jitter = shapely.transform(
        whole, lambda xy: xy + np.array([[0, 0], [0, 0], [1e-8, 0], [0, 1e-8], [0, 0]])
    )
    for shape, expected in (
        (whole, True),
        (jitter, True),
        (shapely.difference(whole, shapely.box(500, 500, 501, 501)), False),
        (shapely.box(3, 3, 4, 4), True),
    ):
        assert Region(shape, (0, 0, 40_000, 40_000)).is_rect is expected


def test_property_tiles_of_an_area_are_those_whose_weights_touch_it():
    grid = plan_grid(300, 500, 64, 16, 8, 4)
    windows = [axis_windows(n, starts, 64, 16, 4, 2) for n, starts in ((300, grid.ys), (500, grid.xs))]
    area = shapely.Polygon([(30, 20), (310, 70), (90, 260)])
    for region in (None, Region(area, (20, 30, 240, 280))):
        plan = RasterPlan(grid, 16, 2, (0, 0, 300, 500), region, *windows, 256)
        for piece in (plan.output, *plan.panels(plan.output), Piece(256, 512, 10, 30)):
            expected = []
            for i, row in enumerate(windows[0]):
                for j, col in enumerate(windows[1]):
                    inside = shapely.box(piece.left, piece.top, piece.right, piece.bottom)
                    weights = shapely.box(col.start, row.start, col.stop, row.stop)
                    near = shapely.area(shapely.intersection(inside, weights)) > 0
                    footprint = shapely.transform(weights, lambda xy: xy / 2)
                    if near and (region is None or shapely.intersects(footprint, area)):
                        expected.append(grid.at(i, j))
            tiles = plan.tiles(piece)
            assert list(tiles) == expected
            assert len(tiles) == len(expected)


def test_feature_the_tiles_of_a_huge_scene_weigh_little():
    """670 000 tiles: 200 MB as objects."""
    grid = plan_grid(100_000, 100_000, 256, 134, 8, 67)
    windows = axis_windows(100_000, grid.ys, 256, 134, 67)
    plan = RasterPlan(grid, 134, 1, (0, 0, 100_000, 100_000), None, windows, windows, 256)
    tracemalloc.start()
    tiles = plan.tiles(plan.output)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(tiles) == len(grid) > 650_000
    assert peak < 20e6


runs = st.tuples(
    st.sampled_from([(1, 300), (90, 700), (300, 60), (257, 513), (65, 129)]),
    st.sampled_from([64, 72, 128]),
    st.sampled_from([1, 2, 3]),
    st.integers(0, 2**31),
)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs)
def test_property_batches_panels_and_extents_change_nothing(tmp_path, run):
    (height, width), tile, factor, seed = run
    rng = np.random.default_rng(seed)
    path = rasters.write(tmp_path / "in.tif", holed(height, width, rng), nodata=0, photometric="RGB")
    answer = toys.dilated if factor == 1 else functools.partial(toys.enlarged, factor=factor)
    make = toys.builder(answer, change=factor == 1, factor=factor, margin=3)
    plan = {"tile": tile, "overlap": int(rng.integers(6, tile - 1))}
    _, expected = toys.run(path, tmp_path / "one.tif", make, threads=False, batch=1, **plan)
    _, out = toys.run(path, tmp_path / "out.tif", make, batch=5, memory_mb=1, **plan)
    assert np.array_equal(out, expected)

    rows, cols = (np.sort(rng.choice(size + 1, 2, replace=False)) for size in (height, width))
    bounds = [X + 10 * cols[0] + 4, Y - 10 * rows[1] + 4, X + 10 * cols[1] - 4, Y - 10 * rows[0] - 4]
    extent = [float(value) for value in bounds]  # snapped outward
    _, out = toys.run(path, tmp_path / "out.tif", make, batch=2, memory_mb=1, extent=extent, **plan)
    (top, bottom), (left, right) = rows * factor, cols * factor
    assert np.array_equal(out, expected[:, top:bottom, left:right])
