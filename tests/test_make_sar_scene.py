"""The simulated scene as a file: georeference, units, truth and land in map coordinates."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from kestrel.scripts.make_sar_scene import make_scene, scene_transform
from rasterio.features import rasterize

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"seed": 3, "height": 160, "width": 200, "ships": 6}


def test_raster_says_that_it_is_simulated(tmp_path):
    made = make_scene(tmp_path / "s.tif", **SMALL)
    with rasterio.open(made.path) as raster:
        assert raster.shape == (160, 200)
        assert raster.dtypes == ("uint16",)
        assert raster.crs.to_epsg() == 32631
        assert raster.transform == Affine(10, 0, 465_000, 0, -10, 5_760_000)
        assert raster.descriptions[0].startswith("simulated")
        assert raster.tags()["SIMULATED"] == "YES"
        assert "not a measurement" in raster.tags()["TIFFTAG_IMAGEDESCRIPTION"]


@pytest.mark.parametrize(
    ("kind", "to_amplitude", "step"),
    [("uint16", lambda v: v / 1000, 6e-4), ("db", lambda v: 10 ** (v / 20), 0), ("linear", np.sqrt, 0)],
)
def test_values_are_the_amplitude_in_the_unit_asked_for(tmp_path, kind, to_amplitude, step):
    made = make_scene(tmp_path / "s.tif", kind=kind, **SMALL)
    with rasterio.open(made.path) as raster:
        values = raster.read(1).astype(float)
    assert to_amplitude(values) == pytest.approx(made.scene.amplitude, rel=1e-3, abs=step)


def test_eight_bit_sea_has_its_median_at_24(tmp_path):
    made = make_scene(tmp_path / "s.tif", kind="uint8", **SMALL)
    with rasterio.open(made.path) as raster:
        values = raster.read(1)
    assert values.dtype == np.uint8
    assert np.median(values[~made.scene.land]) == 24


@pytest.mark.parametrize(("epsg", "rotation"), [(32631, 0.0), (32631, 30.0), (4326, 0.0)])
def test_truth_polygons_lie_on_the_boxes(tmp_path, epsg, rotation):
    truth = tmp_path / "truth.gpkg"
    made = make_scene(tmp_path / "s.tif", epsg=epsg, rotation_deg=rotation, truth=truth, **SMALL)
    frame = geopandas.read_file(truth)
    assert frame.crs.to_epsg() == epsg
    assert len(frame) == len(made.scene.boxes) > 0
    with rasterio.open(made.path) as raster:
        inverse = ~raster.transform
    for polygon, box in zip(frame.geometry, made.scene.boxes, strict=True):
        corners = np.array([inverse * xy for xy in polygon.exterior.coords[:4]])
        assert [*corners.min(axis=0), *corners.max(axis=0)] == pytest.approx(box.tolist(), abs=1e-4)
    assert set(frame["kind"]) <= {"boat", "cargo", "container", "tanker", "barge"}


def test_degree_pixels_measure_the_asked_metres():
    geod = pytest.importorskip("pyproj").Geod(ellps="WGS84")
    transform = scene_transform((2.5, 52.0), 10.0, 0.0, degrees=True)
    here, right, down = transform * (0, 0), transform * (100, 0), transform * (0, 100)
    assert geod.inv(*here, *right)[2] == pytest.approx(1000, rel=0.01)
    assert geod.inv(*here, *down)[2] == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize("suffix", ["gpkg", "geojson"])
def test_land_layer_covers_exactly_the_land(tmp_path, suffix):
    land = tmp_path / f"land.{suffix}"
    made = make_scene(tmp_path / "s.tif", land=land, rotation_deg=20, land_share=0.4, **SMALL)
    frame = geopandas.read_file(land)
    assert frame.crs.to_epsg() == 32631
    burned = rasterize(frame.geometry, out_shape=(160, 200), transform=made.transform).astype(bool)
    assert (burned != made.scene.land).mean() < 0.002  # pixel centres on an edge of the turned grid
    open_sea = make_scene(tmp_path / "o.tif", land=tmp_path / f"none.{suffix}", land_share=0.0, **SMALL)
    assert not open_sea.scene.land.any()
    assert len(geopandas.read_file(tmp_path / f"none.{suffix}")) == 0


def test_command_line_writes_the_same_scene_as_the_function(tmp_path):
    command = [sys.executable, ROOT / "scripts" / "make_sar_scene.py", tmp_path / "cli.tif", "--seed", "3"]
    command += ["--height", "160", "--width", "200", "--ships", "6", "--dtype", "float32", "--unit", "linear"]
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    made = make_scene(tmp_path / "f.tif", kind="linear", **SMALL)
    assert f"{len(made.polygons)} labelled ships" in done.stdout
    with rasterio.open(tmp_path / "cli.tif") as first, rasterio.open(made.path) as second:
        assert (first.read() == second.read()).all()


def test_an_arrangement_changes_where_ships_lie_and_nothing_else(tmp_path):
    drawn = make_scene(tmp_path / "a.tif", land_share=0.0, **SMALL)
    lane = make_scene(tmp_path / "b.tif", arrangement="lane", land_share=0.0, **SMALL)
    assert lane.scene.conditions == dataclasses.replace(drawn.scene.conditions, arrangement="lane")
