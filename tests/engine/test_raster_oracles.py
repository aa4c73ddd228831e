"""Whole raster Jobs with toys: the oracles (a) to (d), (f) and (g) of ENGINE.md, section 8."""

import hashlib

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kestrel.tests.support import raster_toys as toys
from kestrel.tests.support import rasters

TILE, OVERLAP = 64, 16
#: Under a tile, one row or column, primes, T + 1, one to three tiles, several blocks of the file.
SIZES = [(1, 1), (1, 90), (90, 1), (37, 53), (64, 64), (65, 65), (112, 113), (160, 159), (300, 281)]


def noise(height, width, bands=3, dtype="uint8", seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(1000, 200, (bands, height, width)).astype(dtype)
    return rng.integers(0, min(np.iinfo(dtype).max, 4000), (bands, height, width), endpoint=True).astype(
        dtype
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_oracle_identity_is_exact(tmp_path, size, dtype):
    image = noise(*size, dtype=dtype)
    path = rasters.write(tmp_path / "in.tif", image)
    _, out = toys.run(path, tmp_path / "out.tif", tile=TILE, overlap=OVERLAP)
    assert out.dtype == image.dtype
    assert out.tobytes() == image.tobytes()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0, 1, 16, 31, 48])
def test_oracle_constants_stay_constant(tmp_path, size, overlap):
    path = rasters.write(tmp_path / "in.tif", noise(*size))
    make = toys.builder(toys.constant, change=False, overlap=lambda _: overlap)
    _, out = toys.run(path, tmp_path / "out.tif", make, tile=TILE, overlap=overlap)
    assert out.shape == (3, *size)
    assert np.abs(out - 0.75).max() < 1e-6


def test_oracle_constants_under_4096_tiles_for_each_pixel(tmp_path):
    """The largest legal overlap: so many float32 sums that only 1e-4 is left of the 1e-6."""
    path = rasters.write(tmp_path / "in.tif", noise(75, 70))
    make = toys.builder(toys.constant, change=False, multiple=1)
    _, out = toys.run(path, tmp_path / "out.tif", make, tile=64, overlap=63)
    assert np.abs(out - 0.75).max() < 1e-4


def whole_and_tiled(tmp_path, size, answer, margin, dtype="uint8", overlap=OVERLAP, **fields):
    """Return the answer on the whole image at once, and what the engine makes of tiles."""
    image = noise(*size, dtype=dtype)
    path = rasters.write(tmp_path / "in.tif", image)
    make = toys.builder(answer, change=False, margin=margin)
    _, tiled = toys.run(path, tmp_path / "out.tif", make, tile=TILE, overlap=overlap, **fields)
    return answer(image.astype(np.float32) / np.float32(255)), tiled


@pytest.mark.parametrize("size", [s for s in SIZES if min(s) >= 64])
@pytest.mark.parametrize("overlap", [2, 16, 40])
def test_oracle_a_convolution_in_tiles_is_the_convolution(tmp_path, size, overlap):
    whole, tiled = whole_and_tiled(tmp_path, size, toys.convolved, margin=1, overlap=overlap)
    np.testing.assert_allclose(tiled, whole, atol=1e-6)


@pytest.mark.parametrize("size", [(37, 53), (1, 90), (63, 64)])
def test_oracle_a_convolution_under_a_tile_needs_the_padding_alone(tmp_path, size):
    # the tile is padded by reflection, where the whole image ends: only that edge may differ
    whole, tiled = whole_and_tiled(tmp_path, size, toys.convolved, margin=1)
    inner = [slice(0, n if n % 8 == 0 else n - 1) for n in size]
    np.testing.assert_allclose(tiled[:, inner[0], inner[1]], whole[:, inner[0], inner[1]], atol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [{"tile": 64, "overlap": 6}, {"tile": 128, "overlap": 30}, {"tile": 72, "overlap": 71 - 8}, {"batch": 3}],
)
@pytest.mark.parametrize("threads", [True, False])
def test_oracle_a_finite_reach_gives_one_result(tmp_path, fields, threads):
    image = noise(200, 170)
    path = rasters.write(tmp_path / "in.tif", image)
    make = toys.builder(toys.dilated, margin=3)
    _, reference = toys.run(path, tmp_path / "one.tif", make, tile=256, overlap=6)
    _, out = toys.run(path, tmp_path / "out.tif", make, threads=threads, **fields)
    assert np.array_equal(out, reference)


def test_oracle_threads_and_panels_give_the_same_bytes(tmp_path):
    image = noise(700, 900, dtype="uint16")
    path = rasters.write(tmp_path / "in.tif", image)
    files = []
    for number, fields in enumerate([{}, {"threads": False}, {"memory_mb": 1}]):
        out = tmp_path / f"{number}.tif"
        _, pixels = toys.run(path, out, toys.builder(toys.convolved, margin=1), **fields)
        files.append((pixels, hashlib.sha256(out.read_bytes()).hexdigest()))
    assert np.array_equal(files[0][0], files[2][0])
    assert not np.array_equal(files[0][0], image)
    assert files[0][1] == files[1][1]


@pytest.mark.parametrize("shift", [(0, 48), (48, 0), (96, 48)])
def test_oracle_a_moved_raster_gives_a_moved_result(tmp_path, shift):
    big = noise(400, 400)
    make = toys.builder(toys.convolved, margin=1, change=False)
    results = []
    for number, (row, col) in enumerate([(0, 0), shift]):
        path = rasters.write(tmp_path / f"{number}.tif", big[:, row : row + 256, col : col + 256])
        results.append(toys.run(path, tmp_path / f"out{number}.tif", make, tile=64, overlap=16)[1])
    row, col = shift
    both = results[0][:, row + 2 : 254, col + 2 : 254], results[1][:, 2 : 254 - row, 2 : 254 - col]
    np.testing.assert_allclose(*both, atol=1e-6)


@pytest.mark.parametrize("axis", [1, 2])
def test_oracle_flips_commute(tmp_path, axis):
    image = noise(150, 170)
    make = toys.builder(toys.convolved, margin=1, change=False)
    results = []
    for number, picture in enumerate([image, np.flip(image, axis)]):
        path = rasters.write(tmp_path / f"{number}.tif", np.ascontiguousarray(picture))
        results.append(toys.run(path, tmp_path / f"out{number}.tif", make)[1])
    np.testing.assert_allclose(np.flip(results[1], axis), results[0], atol=1e-6)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_oracle_a_larger_scale_is_blended_on_its_own_grid(tmp_path, factor):
    image = noise(130, 150)
    path = rasters.write(tmp_path / "in.tif", image, "rotated")
    import functools

    make = toys.builder(
        functools.partial(toys.enlarged, factor=factor), change=False, factor=factor, margin=4
    )
    _, out = toys.run(path, tmp_path / "out.tif", make)
    whole = (image / np.float32(255)).repeat(factor, axis=1).repeat(factor, axis=2)
    np.testing.assert_allclose(out, whole, atol=1e-6)
    with rasterio.open(path) as before, rasterio.open(tmp_path / "out.tif") as after:
        for corner in ((0, 0), (150, 0), (150, 130)):
            there = before.transform * corner
            np.testing.assert_allclose(after.transform * (corner[0] * factor, corner[1] * factor), there)
        assert after.crs == before.crs


def test_oracle_scores_and_classes(tmp_path):
    image = noise(150, 140)
    path = rasters.write(tmp_path / "in.tif", image)
    make = toys.builder(toys.shares, kind="scores", change=False, outputs=("water", "wood", "rest"))
    outputs = {"scores": tmp_path / "scores.tif", "classes": tmp_path / "classes.tif"}
    from kestrel.engine.run import run_job
    from kestrel.tests.support.jobs import Recorder

    run_job(toys.job(path, outputs), Recorder(), make)
    whole = toys.shares(image.astype(np.float32) / np.float32(255))
    with rasterio.open(outputs["scores"]) as scores, rasterio.open(outputs["classes"]) as classes:
        np.testing.assert_allclose(scores.read(), whole, atol=1e-6)
        assert scores.descriptions == ("water", "wood", "rest")
        assert classes.dtypes == ("uint8",)
        assert np.array_equal(classes.read(1), whole.argmax(axis=0))


def test_feature_no_seam_on_a_smooth_raster(tmp_path):
    """A tone that differs between tiles is blended away: no step over 1 DN anywhere."""
    rows, cols = np.mgrid[:600, :600]
    smooth = (60 + 0.1 * rows + 0.1 * cols).astype(np.uint8)
    path = rasters.write(tmp_path / "in.tif", np.stack([smooth] * 3))

    make = toys.builder(toned, tile=256, overlap=lambda _: 64)
    _, out = toys.run(path, tmp_path / "out.tif", make)
    steps = [np.abs(np.diff(out.astype(int), axis=axis)).max() for axis in (1, 2)]
    before = [np.abs(np.diff(smooth.astype(int), axis=axis)).max() for axis in (0, 1)]
    assert max(steps) <= max(before) + 1
    assert np.abs(out.astype(int) - smooth).max() > 3  # the tones are there


def toned(image):
    """Shift the tone by the tile's own mean: what global context does to tiles."""
    return image + (image.mean() - np.float32(0.5)) * np.float32(0.2)


areas = st.tuples(st.integers(0, 199), st.integers(0, 149), st.integers(1, 120), st.integers(1, 120))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(areas)
def test_property_an_extent_gives_that_window_of_the_full_run(tmp_path, area):
    row, col, height, width = area
    height, width = min(height, 200 - row), min(width, 150 - col)
    image = noise(200, 150)
    path = rasters.write(tmp_path / "in.tif", image)
    make = toys.builder(toys.dilated, margin=3)
    full = tmp_path / "full.tif"
    if not full.exists():
        toys.run(path, full, make)
    with rasterio.open(full) as dataset:
        whole = dataset.read()
        x, y = dataset.transform * (col, row + height)
        extent = [x, y, x + 10 * width, y + 10 * height]
        wanted = dataset.transform * (col, row)
    _, out = toys.run(path, tmp_path / "part.tif", make, extent=extent)
    assert np.array_equal(out, whole[:, row : row + height, col : col + width])
    with rasterio.open(tmp_path / "part.tif") as dataset:
        np.testing.assert_allclose(dataset.transform * (0, 0), wanted)


def test_feature_outside_a_polygon_the_input_stays(tmp_path):
    image = noise(200, 200)
    path = rasters.write(tmp_path / "in.tif", image)
    x, y = rasters.ORIGIN
    corners = [(x + 300, y - 200), (x + 1500, y - 900), (x + 500, y - 1700), (x + 300, y - 200)]
    wkt = "POLYGON((" + ", ".join(f"{a} {b}" for a, b in corners) + "))"
    make = toys.builder(toys.constant)
    _, out = toys.run(path, tmp_path / "out.tif", make, aoi_wkt=wkt, crs_wkt="EPSG:32633")
    from rasterio.features import rasterize

    with rasterio.open(tmp_path / "out.tif") as dataset:
        row, col = 20, 30
        assert (dataset.height, dataset.width) == (150, 120)
        assert dataset.transform.c == x + 300
        inside = rasterize(
            [({"type": "Polygon", "coordinates": [corners]}, 1)], (150, 120), transform=dataset.transform
        ).astype(bool)
    part = image[:, row : row + 150, col : col + 120]
    assert np.array_equal(out[:, ~inside], part[:, ~inside])
    assert (out[:, inside] == round(0.75 * 255)).all()
