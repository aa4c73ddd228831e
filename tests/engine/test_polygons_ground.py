"""Polygons on the ground: the full affine, ellipsoidal areas, metric frames, tiles."""

import math

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from kestrel.engine.drivers import gdal_env, open_dataset
from kestrel.engine.georef import read_georef
from kestrel.engine.grid import plan_grid
from kestrel.engine.polygons import Polygoniser, gather
from kestrel.engine.polygons_ground import frames, measure, min_pixels, tiles_of, to_layer
from kestrel.tests.support import rasters
from rasterio import features

#: WGS84
A, E2 = 6_378_137.0, 0.0066943799901413165


def georef(tmp_path, place="north_up", **profile):
    path = rasters.write(tmp_path / "a.tif", np.ones((50, 50), np.uint8), place, **profile)
    with gdal_env(), open_dataset(path) as dataset:
        return read_georef(dataset)


def degrees(tmp_path, west, north, step):
    path = tmp_path / "degrees.tif"
    transform = Affine(step, 0, west, 0, -step, north)
    rasters.write(path, np.ones((5, 5), np.uint8), "degrees")
    with rasterio.open(path, "r+") as dataset:
        dataset.transform = transform
    with gdal_env(), open_dataset(path) as dataset:
        return read_georef(dataset)


def cell_area(west, south, east, north):
    """Area between parallels and meridians on the ellipsoid, in closed form."""
    e = math.sqrt(E2)

    def q(latitude):
        s = math.sin(math.radians(latitude))
        return s / (1 - E2 * s * s) + math.log((1 + e * s) / (1 - e * s)) / (2 * e)

    return A * A * (1 - E2) / 2 * math.radians(east - west) * (q(north) - q(south))


@pytest.mark.parametrize("place", list(rasters.PLACES))
def test_fault_polygons_by_the_full_affine(tmp_path, place):
    """Rotated, sheared, south-up, oblong: the same ground as GDAL's polygons with that transform."""
    where = georef(tmp_path, place)
    mask = (np.random.default_rng(0).random((40, 30)) < 0.5).astype(np.uint8)
    polygoniser = Polygoniser(30)
    found = gather([polygoniser.put(0, mask[:17]), polygoniser.put(17, mask[17:]), polygoniser.finish()])
    ours = shapely.union_all(shapely.make_valid(to_layer(found.polygons, where)))
    shapes = features.shapes(mask, mask=mask == 1, transform=where.affine)
    theirs = shapely.union_all([shapely.make_valid(shapely.geometry.shape(shape)) for shape, _ in shapes])
    assert shapely.area(ours ^ theirs) <= 1e-6 * theirs.area
    area, length = measure(found.polygons, where)
    if not where.earth:
        assert np.isnan(area).all()
        assert np.isnan(length).all()
    elif place != "degrees":
        # on the central meridian UTM is 0.9996 times too short
        planar = shapely.area(to_layer(found.polygons, where))
        assert np.allclose(area, planar / 0.9996**2, rtol=1e-5)
        assert np.allclose(length, shapely.length(to_layer(found.polygons, where)) / 0.9996, rtol=1e-5)


@pytest.mark.parametrize(("west", "north"), [(15.0, 45.0), (179.9, 10.0), (-60.0, -70.0), (0.0, 0.5)])
def test_fault_area_in_degrees_is_the_ellipsoids(tmp_path, west, north):
    """Against the closed form, across the antimeridian too; holes are taken away, and outlined."""
    where = degrees(tmp_path, west, north, 1e-3)
    outer, hole = shapely.box(0, 0, 300, 200), shapely.box(100, 50, 110, 60)
    area, length = measure(np.array([outer, outer - hole, hole], object), where)
    assert area[0] == pytest.approx(cell_area(west, north - 0.2, west + 0.3, north), rel=5e-7)
    assert area[1] == pytest.approx(area[0] - area[2], rel=1e-12)
    assert length[1] == pytest.approx(length[0] + length[2], rel=1e-12)
    assert area[2] == pytest.approx(cell_area(west + 0.1, north - 0.06, west + 0.11, north - 0.05), rel=5e-7)


@pytest.mark.parametrize("place", list(rasters.PLACES))
def test_feature_frames_are_metres_on_the_ground(tmp_path, place):
    where = georef(tmp_path, place)
    points = np.array([[10.5, 20.5], [40.5, 3.5]])
    local = frames(points, where)
    pixels = shapely.box(*(points - 0.5).T, *(points + 0.5).T)
    area, _ = measure(pixels, where)
    expected = area if where.earth else shapely.area(to_layer(pixels, where))
    assert np.allclose(local.pixel_area, expected, rtol=1e-6)
    there = local.to_metres(pixels)
    assert np.allclose(shapely.area(there), local.pixel_area)
    back = local.to_pixels(there)
    assert np.allclose(shapely.get_coordinates(back), shapely.get_coordinates(pixels), atol=1e-9)


@pytest.mark.parametrize("place", ["north_up", "degrees", "bare"])
def test_feature_least_pixels_never_drop_an_object_that_is_large_enough(tmp_path, place):
    where = georef(tmp_path, place)
    height, width = 60_000, 1000  # 6 degrees of latitude: pixels differ by a tenth
    least = min_pixels(50_000.0, where, height, width)
    x, y = np.random.default_rng(5).uniform(0, [[width], [height]], (2, 200))
    count = 50_000.0 / frames(np.column_stack([x, y]), where).pixel_area
    assert (least <= count).all()
    assert least > 0.7 * count.min()


@pytest.mark.parametrize(("height", "width"), [(700, 1000), (200, 600), (256, 256), (257, 256)])
def test_feature_tile_is_the_one_with_the_nearest_middle(height, width):
    grid = plan_grid(height, width, 256, 64, 16, 0)
    points = np.random.default_rng(6).uniform(0, [width, height], (300, 2))
    found = tiles_of(points, grid)
    for (x, y), number in zip(points, found, strict=True):
        seen = grid.touching(x, y, x + 1e-9, y + 1e-9)
        off = [(abs(t.row + t.height / 2 - y), abs(t.col + t.width / 2 - x), t.number) for t in seen]
        assert number == min(off, key=lambda o: (o[0], o[1]))[2]


def test_exception_looking_stops_a_measurement(tmp_path):
    calls = []

    def look():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    many = np.full(2500, shapely.box(0, 0, 1, 1), object)
    with pytest.raises(KeyboardInterrupt):
        measure(many, georef(tmp_path), look)
