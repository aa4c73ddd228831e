"""Pixels to the ground and back: every kind of georeference against its own definition."""

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from kestrel.engine.drivers import gdal_env, open_dataset
from kestrel.engine.errors import EngineError
from kestrel.engine.georef import read_georef
from kestrel.engine.scene import open_scene
from kestrel.tests.support import rasters
from pyproj import Transformer
from rasterio.control import GroundControlPoint

IMAGE = np.ones((60, 80), np.uint8)
PIXELS = np.array([[0, 0], [80, 0], [80, 60], [0, 60], [12.25, 40.5]])


def georef(path):
    with gdal_env(), open_dataset(path) as dataset:
        return read_georef(dataset)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("georef")
    return {name: georef(rasters.write(folder / f"{name}.tif", IMAGE, name)) for name in rasters.PLACES}


@pytest.mark.parametrize("name", [n for n in rasters.PLACES if n != "bare"])
def test_oracle_affine_places(place, name):
    expected = [rasters.PLACES[name][1] * tuple(p) for p in PIXELS]
    assert np.allclose(place[name].to_layer(PIXELS), expected, rtol=0, atol=1e-6)


@given(st.sampled_from(sorted(rasters.PLACES)), st.floats(0, 80), st.floats(0, 60))
def test_property_to_pixel_undoes_to_layer(place, name, x, y):
    back = place[name].to_pixel(place[name].to_layer(np.array([[x, y]])))
    assert np.allclose(back, [[x, y]], rtol=0, atol=1e-5)


def test_feature_bare_raster_lies_as_qgis_shows_it(place):
    assert place["bare"].kind == "none"
    assert place["bare"].to_layer(np.array([[3.0, 5.0]])).tolist() == [[3, -5]]
    assert "Layer has no CRS" in place["bare"].notes[0]
    assert place["bare"].to_lonlat(np.array([[3.0, 5.0]])) is None


@pytest.mark.parametrize("side", [2, 5])
@pytest.mark.parametrize("name", ["north_up", "rotated"])
def test_oracle_gcps_lead_to_the_same_places_as_the_affine_they_follow(tmp_path, place, side, name):
    found = georef(rasters.write_gcps(tmp_path / "gcp.tif", IMAGE, rasters.gcps(60, 80, name, side)))
    assert found.kind == "gcp"
    assert found.crs.to_epsg() == 4326
    expected = place[name].to_lonlat(place[name].to_layer(PIXELS))
    # 1e-6 degrees are a hundredth of a pixel; four points make an affine of degrees, which UTM is not
    assert np.allclose(found.to_layer(PIXELS), expected, rtol=0, atol=1e-6)
    assert np.allclose(found.to_pixel(found.to_layer(PIXELS)), PIXELS, rtol=0, atol=1e-2)
    assert found.pixel_m(40, 30) == pytest.approx((10.004, 10.004), abs=0.01)


def test_feature_gcps_across_the_antimeridian_are_one_range(tmp_path):
    points = rasters.gcps(60, 80)
    for point in points:
        point.x += 180 - 15.005  # the scene's middle is at 15.005 degrees east
        point.x -= 360 * (point.x > 180)
    assert min(p.x for p in points) < 0 < max(p.x for p in points)
    found = georef(rasters.write_gcps(tmp_path / "gcp.tif", IMAGE, points))
    x = found.to_layer(PIXELS)[:, 0]
    assert x.max() - x.min() < 0.02
    lon = found.to_lonlat(found.to_layer(PIXELS))[:, 0]
    assert (np.abs(lon) <= 180).all()
    assert found.pixel_m(40, 30) == pytest.approx((10.004, 10.004), abs=0.01)


def test_feature_rpc_only_warns_and_places(tmp_path):
    rpcs = rasterio.rpc.RPC(
        height_off=0, height_scale=500, lat_off=45, lat_scale=0.05, line_off=30, line_scale=30,
        line_num_coeff=[0, 0, -1] + [0] * 17, line_den_coeff=[1] + [0] * 19,
        long_off=15, long_scale=0.05, samp_off=40, samp_scale=40,
        samp_num_coeff=[0, 1] + [0] * 18, samp_den_coeff=[1] + [0] * 19,
    )  # fmt: skip
    path = tmp_path / "rpc.tif"
    with rasterio.open(path, "w", driver="GTiff", count=1, height=60, width=80, dtype="uint8") as dataset:
        dataset.write(IMAGE, 1)
        dataset.rpcs = rpcs
    found = georef(path)
    assert found.kind == "rpc"
    assert "RPC only" in found.notes[0]
    # sample 40 and line 30 are the offsets; RPC counts from pixel centres
    assert np.allclose(found.to_layer(np.array([[40.5, 30.5]])), [[15, 45]], atol=1e-6)
    assert np.allclose(found.to_layer(np.array([[80.5, 60.5]])), [[15.05, 44.95]], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("north_up", (10.004, 10.004)), ("rotated", (10.004, 10.004)), ("south_up", (10.004, 10.004)),
     ("oblong", (10.004, 20.008))],
)  # fmt: skip
def test_feature_pixel_size_is_measured_on_the_ground(place, name, expected):
    # UTM's scale on the central meridian is 0.9996, so 10 m of the grid are 10.004 m of ground
    assert place[name].pixel_m(40, 30) == pytest.approx(expected, abs=1e-3)


def test_feature_pixel_size_in_degrees(place):
    per_lon, per_lat = rasters.metres_per_degree(45.0)
    assert place["degrees"].pixel_m(0, 0) == pytest.approx((per_lon * 1e-4, per_lat * 1e-4), rel=1e-4)


def test_feature_local_crs_keeps_geometry_but_has_no_metres(tmp_path):
    local = 'LOCAL_CS["site grid",UNIT["metre",1]]'
    found = georef(rasters.write(tmp_path / "local.tif", IMAGE, "north_up", crs=local))
    assert not found.earth
    assert "local CRS" in found.notes[0]
    assert found.pixel_m(1, 1) is None
    assert found.to_layer(np.array([[0.0, 0.0]])).tolist() == [list(rasters.ORIGIN)]


def test_oracle_lonlat_agrees_with_proj(place):
    to_lonlat = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    layer = place["rotated"].to_layer(PIXELS)
    expected = np.column_stack(to_lonlat.transform(layer[:, 0], layer[:, 1]))
    assert np.allclose(place["rotated"].to_lonlat(layer), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spots", [[(0, 0)], [(0, 0), (50, 50), (100, 100)], [(7, 7)] * 4])
def test_exception_control_points_that_fix_no_place(tmp_path, spots):
    points = [GroundControlPoint(row=r, col=c, x=15 + c * 1e-4, y=45 - r * 1e-4, z=0) for r, c in spots]
    path = rasters.write_gcps(tmp_path / "a.tif", rasters.sea(100, 100, []), points)
    with pytest.raises(EngineError, match=r"ground control points of a.tif do not place its pixels"):
        open_scene(str(path), 1)
