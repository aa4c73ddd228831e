"""What reaches the worker: layers as paths, areas as WKT with their CRS, numbers as typed (stub)."""

import json
import os
import sqlite3

import processing
import pytest
from kestrel.tests.support.algorithm_tools import (
    ORIGIN,
    layer_rows,
    make_polygons,
    make_raster,
    square,
)
from osgeo import gdal
from qgis.core import (
    NULL,
    QgsCoordinateReferenceSystem,
    QgsGeometry,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingFeedback,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)

SHIPS = "kestrel:detectships"
CFAR = "kestrel:detectshipscfar"


def run(scene, algorithm=CFAR, **more):
    feedback = QgsProcessingFeedback()
    processing.run(algorithm, {"INPUT": scene, "OUTPUT": "memory:", **more}, feedback=feedback)
    return feedback.textLog()


def test_cfar_job_holds_the_defaults(stub, scene):
    run(scene)
    [job] = stub.jobs
    assert (job.kind, job.model, job.device) == ("predict", "cfar", "auto")
    assert job.inputs == {"image": {"path": scene, "bands": [1]}}
    assert set(job.outputs) == {"boxes"}
    assert job.params == {
        "scale_mode": "auto",
        "scale_min": -25.0,
        "scale_max": 5.0,
        "land_buffer": 0.0,
        "min_length": 0.0,
        "max_length": 0.0,
        "pfa": 1e-6,
        "guard": 300.0,
        "background": 600.0,
    }
    assert (job.extent, job.aoi_wkt, job.crs_wkt) == (None, None, None)


def test_network_job_leaves_automatic_values_out(stub, scene, weights):
    run(scene, SHIPS, WEIGHTS=weights)
    run(scene, SHIPS, WEIGHTS=weights, TILE=1024, OVERLAP=200, BATCH=2, CONFIDENCE=0.5, DEVICE="cpu")
    first, second = stub.jobs
    assert first.model == "sar_ships"
    assert "overlap" not in first.params
    assert "batch" not in first.params
    assert (first.params["tile"], first.params["confidence"], first.params["nms_iou"]) == (640, 0.25, 0.45)
    assert second.params["overlap"] == 200
    assert second.params["batch"] == 2
    assert second.params["tile"] == 1024
    assert second.device == "cpu"
    assert second.params["weights"] == weights


def test_relative_paths_reach_the_worker_whole(stub, scene, weights, monkeypatch):
    monkeypatch.chdir(os.path.dirname(weights))
    run(os.path.relpath(scene), SHIPS, WEIGHTS=os.path.basename(weights))
    [job] = stub.jobs
    assert job.inputs["image"]["path"] == scene
    assert job.params["weights"] == weights


def test_extent_keeps_its_own_crs(stub, scene):
    run(scene, EXTENT="-3.1,-3.0,40.5,40.6 [EPSG:4326]")
    [job] = stub.jobs
    assert job.extent == [-3.1, 40.5, -3.0, 40.6]
    assert QgsCoordinateReferenceSystem.fromWkt(job.crs_wkt).authid() == "EPSG:4326"


@pytest.mark.parametrize("nothing", [None, "", NULL])
def test_extent_not_given_means_the_whole_raster(stub, scene, nothing):
    run(scene, EXTENT=nothing)
    assert stub.jobs[0].extent is None


def test_area_is_the_union_in_its_own_crs(stub, scene, tmp_path):
    area = make_polygons(
        tmp_path / "aoi.gpkg",
        ["POLYGON((0 0,2 0,2 2,0 2,0 0))", "POLYGON((1 0,3 0,3 2,1 2,1 0))"],
        epsg=4326,
    )
    run(scene, AOI=area)
    [job] = stub.jobs
    assert QgsGeometry.fromWkt(job.aoi_wkt).area() == pytest.approx(6.0)
    assert QgsCoordinateReferenceSystem.fromWkt(job.crs_wkt).authid() == "EPSG:4326"


def test_area_and_extent_share_the_extents_crs(stub, scene, tmp_path):
    area = make_polygons(tmp_path / "aoi.gpkg", [square(0, 0, 1000)])
    run(scene, AOI=area, EXTENT="-3.1,-2.9,40.5,40.7 [EPSG:4326]")
    [job] = stub.jobs
    bounds = QgsGeometry.fromWkt(job.aoi_wkt).boundingBox()
    assert bounds.xMinimum() == pytest.approx(-3.0, abs=1e-6)  # easting 500000 is the zone's meridian
    assert 40.6 < bounds.yMinimum() < 40.7
    assert QgsCoordinateReferenceSystem.fromWkt(job.crs_wkt).authid() == "EPSG:4326"


def test_bow_tie_area_is_repaired(stub, scene, tmp_path):
    area = make_polygons(tmp_path / "aoi.gpkg", ["POLYGON((0 0,2 2,2 0,0 2,0 0))"])
    run(scene, AOI=area)
    union = QgsGeometry.fromWkt(stub.jobs[0].aoi_wkt)
    assert union.isGeosValid()
    assert union.area() == pytest.approx(2.0)


def test_selected_features_only(stub, scene, tmp_path):
    path = make_polygons(tmp_path / "aoi.gpkg", [square(0, 0, 10), square(100, 0, 20)])
    layer = QgsVectorLayer(path, "aoi", "ogr")
    QgsProject.instance().addMapLayer(layer)
    layer.selectByIds([2])
    run(scene, AOI=QgsProcessingFeatureSourceDefinition(layer.id(), selectedFeaturesOnly=True))
    assert QgsGeometry.fromWkt(stub.jobs[0].aoi_wkt).area() == pytest.approx(400)


def test_land_mask_goes_as_a_file_repaired_and_in_its_own_crs(stub, scene, tmp_path):
    path = make_polygons(
        tmp_path / "land.gpkg", ["POLYGON((0 0,2 2,2 0,0 2,0 0))", square(0, 0, 10)], epsg=4326
    )
    seen = []
    stub.seen = lambda job: seen.extend(layer_rows(job.inputs["land"]["path"]))
    run(scene, LAND_MASK=path, LAND_BUFFER=250)
    [job] = stub.jobs
    assert len(seen) == 2
    assert all(wkt.startswith("MULTIPOLYGON") for _, wkt in seen)
    assert job.params["land_buffer"] == 250
    assert "bands" not in job.inputs["land"]


def test_land_mask_feature_without_geometry_is_skipped_with_a_warning(stub, scene, tmp_path, out):
    path = make_polygons(tmp_path / "land.gpkg", [square(0, 0, 10), square(20, 0, 10)])
    with sqlite3.connect(path) as data:
        for (trigger,) in data.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall():
            data.execute(f'DROP TRIGGER "{trigger}"')
        data.execute("UPDATE polygons SET geom = NULL WHERE fid = 1")
    data.close()
    log = run(scene, LAND_MASK=path, OUTPUT=str(out / "a.gpkg"))
    words = "LAND_MASK: 1 feature(s) without a usable polygon were skipped."
    assert words in log
    assert words in (out / "a.gpkg.kestrel.json").read_text()


def test_empty_land_mask_warns_and_masks_nothing(stub, scene, tmp_path):
    log = run(scene, LAND_MASK=make_polygons(tmp_path / "land.gpkg", []))
    assert "LAND_MASK holds no polygon, so no land is masked." in log
    assert "land" not in stub.jobs[0].inputs


def test_rotated_raster_and_vrt_go_by_path(stub, tmp_path):
    rotated = make_raster(tmp_path / "rotated.tif", transform=(ORIGIN[0], 8, 3, ORIGIN[1], 3, -8))
    vrt = str(tmp_path / "scene.vrt")
    gdal.Translate(vrt, rotated, format="VRT")
    gcp = make_raster(tmp_path / "gcp.tif", gcps=True)
    for path in (rotated, vrt, gcp):
        run(path)
    assert [job.inputs["image"]["path"] for job in stub.jobs] == [rotated, vrt, gcp]


def test_layer_of_the_project_goes_by_its_path(stub, scene):
    layer = QgsRasterLayer(scene, "loaded")
    QgsProject.instance().addMapLayer(layer)
    run(layer)
    run(layer.id())
    assert [job.inputs["image"]["path"] for job in stub.jobs] == [scene, scene]


@pytest.mark.parametrize("kind", ["zip", "subdataset"])
def test_what_is_no_plain_file_is_exported_without_loss(stub, tmp_path, kind):
    values = bytes(range(64)) * 48
    path = make_raster(tmp_path / "plain.tif")
    data = gdal.Open(path, gdal.GA_Update)
    data.GetRasterBand(1).WriteRaster(0, 0, 64, 48, values)
    del data
    if kind == "zip":
        import zipfile

        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(path, "plain.tif")
        source = f"/vsizip/{tmp_path}/a.zip/plain.tif"
    else:
        other = make_raster(tmp_path / "other.tif")
        gdal.Translate(str(tmp_path / "a.gpkg"), other, format="GPKG", creationOptions=["RASTER_TABLE=one"])
        gdal.Translate(
            str(tmp_path / "a.gpkg"),
            path,
            format="GPKG",
            creationOptions=["RASTER_TABLE=two", "APPEND_SUBDATASET=YES", "TILE_FORMAT=PNG"],
        )
        source = f"GPKG:{tmp_path}/a.gpkg:two"
    seen = {}

    def look(job):
        exported = gdal.Open(job.inputs["image"]["path"])
        seen["driver"] = exported.GetDriver().ShortName
        seen["tiled"] = exported.GetRasterBand(1).GetBlockSize()
        seen["values"] = exported.GetRasterBand(1).ReadRaster(0, 0, 64, 48)
        seen["crs"] = exported.GetSpatialRef().GetAuthorityCode(None)

    stub.seen = look
    layer = QgsRasterLayer(source, "inside")
    assert layer.isValid()
    QgsProject.instance().addMapLayer(layer)
    run(layer)
    # not the whole container, and not its first raster
    assert seen == {"driver": "GTiff", "tiled": [256, 256], "values": values, "crs": "32630"}
    assert not os.path.exists(stub.jobs[0].inputs["image"]["path"])


def test_format_only_qgis_opens_is_exported_and_recorded_by_its_own_path(stub, tmp_path, out):
    plain = make_raster(tmp_path / "plain.tif")
    packed = str(tmp_path / "scene.gpkg")
    gdal.Translate(packed, plain, format="GPKG", creationOptions=["TILE_FORMAT=PNG"])
    drivers = []
    stub.seen = lambda job: drivers.append(gdal.Open(job.inputs["image"]["path"]).GetDriver().ShortName)
    processing.run(CFAR, {"INPUT": packed, "OUTPUT": str(out / "ships.gpkg")})
    assert drivers == ["GTiff"]
    content = json.loads((out / "ships.gpkg.kestrel.json").read_text())
    assert [entry["path"] for entry in content["inputs"]] == [packed]


def test_network_source_is_refused(stub):
    from kestrel.plugin.layers import is_remote

    for path in (
        "/vsicurl/http://a/b.tif",
        "/vsizip//vsicurl/x",
        "/vsis3/b/k",
        "https://a/b.tif",
        "/vsicurl?url=x",
    ):
        assert is_remote(path)
    for path in ("/data/a.tif", "C:/data/a.tif", "/vsizip/a.zip/b.tif", "/data/vsicurl.tif"):
        assert not is_remote(path)


def test_coarse_pixels_warn_in_metres_on_the_ground(stub, tmp_path, out):
    degrees = make_raster(tmp_path / "degrees.tif", epsg=4326, transform=(5.0, 0.001, 0, 60.0, 0, -0.001))
    log = run(degrees, OUTPUT=str(out / "a.gpkg"))
    # 0.001 degrees at 60 north: 55.8 m by 111.4 m, geometric mean 78.8 m
    assert "Pixel size is 78.8" in log
    assert "Pixel size is 78.8" in (out / "a.gpkg.kestrel.json").read_text()
    assert "Pixel size" not in run(make_raster(tmp_path / "fine.tif"))


def test_crs_set_in_qgis_only_warns(stub, tmp_path):
    layer = QgsRasterLayer(make_raster(tmp_path / "bare.tif", epsg=0), "bare")
    layer.setCrs(QgsCoordinateReferenceSystem("EPSG:32630"))
    QgsProject.instance().addMapLayer(layer)
    assert "The CRS EPSG:32630 is set in QGIS but not stored in the file" in run(layer)


def test_device_auto_is_what_the_setting_says(stub, scene, out, weights):
    from qgis.core import QgsSettings

    asked = {"INPUT": scene, "WEIGHTS": weights, "OUTPUT": str(out / "a.gpkg")}
    try:
        for setting, typed, sent in (
            ("cuda", "auto", "cuda"),
            ("cuda", "cpu", "cpu"),
            ("abacus", "auto", "auto"),
        ):
            QgsSettings().setValue("kestrel/device", setting)
            processing.run("kestrel:detectships", {**asked, "DEVICE": typed})
            assert stub.jobs[-1].device == sent
    finally:
        QgsSettings().remove("kestrel/device")
