"""A raster on another grid: held to GDAL's WarpedVRT, window by window the same."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from kestrel.engine.georef import read_georef
from kestrel.engine.resample import FRACTION, positions, resample, scale_of
from kestrel.tests.support import pair_toys, rasters
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform

SIZE = (180, 210)


def source(tmp_path, place="north_up", **profile):
    image = pair_toys.ground(*SIZE, 2).astype("float32")
    return rasters.write(tmp_path / f"{place}.tif", image, place, **profile)


def georef(tmp_path, crs, transform, size):
    path = tmp_path / "grid.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=size[0], width=size[1], dtype="uint8", crs=crs,
        transform=transform,
    ):  # fmt: skip
        pass
    with rasterio.open(path) as dataset:
        return read_georef(dataset)


def ours(path, grid, start, shape, samples=(1, 1)):
    with rasterio.open(path) as dataset:

        def read(row, col, height, width):
            values = dataset.read(window=((row, row + height), (col, col + width)))
            return values, np.isfinite(values)

        return resample(read, read_georef(dataset), dataset.shape, grid, start, shape, samples)


@pytest.mark.parametrize("place", ["north_up", "rotated", "degrees", "south_up", "oblong"])
def test_feature_values_are_those_of_a_warped_vrt(tmp_path, place):
    path = source(tmp_path, place)
    with rasterio.open(path) as dataset:
        crs = CRS.from_epsg(32632)
        transform, width, height = calculate_default_transform(
            dataset.crs, crs, dataset.width, dataset.height, *dataset.bounds
        )
        with WarpedVRT(
            dataset, crs=crs, transform=transform, width=width, height=height, nodata=np.nan, tolerance=1e-6,
            resampling=Resampling.bilinear, XSCALE="1", YSCALE="1",
        ) as vrt:  # fmt: skip
            expected = vrt.read()
    found, there = ours(path, georef(tmp_path, crs, transform, (height, width)), (0, 0), (height, width))
    both = np.isfinite(expected[0]) & there[0]
    assert both.mean() > 0.4
    assert (np.isfinite(expected[0]) ^ there[0]).mean() < 0.01  # the outline, of whole pixels
    steps = np.abs(np.diff(expected, axis=2))
    # as exact as positions: about a thousandth of the step between two pixels
    assert np.abs(found - expected)[:, both].mean() < 0.002 * steps[np.isfinite(steps)].mean()


def test_oracle_a_window_is_its_part_of_the_whole(tmp_path):
    path = source(tmp_path)
    x, y = Transformer.from_crs(32633, 32632, always_xy=True).transform(*rasters.ORIGIN)
    transform = Affine(9.7, 0, x - 500, 0, -9.7, y + 500)
    grid = georef(tmp_path, CRS.from_epsg(32632), transform, (300, 300))
    whole, valid = ours(path, grid, (0, 0), (300, 300))
    assert 0.1 < valid.mean() < 1
    for row, col, height, width in ((13, 40, 100, 90), (150, 7, 33, 250), (64, 64, 64, 64)):
        part = ours(path, grid, (row, col), (height, width))
        where = np.s_[:, row : row + height, col : col + width]
        if part is None:
            assert not valid[where].any()
            continue
        assert np.array_equal(part[1], valid[where])
        assert np.array_equal(part[0], whole[where])


@pytest.mark.parametrize("epsg", [32632, 4326, 3857])
def test_feature_positions_between_knots_are_exact_ones(tmp_path, epsg):
    path = source(tmp_path)
    with rasterio.open(path) as dataset:
        place = read_georef(dataset)
        to = Transformer.from_crs(32633, epsg, always_xy=True)
        x, y = to.transform(*(dataset.transform * (20, 30)))
    step = 1e-4 if epsg == 4326 else 10
    grid = georef(tmp_path, CRS.from_epsg(epsg), Affine(step, 0, x, 0, -step, y), (100, 100))
    found = positions(place, SIZE, grid, (3, 5), (90, 80))
    row, col = np.mgrid[3:93, 5:85] + 0.5
    layer = np.column_stack(Transformer.from_crs(epsg, 32633, always_xy=True).transform(
        x + step * col.ravel(), y - step * row.ravel()
    ))  # fmt: skip
    exact = place.to_pixel(layer)[:, ::-1].T.reshape(found.shape)
    assert np.abs(found - exact).max() < 1e-4 + 0.5 / FRACTION


def test_feature_a_pixel_has_data_where_its_centre_has(tmp_path):
    image = np.arange(36, dtype="float32").reshape(1, 6, 6)
    image[0, 2, 3] = np.nan
    path = rasters.write(tmp_path / "a.tif", image)
    with rasterio.open(path) as dataset:
        place = read_georef(dataset)
    found, there = ours(path, place, (0.25, 0.25), (6, 6))
    expected = np.isfinite(image[0])
    assert np.array_equal(there[0], expected)  # 0.25 of a pixel leads into no other
    # 0.75 and 0.25 of the neighbours; without the invalid one (2, 3) beside (2, 2) the weights are 9, 3, 1
    assert found[0, 0, 0] == pytest.approx(0.25 * 1 + 0.25 * 6)
    assert found[0, 2, 2] == pytest.approx((9 * 14 + 3 * 20 + 1 * 21) / 13)
    assert found[0, 2, 3] == 0


def test_feature_a_finer_source_is_averaged(tmp_path):
    image = np.random.default_rng(0).uniform(0, 100, (1, 80, 80)).astype("float32")
    path = rasters.write(tmp_path / "a.tif", image)
    with rasterio.open(path) as dataset:
        place = read_georef(dataset)
        grid = georef(tmp_path, dataset.crs, dataset.transform * Affine.scale(4), (20, 20))
    assert scale_of(place, (80, 80), grid, (0, 0)) == (4, 4)
    found, there = ours(path, grid, (0, 0), (20, 20), (4, 4))
    assert there.all()
    assert found[0] == pytest.approx(image.reshape(20, 4, 20, 4).mean(axis=(1, 3)), abs=1e-4)


def test_property_longitudes_a_turn_apart_are_one_place(tmp_path):
    image = pair_toys.ground(40, 40, 1).astype("float32")
    path = rasters.write(tmp_path / "a.tif", image, "degrees")
    with rasterio.open(path) as dataset:
        moved = Affine.translation(-360 + 0.3e-4, 0) * dataset.transform
        grid = georef(tmp_path, dataset.crs, moved, (40, 40))
    found, there = ours(path, grid, (0, 0), (40, 40))
    assert there[0, :, :39].all()
    expected = 0.7 * image[0, :, :-1] + 0.3 * image[0, :, 1:]
    assert found[0, :, :39] == pytest.approx(expected, abs=0.05)


def test_exception_nothing_in_reach_is_none(tmp_path):
    path = source(tmp_path)
    with rasterio.open(path) as dataset:
        place = read_georef(dataset)
    assert ours(path, place, (500, 0), (10, 10)) is None
