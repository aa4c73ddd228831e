"""No stub: the algorithms of two dates with the real worker, by toolbox, model and qgis_process."""

import json
import os
import subprocess
import sys

import processing
import pytest
from kestrel.tests.support.algorithm_tools import (
    ORIGIN,
    ROOT,
    folder_state,
    layer_rows,
    make_polygons,
)
from kestrel.tests.support.chain import model_output
from kestrel.tests.support.change_tools import CHANGED, make_pair
from osgeo import gdal, ogr
from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelParameter,
    QgsProcessingParameterRasterLayer,
)

pytestmark = pytest.mark.slow

VECTOR = "kestrel:detectchangevector"
NETWORK = "kestrel:detectbuildingchange"
Source = QgsProcessingModelChildParameterSource


@pytest.fixture(autouse=True)
def real_worker(provider, monkeypatch, tmp_path):
    monkeypatch.setenv("KESTREL_PYTHON", sys.executable)
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))


@pytest.fixture
def pair(tmp_path):
    folder = tmp_path / "two dates"
    folder.mkdir()
    before, after = make_pair(folder)
    return {"BEFORE": before, "AFTER": after}


def rectangle(row, col, rows, cols):
    """WKT of pixels of a pair, one metre each."""
    left, top = ORIGIN[0] + col, ORIGIN[1] - row
    corners = [(0, 0), (cols, 0), (cols, -rows), (0, -rows), (0, 0)]
    return "POLYGON((" + ",".join(f"{left + x} {top + y}" for x, y in corners) + "))"


def same_ground(first, second):
    return ogr.CreateGeometryFromWkt(first).Equals(ogr.CreateGeometryFromWkt(second))


def run(name, pair, **more):
    feedback = QgsProcessingFeedback()
    processing.run(name, {**pair, **more}, feedback=feedback)
    return feedback.textLog()


def qgis_process(name, values):
    done = subprocess.run(
        [str(ROOT / "scripts" / "qgis_process"), "run", name, "--json", "--"]
        + [f"{key}={value}" for key, value in values.items()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout[done.stdout.index("{") :])["results"]


def histogram_model(name, zones):
    """``name`` -> native:zonalhistogram of its mask in ``zones``."""
    model = QgsProcessingModelAlgorithm("change", "tests")
    detect = QgsProcessingModelChildAlgorithm(name)
    detect.setChildId("detect")
    for role in ("BEFORE", "AFTER"):
        model.addModelParameter(
            QgsProcessingParameterRasterLayer(role, role), QgsProcessingModelParameter(role)
        )
        detect.addParameterSources(role, [Source.fromModelParameter(role)])
    outputs = {**model_output("detect", "changes", "OUTPUT"), **model_output("detect", "mask", "OUTPUT_MASK")}
    detect.setModelOutputs(outputs)
    model.addChildAlgorithm(detect)
    counted = QgsProcessingModelChildAlgorithm("native:zonalhistogram")
    counted.setChildId("count")
    counted.addParameterSources("INPUT_RASTER", [Source.fromChildOutput("detect", "OUTPUT_MASK")])
    counted.addParameterSources("RASTER_BAND", [Source.fromStaticValue(1)])
    counted.addParameterSources("INPUT_VECTOR", [Source.fromStaticValue(zones)])
    counted.addParameterSources("COLUMN_PREFIX", [Source.fromStaticValue("mask_")])
    counted.setModelOutputs(model_output("count", "counts", "OUTPUT"))
    model.addChildAlgorithm(counted)
    model.initAlgorithm()
    return model


def test_feature_toolbox_model_and_qgis_process_find_what_changed(pair, out, tmp_path):
    values = {name: str(out / f"{name}.tif") for name in ("OUTPUT_MASK", "OUTPUT_PROBABILITY")}
    results = qgis_process(VECTOR, {**pair, "OUTPUT": out / "process.gpkg", **values})
    assert results == {"OUTPUT": str(out / "process.gpkg"), **values}
    known = make_polygons(tmp_path / "known.gpkg", [rectangle(*each) for each in CHANGED])
    log = run(VECTOR, pair, OUTPUT=str(out / "toolbox.gpkg"), REFERENCE=known, TILE=128)
    assert "2 polygon(s) of change found." in log
    history = json.loads((out / "toolbox.gpkg.kestrel.json").read_text())
    assert history["quality"]["f1"] == 1
    zones = make_polygons(tmp_path / "zones.gpkg", [rectangle(0, 0, 100, 280), rectangle(100, 0, 160, 280)])
    targets = {
        "detect:changes": str(out / "model.gpkg"),
        "detect:mask": str(out / "mask.tif"),
        "count:counts": str(out / "counts.gpkg"),
    }
    feedback = QgsProcessingFeedback()
    model = histogram_model(VECTOR, zones).create()
    _, ok = model.run({**pair, **targets}, QgsProcessingContext(), feedback)
    assert ok, feedback.textLog()
    for name in ("process", "toolbox", "model"):
        rows = layer_rows(out / f"{name}.gpkg")
        assert len(rows) == len(CHANGED), name
        for (row, shape), changed in zip(rows, CHANGED, strict=True):
            assert same_ground(shape, rectangle(*changed)), name
            assert row["area_m2"] == pytest.approx(changed[2] * changed[3], rel=2e-3)
            assert row["model"] == VECTOR
    counts = [row for row, _ in layer_rows(out / "counts.gpkg")]
    assert [(each["mask_0"], each["mask_1"]) for each in counts] == [
        (100 * 280 - 600, 600),
        (160 * 280 - 625, 625),
    ]


def test_feature_network_with_weights_of_ones_own_runs(pair, out, tmp_path):
    weights = tmp_path / "random.safetensors"
    script = ROOT / "tests" / "support" / "write_building_change_weights.py"
    subprocess.run(
        [sys.executable, str(script), str(weights)], env={**os.environ, "PYTHONPATH": ""}, check=True
    )
    more = {"WEIGHTS": str(weights), "DEVICE": "cpu", "OUTPUT_PROBABILITY": str(out / "p.tif")}
    run(NETWORK, pair, OUTPUT=str(out / "changes.gpkg"), OUTPUT_MASK=str(out / "mask.tif"), **more)
    probability, mask = (gdal.Open(str(out / name)) for name in ("p.tif", "mask.tif"))
    assert (probability.RasterXSize, probability.RasterYSize) == (280, 260)
    low, high = probability.GetRasterBand(1).ComputeRasterMinMax(False)
    assert 0 <= low < high <= 1
    assert set(mask.ReadRaster()) <= {0, 1, 255}
    history = json.loads((out / "changes.gpkg.kestrel.json").read_text())
    assert history["change"]["threshold"] == pytest.approx(0.3)
    assert history["model"]["sha256"]
    # pixels of 1 m for a network of 0.5 m: as many as before, and not the same answers
    plain = probability.ReadRaster()
    more["OUTPUT_PROBABILITY"] = str(out / "finer_p.tif")
    log = run(NETWORK, pair, RESAMPLE=True, OUTPUT=str(out / "finer.gpkg"), **more)
    assert "RESAMPLE: the network runs on 5" in log
    assert "Pixel size is" not in log
    finer = gdal.Open(more["OUTPUT_PROBABILITY"])
    assert (finer.RasterXSize, finer.RasterYSize) == (280, 260)
    assert finer.GetGeoTransform() == probability.GetGeoTransform()
    assert finer.ReadRaster() != plain
    history = json.loads((out / "finer.gpkg.kestrel.json").read_text())
    assert history["network_grid"]["pixel_m"] == pytest.approx(0.5)


REFUSED = {
    "apart": ({"transform": (600000, 1, 0, 4500000, 0, -1)}, "do not overlap"),
    "narrow": ({"transform": (500100, 1, 0, 4500000, 0, -1)}, "at least 256 along each side are needed"),
    "other type": ({"kind": gdal.GDT_UInt16}, "one automatic stretch cannot hold for both"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_exception_of_the_worker_is_a_sentence_and_nothing_is_written(pair, out, tmp_path, case):
    changes, sentence = REFUSED[case]
    (tmp_path / "other").mkdir()
    _, after = make_pair(tmp_path / "other", **changes)
    before = folder_state(out)
    with pytest.raises(QgsProcessingException, match=sentence):
        run(VECTOR, {**pair, "AFTER": after}, OUTPUT=str(out / "a.gpkg"), OUTPUT_MASK=str(out / "m.tif"))
    assert folder_state(out) == before
