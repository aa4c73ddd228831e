"""What reaches the worker from kestrel:dehazedarkchannel (stub worker)."""

import os

import processing
import pytest
from kestrel.tests.support.algorithm_tools import make_polygons, make_raster, square
from kestrel.tests.support.raster_tools import hazy_raster
from osgeo import gdal
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsGeometry,
    QgsProcessingFeedback,
    QgsProject,
    QgsRasterLayer,
    QgsSettings,
)

DEHAZE = "kestrel:dehazedarkchannel"


def run(hazy, **more):
    feedback = QgsProcessingFeedback()
    processing.run(DEHAZE, {"INPUT": hazy, "OUTPUT": "TEMPORARY_OUTPUT", **more}, feedback=feedback)
    return feedback.textLog()


def test_feature_job_holds_the_defaults(raster_stub, hazy, out):
    run(hazy, OUTPUT=str(out / "clear.tif"))
    [job] = raster_stub.jobs
    assert (job.kind, job.model, job.device) == ("predict", "dark_channel", "auto")
    assert job.inputs == {"image": {"path": hazy, "bands": []}}
    assert job.outputs == {"raster": str(out / "clear.tif")}
    assert job.params == {
        "other_bands": "copy",
        "patch": 15,
        "omega": 0.95,
        "strength": 1.0,
        "tile": 512,
        "overlap": 0,
        "cog": False,
        "memory_mb": 0,
    }
    assert (job.extent, job.aoi_wkt, job.crs_wkt) == (None, None, None)


def test_feature_job_holds_what_was_typed(raster_stub, hazy, out):
    reference = hazy_raster(out / "reference.tif")
    run(
        hazy,
        BANDS=[3, 2, 1],
        OTHER_BANDS="drop",
        STRETCH_MIN="1,2,3",
        STRETCH_MAX="200",
        PATCH=7,
        OMEGA=0.8,
        STRENGTH=0.5,
        TILE=256,
        OVERLAP=64,
        COG=True,
        REFERENCE=reference,
        OUTPUT=str(out / "clear.TIFF"),
        OUTPUT_HAZE=str(out / "haze.tif"),
        REPORT=str(out / "report.html"),
    )
    [job] = raster_stub.jobs
    assert job.inputs == {
        "image": {"path": hazy, "bands": [3, 2, 1]},
        "reference": {"path": reference, "bands": []},
    }
    assert job.outputs == {
        "raster": str(out / "clear.TIFF"),
        "haze": str(out / "haze.tif"),
        "report": str(out / "report.html"),
    }
    assert job.params == {
        "other_bands": "drop",
        "stretch_min": [1.0, 2.0, 3.0],
        "stretch_max": [200.0],
        "patch": 7,
        "omega": 0.8,
        "strength": 0.5,
        "tile": 256,
        "overlap": 64,
        "cog": True,
        "memory_mb": 0,
    }


@pytest.mark.parametrize(
    ("typed", "bands"),
    [
        (None, []),
        ("", []),
        ([], []),
        ("3,2,1", [3, 2, 1]),
        ("3;2;1", [3, 2, 1]),
        (["1", "2", "3"], [1, 2, 3]),
        ([2.0, 1, 3], [2, 1, 3]),
    ],
)
def test_feature_bands_in_every_way_of_writing(raster_stub, hazy, typed, bands):
    run(hazy, BANDS=typed)
    assert raster_stub.jobs[0].inputs["image"]["bands"] == bands


@pytest.mark.parametrize("typed", [7, "7", 7.0, " 7 "])
def test_feature_one_number_stretches_all_bands(raster_stub, hazy, typed):
    run(hazy, STRETCH_MIN=typed, STRETCH_MAX="9;10 11")
    params = raster_stub.jobs[0].params
    assert (params["stretch_min"], params["stretch_max"]) == ([7.0], [9.0, 10.0, 11.0])


def test_feature_memory_comes_from_the_setting(raster_stub, hazy):
    try:
        for setting, sent in ((700, 700), ("300", 300), ("much", 0), (-5, 0)):
            QgsSettings().setValue("kestrel/memory_mb", setting)
            run(hazy)
            assert raster_stub.jobs[-1].params["memory_mb"] == sent
    finally:
        QgsSettings().remove("kestrel/memory_mb")


def test_feature_extent_and_area_go_in_one_crs(raster_stub, hazy, tmp_path):
    area = make_polygons(tmp_path / "area.gpkg", [square(0, 0, 200)])
    run(hazy, AOI=area)
    run(hazy, AOI=area, EXTENT="-3.1,-2.9,40.5,40.7 [EPSG:4326]")
    alone, both = raster_stub.jobs
    assert alone.extent is None
    assert QgsGeometry.fromWkt(alone.aoi_wkt).area() == pytest.approx(200 * 200)
    assert QgsCoordinateReferenceSystem.fromWkt(alone.crs_wkt).authid() == "EPSG:32630"
    assert both.extent == [-3.1, 40.5, -2.9, 40.7]
    assert QgsCoordinateReferenceSystem.fromWkt(both.crs_wkt).authid() == "EPSG:4326"
    assert QgsGeometry.fromWkt(both.aoi_wkt).boundingBox().xMinimum() == pytest.approx(-3.0, abs=1e-6)


ODD = {
    "rotated": {"transform": (500000, 8, 3, 4500000, 3, -8)},
    "south-up": {"transform": (500000, 10, 0, 4500000, 0, 10)},
    "degrees": {"epsg": 4326, "transform": (5.0, 1e-4, 0, 60.0, 0, -1e-4)},
    "no CRS": {"epsg": 0},
    "uint16, five bands": {"bands": 5, "kind": gdal.GDT_UInt16},
    "float, one pixel": {"kind": gdal.GDT_Float32, "width": 1, "height": 1},
}


@pytest.mark.parametrize("kind", ODD)
def test_feature_odd_rasters_go_by_path(raster_stub, tmp_path, kind):
    path = hazy_raster(tmp_path / "odd.tif", **ODD[kind])
    run(path)
    assert raster_stub.jobs[0].inputs["image"]["path"] == path


def test_feature_relative_paths_reach_the_worker_whole(raster_stub, hazy, out, monkeypatch):
    monkeypatch.chdir(os.path.dirname(hazy))
    run("hazy.tif", OUTPUT="clear.tif", REPORT="report.html")
    [job] = raster_stub.jobs
    folder = os.path.dirname(hazy)
    assert job.inputs["image"]["path"] == hazy
    assert job.outputs == {"raster": f"{folder}/clear.tif", "report": f"{folder}/report.html"}


def test_feature_what_is_no_plain_file_is_exported_first(raster_stub, tmp_path):
    packed = str(tmp_path / "scene.gpkg")
    gdal.Translate(packed, hazy_raster(tmp_path / "plain.tif"), format="GPKG")
    drivers = []
    raster_stub.before = lambda job: drivers.extend(
        gdal.Open(entry["path"]).GetDriver().ShortName for entry in job.inputs.values()
    )
    run(packed, REFERENCE=packed)
    assert drivers == ["GTiff", "GTiff"]
    assert not os.path.exists(raster_stub.jobs[0].scratch)


def test_feature_copied_bands_are_called_not_comparable(raster_stub, hazy, tmp_path):
    words = "2 other band(s) are copied as they are: they were not dehazed, and indices across"
    five = hazy_raster(tmp_path / "five.tif", bands=5)
    assert words in run(five)
    assert "other band" not in run(five, OTHER_BANDS="drop")
    colours = (gdal.GCI_RedBand, gdal.GCI_GreenBand, gdal.GCI_BlueBand, gdal.GCI_AlphaBand)
    assert "other band" not in run(make_raster(tmp_path / "rgba.tif", bands=4, colours=colours))


def test_feature_crs_set_in_qgis_only_warns(raster_stub, tmp_path):
    layer = QgsRasterLayer(make_raster(tmp_path / "bare.tif", epsg=0, bands=3), "bare")
    layer.setCrs(QgsCoordinateReferenceSystem("EPSG:32630"))
    QgsProject.instance().addMapLayer(layer)
    assert "The CRS EPSG:32630 is set in QGIS but not stored in the file" in run(layer)
