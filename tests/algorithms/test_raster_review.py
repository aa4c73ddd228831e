"""No stub: what a user met who tried kestrel:dehazedarkchannel on rasters of every kind."""

import sys

import processing
import pytest
from kestrel.tests.support.algorithm_tools import ORIGIN
from kestrel.tests.support.raster_tools import hazy_raster
from osgeo import gdal

DEHAZE = "kestrel:dehazedarkchannel"
SIDE = 120


@pytest.fixture(autouse=True)
def real_worker(provider, monkeypatch, tmp_path):
    monkeypatch.setenv("KESTREL_PYTHON", sys.executable)
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))


def test_an_extent_askew_to_the_pixels_leaves_no_hazy_corner(tmp_path):
    """Its bounds in pixels are the output, and all of that equals the same part of a whole run."""
    turned = (ORIGIN[0], 8.0, 6.0, ORIGIN[1], 6.0, -8.0)
    path = hazy_raster(tmp_path / "turned.tif", width=SIDE, height=SIDE, transform=turned)
    x, y = gdal.ApplyGeoTransform(turned, SIDE / 2, SIDE / 2)
    part = f"{x - 150},{x + 150},{y - 150},{y + 150} [EPSG:32630]"
    for name, more in (("whole", {}), ("part", {"EXTENT": part})):
        output = str(tmp_path / f"{name}.tif")
        processing.run(DEHAZE, {"INPUT": path, "OUTPUT": output, "PATCH": 3, **more})
    whole, found = gdal.Open(str(tmp_path / "whole.tif")), gdal.Open(str(tmp_path / "part.tif"))
    transform = found.GetGeoTransform()
    inverse = gdal.InvGeoTransform(turned)
    column, row = (round(value) for value in gdal.ApplyGeoTransform(inverse, transform[0], transform[3]))
    size = found.RasterXSize, found.RasterYSize
    assert 0 < column < SIDE - size[0]
    assert found.ReadRaster() == whole.ReadRaster(column, row, *size)
    assert found.ReadRaster() != gdal.Open(path).ReadRaster(column, row, *size)
