"""The main job with the shipped weights: real chips on the map, and one answer from every door."""

import json
import os
import subprocess
import sys
from pathlib import Path

import processing
import pytest
from kestrel.tests.support.algorithm_tools import ROOT, layer_rows, make_polygons
from kestrel.tests.support.chain import build_model
from qgis.core import QgsGeometry, QgsProcessingContext, QgsProcessingFeedback

SHIPS = "kestrel:detectships"
DATA = Path(os.environ.get("KESTREL_DATA") or ROOT.parent / "shared" / "data")
HRSID_CHIP = "hrsid_official4/P0135_1800_2600_4800_5600.png"

pytestmark = pytest.mark.qgis


@pytest.fixture(autouse=True)
def real_worker(provider, monkeypatch, tmp_path):
    monkeypatch.setenv("KESTREL_PYTHON", sys.executable)
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))


def outside(*command, **more):
    """Run a script in a process of its own: rasterio's GDAL and QGIS's do not live together for long."""
    environment = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run(
        [str(part) for part in command],
        env=environment, capture_output=True, text=True, timeout=300, check=False, **more,
    )  # fmt: skip


def qgis_process(values):
    pairs = [f"{name}={value}" for name, value in values.items()]
    return outside(ROOT / "scripts" / "qgis_process", "--json", "run", SHIPS, "--", *pairs)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A simulated scene of more than one tile with its truth."""
    folder = tmp_path_factory.mktemp("simulated")
    script = ROOT / "scripts" / "make_sar_scene.py"
    done = outside(
        sys.executable, script, folder / "scene.tif", "--height", 800, "--width", 900, "--ships", 25,
        "--land-share", 0,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return str(folder / "scene.tif")


@pytest.mark.parametrize(
    "layout", ["rotated", *(pytest.param(name, marks=pytest.mark.slow) for name in ("north_up", "degrees"))]
)
def test_polygons_overlap_the_truth_of_a_real_chip_by_half(tmp_path, out, layout):
    if not (DATA / "sar_ships").is_dir():
        pytest.skip(f"development data not found at {DATA}; set KESTREL_DATA")
    laid = outside(
        sys.executable, ROOT / "tests" / "support" / "lay_out_chip.py", tmp_path, HRSID_CHIP, layout
    )
    chip = json.loads(laid.stdout)
    done = qgis_process({"INPUT": chip["path"], "OUTPUT": out / "a.gpkg"})
    assert done.returncode == 0, done.stdout + done.stderr
    found = [QgsGeometry.fromWkt(wkt) for _, wkt in layer_rows(out / "a.gpkg")]
    hits = 0
    for wkt in chip["polygons"]:
        ship = QgsGeometry.fromWkt(wkt)
        ious = [ship.intersection(box).area() / ship.combine(box).area() for box in found]
        hits += max(ious, default=0.0) >= 0.5
    assert hits >= 1
    assert hits >= len(chip["polygons"]) / 2


@pytest.mark.slow
def test_toolbox_model_and_qgis_process_give_identical_polygons(simulated, out, tmp_path):
    processing.run(SHIPS, {"INPUT": simulated, "OUTPUT": str(out / "toolbox.gpkg")})
    box = "POLYGON((0 0,1 0,1 1,0 1,0 0))"
    areas = make_polygons(tmp_path / "areas.gpkg", [box])
    targets = {
        "detect:ships": str(out / "model.gpkg"),
        "centroids:points": str(out / "points.gpkg"),
        "join:joined": str(out / "joined.gpkg"),
    }
    feedback = QgsProcessingFeedback()
    model = build_model(SHIPS, areas)
    _, ok = model.create().run({"SCENE": simulated, **targets}, QgsProcessingContext(), feedback)
    assert ok, feedback.textLog()
    done = qgis_process({"INPUT": simulated, "OUTPUT": out / "process.gpkg"})
    assert done.returncode == 0, done.stdout + done.stderr
    rows = layer_rows(out / "toolbox.gpkg")
    assert len(rows) >= 5
    assert layer_rows(out / "model.gpkg") == rows
    assert layer_rows(out / "process.gpkg") == rows
    assert len(layer_rows(out / "points.gpkg")) == len(rows)
    assert all(row["model"].startswith("sar_ships@") for row, _ in rows)
