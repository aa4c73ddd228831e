"""The scratch layer: fields, order, nulls, CRS, and errors while writing."""

import numpy as np
import pyogrio
import pytest
from kestrel.engine.attributes import measure
from kestrel.engine.boxes import empty
from kestrel.engine.drivers import gdal_env, open_dataset
from kestrel.engine.errors import EngineError
from kestrel.engine.features import FIELDS, box_features, write_features
from kestrel.engine.georef import GEOD, read_georef
from kestrel.tests.support import rasters
from kestrel.tests.support.jobs import read


def georef(tmp_path, place):
    path = rasters.write(tmp_path / "a.tif", np.ones((50, 50), np.uint8), place)
    with gdal_env(), open_dataset(path) as dataset:
        return read_georef(dataset)


def some(count, rng):
    boxes = empty()
    low = rng.uniform(0, 1000, (count, 2))
    names = ("score", "tile", "cls", "edge", "xyxy")
    values = (rng.uniform(0, 1, count), np.arange(count), np.zeros(count, int), rng.random(count) > 0.5,
              np.concatenate([low, low + rng.uniform(5, 50, (count, 2))], axis=1))  # fmt: skip
    for name, value in zip(names, values, strict=True):
        object.__setattr__(boxes, name, value)
    return boxes


@pytest.mark.parametrize("place", ["north_up", "rotated", "degrees", "no_crs", "bare"])
def test_save_load_keeps_order_values_and_nulls(tmp_path, place):
    where = georef(tmp_path, place)
    boxes = some(500, np.random.default_rng(0))
    features = box_features(boxes, measure(boxes.xyxy, where), ("ship",), "toy@1")
    path = tmp_path / "boxes.fgb"
    write_features(path, features, where)
    found = read(path)
    assert list(found)[1:] == list(FIELDS)
    assert found["id"].tolist() == list(range(1, 501))
    for name in FIELDS:
        same = np.array_equal(found[name], features.columns[name], equal_nan=found[name].dtype.kind == "f")
        assert same, name
    info = pyogrio.read_info(path)
    assert bool(info["crs"]) == (where.crs is not None)
    nulls = len(pyogrio.raw.read(path, where="lon IS NULL AND long_m IS NULL")[2])
    assert nulls == (0 if where.earth else 500)
    assert dict(zip(info["fields"], info["dtypes"], strict=True))["edge"] == "bool"


def test_save_load_nothing(tmp_path):
    where = georef(tmp_path, "north_up")
    features = box_features(empty(), measure(empty().xyxy, where), ("ship",), "toy")
    write_features(tmp_path / "boxes.fgb", features, where)
    info = pyogrio.read_info(tmp_path / "boxes.fgb", force_feature_count=True)
    assert info["features"] == 0
    assert list(info["fields"]) == list(FIELDS)
    assert info["geometry_type"] == "Polygon"
    assert info["crs"] == "EPSG:32633"


def test_exception_folder_that_is_not_there(tmp_path):
    where = georef(tmp_path, "north_up")
    features = box_features(empty(), measure(empty().xyxy, where), ("ship",), "toy")
    with pytest.raises(EngineError, match="cannot be written"):
        write_features(tmp_path / "none" / "boxes.fgb", features, where)


def test_oracle_sides_and_area_against_great_circles(tmp_path):
    # rotated by 30 degrees: sides must be those of the unrotated box, not of its bounds
    where, plain = georef(tmp_path, "rotated"), georef(tmp_path, "north_up")
    boxes = np.array([[0.0, 0, 40, 8]])
    a, b = measure(boxes, where), measure(boxes, plain)
    assert a.long_m == pytest.approx(b.long_m, rel=1e-6)
    assert a.short_m == pytest.approx(b.short_m, rel=1e-6)
    assert a.area_m2 == pytest.approx(a.long_m * a.short_m, rel=1e-5)
    ends = where.to_lonlat(where.to_layer(np.array([[0.0, 4], [40, 4]])))
    assert a.long_m == pytest.approx(GEOD.inv(*ends[0], *ends[1])[2])


def test_feature_metres_of_a_mercator_raster_are_not_its_units(tmp_path):
    path = rasters.write(tmp_path / "a.tif", np.ones((50, 50), np.uint8), crs="EPSG:3857",
                         transform=rasters.PLACES["north_up"][1].translation(1_669_792, 8_399_738)
                         * rasters.PLACES["north_up"][1].scale(10, -10))  # fmt: skip
    with gdal_env(), open_dataset(path) as dataset:
        where = read_georef(dataset)
    found = measure(np.array([[0.0, 0, 40, 8]]), where)
    # 60 degrees north: half of the units are ground
    assert found.long_m == pytest.approx(200, rel=0.01)
    assert found.short_m == pytest.approx(40, rel=0.01)
