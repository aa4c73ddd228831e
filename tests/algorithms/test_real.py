"""No stub: the real worker and engine with the CFAR, by toolbox, model and qgis_process."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import processing
import pytest
from kestrel.tests.support.algorithm_tools import (
    NAMES,
    ORIGIN,
    ROOT,
    file_hash,
    layer_rows,
    make_polygons,
    make_raster,
    square,
)
from kestrel.tests.support.chain import build_model
from osgeo import gdal, osr
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsGeometry,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProject,
)

CFAR = "kestrel:detectshipscfar"
DATA = Path(os.environ.get("KESTREL_DATA") or ROOT.parent / "shared" / "data")
HRSID_CHIP = "hrsid_official4/P0135_1800_2600_4800_5600.png"
WIDTH, HEIGHT = 400, 300
#: Ships as x, y, width, height in pixels of 10 m.
SHIPS = [(60, 50, 20, 6), (200, 80, 6, 22), (330, 220, 18, 5), (120, 230, 15, 15)]
ROTATED = (ORIGIN[0], 8.66, 5.0, ORIGIN[1], 5.0, -8.66)
DEGREES = (2.5, 10 / 68500, 0, 52.0, 0, -10 / 111300)


def sea_with_ships(path, **more):
    """Dark speckle (seeded) with bright rectangles, uint8."""
    dice = random.Random(1)
    values = bytearray(min(255, int(20 * dice.weibullvariate(1, 2))) for _ in range(WIDTH * HEIGHT))
    for x, y, width, height in SHIPS:
        for row in range(y, y + height):
            for column in range(x, x + width):
                values[row * WIDTH + column] = dice.randint(190, 255)
    make_raster(path, width=WIDTH, height=HEIGHT, **more)
    data = gdal.Open(str(path), gdal.GA_Update)
    data.GetRasterBand(1).WriteRaster(0, 0, WIDTH, HEIGHT, bytes(values))
    del data
    return str(path)


@pytest.fixture(autouse=True)
def real_worker(provider, monkeypatch, tmp_path):
    monkeypatch.setenv("KESTREL_PYTHON", sys.executable)
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))


@pytest.fixture
def sea(tmp_path):
    (tmp_path / "in").mkdir()
    return sea_with_ships(tmp_path / "in" / "sea scene.v1.tif")


def qgis_process(algorithm, values, **more):
    environment = {**os.environ, "PYTHONPATH": "", "KESTREL_PYTHON": sys.executable}
    return subprocess.run(
        [
            str(ROOT / "scripts" / "qgis_process"),
            "run",
            algorithm,
            "--json",
            "--",
            *(f"{name}={value}" for name, value in values.items()),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **more,
    )


def truth(transform):
    """Polygons of SHIPS in map coordinates."""
    found = []
    for x, y, width, height in SHIPS:
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
        places = [gdal.ApplyGeoTransform(transform, *corner) for corner in corners]
        found.append(QgsGeometry.fromWkt("POLYGON((" + ",".join(f"{a!r} {b!r}" for a, b in places) + "))"))
    return found


def best_iou(polygon, rows):
    found = [QgsGeometry.fromWkt(wkt) for _, wkt in rows]
    return max(
        (polygon.intersection(other).area() / polygon.combine(other).area() for other in found), default=0.0
    )


def test_toolbox_model_and_qgis_process_give_identical_polygons(sea, out, tmp_path):
    processing.run(CFAR, {"INPUT": sea, "OUTPUT": str(out / "toolbox.gpkg")})
    areas = make_polygons(tmp_path / "areas.gpkg", [square(0, 0, 1500)])
    feedback = QgsProcessingFeedback()
    targets = {
        "detect:ships": str(out / "model.gpkg"),
        "centroids:points": str(out / "points.gpkg"),
        "join:joined": str(out / "joined.gpkg"),
    }
    _, ok = build_model(CFAR, areas).create().run({"SCENE": sea, **targets}, QgsProcessingContext(), feedback)
    assert ok, feedback.textLog()
    done = qgis_process(CFAR, {"INPUT": sea, "OUTPUT": str(out / "process.gpkg")})
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(done.stdout[done.stdout.index("{") :])["results"]
    rows = layer_rows(out / "toolbox.gpkg")
    assert len(rows) == len(SHIPS) == results["COUNT"]
    assert results["OUTPUT"] == str(out / "process.gpkg")
    assert layer_rows(out / "model.gpkg") == rows
    assert layer_rows(out / "process.gpkg") == rows
    assert len(layer_rows(out / "points.gpkg")) == len(rows)
    # one ship lies in the first 150 columns and rows
    assert len(layer_rows(out / "joined.gpkg")) == 1


@pytest.mark.parametrize("layout", ["north", "rotated", "degrees", "south-up"])
def test_polygons_lie_on_the_ships_in_map_coordinates(tmp_path, out, layout):
    transform, epsg = {
        "north": ((ORIGIN[0], 10, 0, ORIGIN[1], 0, -10), 32630),
        "rotated": (ROTATED, 32630),
        "degrees": (DEGREES, 4326),
        "south-up": ((ORIGIN[0], 10, 0, ORIGIN[1], 0, 10), 32630),
    }[layout]
    raster = sea_with_ships(tmp_path / "sea.tif", transform=transform, epsg=epsg)
    result = processing.run(CFAR, {"INPUT": raster, "OUTPUT": str(out / "ships.gpkg")})
    rows = layer_rows(result["OUTPUT"])
    assert len(rows) == len(SHIPS)
    for polygon in truth(transform):
        assert best_iou(polygon, rows) >= 0.5
    for row, _ in rows:
        assert list(row) == NAMES or list(row)[1:] == NAMES
        # 10 m pixels in every layout, within the UTM scale factor and the rounding of degrees
        assert row["long_m"] == pytest.approx(10 * max(row["w_px"], row["h_px"]), rel=0.02)
        assert row["model"]
    assert [row["score"] for row, _ in rows] == sorted((row["score"] for row, _ in rows), reverse=True)
    data = gdal.OpenEx(result["OUTPUT"], gdal.OF_VECTOR)
    assert data.GetLayer(0).GetSpatialRef().GetAuthorityCode(None) == str(epsg)


def test_ground_control_points_give_polygons_in_wgs84(tmp_path, out):
    raster = sea_with_ships(tmp_path / "grd.tif", gcps=True)
    rows = layer_rows(processing.run(CFAR, {"INPUT": raster, "OUTPUT": str(out / "a.gpkg")})["OUTPUT"])
    assert len(rows) == len(SHIPS)
    for polygon in truth((-5, 1e-4, 0, 40, 0, -1e-4)):
        assert best_iou(polygon, rows) >= 0.5


def test_no_crs_keeps_pixels_and_leaves_metres_null(tmp_path, out):
    raster = sea_with_ships(tmp_path / "bare.tif", epsg=0)
    feedback = QgsProcessingFeedback()
    result = processing.run(CFAR, {"INPUT": raster, "OUTPUT": str(out / "a.gpkg")}, feedback=feedback)
    rows = layer_rows(result["OUTPUT"])
    assert len(rows) == len(SHIPS)
    for name in ("long_m", "short_m", "area_m2", "lon", "lat"):
        assert all(row[name] is None for row, _ in rows)
    assert "no CRS" in feedback.textLog()


def test_extent_area_and_land_mask_in_another_crs_select(sea, out, tmp_path):
    """The same part of the scene, typed in degrees."""

    def degrees(x, y, width, height):
        corner = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
        change = QgsCoordinateTransform(
            QgsCoordinateReferenceSystem("EPSG:32630"),
            QgsCoordinateReferenceSystem("EPSG:4326"),
            QgsProject.instance(),
        )
        shape = QgsGeometry.fromWkt(
            "POLYGON((" + ",".join(f"{ORIGIN[0] + 10 * a} {ORIGIN[1] - 10 * b}" for a, b in corner) + "))"
        )
        shape.transform(change)
        return shape

    first = degrees(50, 40, 40, 30)
    box = first.boundingBox()
    extent = f"{box.xMinimum()},{box.xMaximum()},{box.yMinimum()},{box.yMaximum()} [EPSG:4326]"
    area = make_polygons(tmp_path / "aoi.gpkg", [first.asWkt(12)], epsg=4326)

    def found(**more):
        rows = layer_rows(
            processing.run(CFAR, {"INPUT": sea, "OUTPUT": str(out / "a.gpkg"), **more})["OUTPUT"]
        )
        return sorted(round(row["x_px"]) for row, _ in rows)

    everything = found()
    assert len(everything) == 4
    assert found(EXTENT=extent) == found(AOI=area) == [everything[0]]
    assert found(LAND_MASK=area) == everything[1:]
    assert found(MIN_LENGTH=190) == [everything[0], everything[2]]


def test_area_outside_the_raster_fails_and_writes_nothing(sea, out, tmp_path):
    area = make_polygons(tmp_path / "far.gpkg", [square(10**6, 0, 100)])
    done = qgis_process(CFAR, {"INPUT": sea, "AOI": area, "OUTPUT": str(out / "a.gpkg")})
    assert done.returncode == 1
    assert os.listdir(out) == []


def test_truncated_raster_fails_and_keeps_the_old_output(sea, out):
    with open(sea, "r+b") as file:
        file.truncate(os.path.getsize(sea) // 2)
    (out / "a.geojson").write_text("old")
    done = qgis_process(CFAR, {"INPUT": sea, "OUTPUT": str(out / "a.geojson")})
    assert done.returncode == 1
    assert "sea scene.v1.tif" in done.stdout + done.stderr
    assert os.listdir(out) == ["a.geojson"]
    assert (out / "a.geojson").read_text() == "old"


def test_report_and_sidecar_of_a_real_run(sea, out):
    processing.run(
        CFAR, {"INPUT": sea, "OUTPUT": str(out / "a.gpkg"), "REPORT": str(out / "a.html"), "PFA": 1e-7}
    )
    content = json.loads((out / "a.gpkg.kestrel.json").read_text())
    assert content["parameters"]["PFA"] == content["parameters_used"]["pfa"] == 1e-7
    assert content["count"] == len(SHIPS)
    assert content["inputs"][0]["path"] == sea
    assert content["inputs"][0]["size"] == os.path.getsize(sea)
    assert content["versions"]["rasterio"]
    assert content["tiles"]["run"] == content["tiles"]["total"] == 1
    report = (out / "a.html").read_text()
    assert "<html" in report
    assert "http://" not in report.replace("http://www.w3.org", "")


def test_input_is_not_touched(sea, out):
    before = file_hash(sea)
    processing.run(CFAR, {"INPUT": sea, "OUTPUT": str(out / "a.gpkg")})
    assert file_hash(sea) == before


def test_missing_runtime_is_said_by_the_run_itself(sea, out, monkeypatch, tmp_path):
    """qgis_process 3.22 does not ask canExecute."""
    monkeypatch.setenv("KESTREL_PYTHON", str(tmp_path / "none"))
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [
            str(ROOT / "scripts" / "qgis_process"),
            "run",
            CFAR,
            "--",
            f"INPUT={sea}",
            f"OUTPUT={out / 'a.gpkg'}",
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "KESTREL_PYTHON" in done.stdout + done.stderr
    assert os.listdir(out) == []


def test_interrupt_of_qgis_process_leaves_the_old_output(tmp_path, out):
    """SIGINT is cancel: back soon, nothing left, the old output as it was."""
    raster = make_raster(tmp_path / "large.tif", width=9000, height=9000)
    data = gdal.Open(raster, gdal.GA_Update)
    rows = random.Random(2).randbytes(9000 * 500)
    for row in range(0, 9000, 500):
        data.GetRasterBand(1).WriteRaster(0, row, 9000, 500, rows)
    del data
    (out / "a.geojson").write_text("old")
    process = subprocess.Popen(
        [
            str(ROOT / "scripts" / "qgis_process"),
            "run",
            CFAR,
            "--",
            f"INPUT={raster}",
            f"OUTPUT={out / 'a.geojson'}",
        ],
        env={**os.environ, "PYTHONPATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lock = out / ".a.geojson.lock"
    ends = time.monotonic() + 30
    while not lock.exists() and time.monotonic() < ends:
        time.sleep(0.05)
    assert lock.exists()
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    text, _ = process.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert process.returncode == 1, text
    assert "Cancelled; nothing was written." in text
    assert os.listdir(out) == ["a.geojson"]
    assert (out / "a.geojson").read_text() == "old"


@pytest.mark.parametrize(
    "layout", ["rotated", *(pytest.param(name, marks=pytest.mark.slow) for name in ("north_up", "degrees"))]
)
def test_real_chip_through_qgis_process_overlaps_its_truth(tmp_path, out, layout):
    """A real Sentinel-1 ship on the map: polygon and label overlap by half."""
    if not (DATA / "sar_ships").is_dir():
        pytest.skip(f"development data not found at {DATA}; set KESTREL_DATA")
    script = str(ROOT / "tests" / "support" / "lay_out_chip.py")
    environment = {**os.environ, "PYTHONPATH": ""}
    laid = subprocess.run(
        [sys.executable, script, str(tmp_path), HRSID_CHIP, layout],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    chip = json.loads(laid.stdout)
    done = qgis_process(CFAR, {"INPUT": chip["path"], "OUTPUT": str(out / "a.gpkg")})
    assert done.returncode == 0, done.stdout + done.stderr
    rows = layer_rows(out / "a.gpkg")
    overlaps = [best_iou(QgsGeometry.fromWkt(polygon), rows) for polygon in chip["polygons"]]
    assert sum(overlap >= 0.5 for overlap in overlaps) >= len(overlaps) / 2


@pytest.mark.slow
def test_network_runs_from_a_weight_file_and_names_it(sea, out, tmp_path):
    """Random weights: what is found means nothing, the way from WEIGHTS to the fields does."""
    weights = tmp_path / "random.safetensors"
    script = str(ROOT / "tests" / "support" / "write_ship_weights.py")
    subprocess.run([sys.executable, script, str(weights)], env={**os.environ, "PYTHONPATH": ""}, check=True)
    values = {
        "INPUT": sea,
        "WEIGHTS": weights,
        "CONFIDENCE": 0.001,
        "TILE": 320,
        "DEVICE": "cpu",
        "OUTPUT": out / "a.gpkg",
        "REPORT": out / "a.html",
    }
    done = qgis_process("kestrel:detectships", values)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = layer_rows(out / "a.gpkg")
    content = json.loads((out / "a.gpkg.kestrel.json").read_text())
    assert content["model"]["sha256"] == file_hash(weights)
    assert content["parameters_used"]["tile"] == 320
    assert content["count"] == len(rows) > 0
    assert {row["model"].rpartition("@")[2] for row, _ in rows} == {file_hash(weights)[:12]}
    assert (out / "a.html").exists()
    # the same again by the toolbox
    more = {name: str(value) for name, value in values.items() if name != "REPORT"}
    processing.run("kestrel:detectships", {**more, "OUTPUT": str(out / "b.gpkg")})
    assert layer_rows(out / "b.gpkg") == rows


def test_crs_of_a_local_grid_survives(tmp_path, out):
    """A CRS without a number keeps its definition."""
    raster = sea_with_ships(tmp_path / "sea.tif")
    local = osr.SpatialReference()
    local.ImportFromProj4("+proj=laea +lat_0=52 +lon_0=2.5 +x_0=500000 +y_0=4500000 +ellps=GRS80 +units=m")
    data = gdal.Open(raster, gdal.GA_Update)
    data.SetProjection(local.ExportToWkt())
    del data
    result = processing.run(CFAR, {"INPUT": raster, "OUTPUT": str(out / "a.gpkg")})
    data = gdal.OpenEx(result["OUTPUT"], gdal.OF_VECTOR)
    found = data.GetLayer(0).GetSpatialRef()
    assert found.GetAttrValue("PROJECTION") == "Lambert_Azimuthal_Equal_Area"
    assert found.GetProjParm("latitude_of_center") == 52
