"""kestrel:trainbuildingchange: its interface, its Job, its refusals, and a training with the real worker."""

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import processing
import pytest
from kestrel.tests.support.algorithm_tools import ROOT, folder_state, make_polygons, make_raster, square
from kestrel.tests.support.change_tools import make_pair
from kestrel.tests.support.training_tools import TrainingStub
from osgeo import gdal, ogr
from qgis.core import QgsProcessingException, QgsProcessingFeedback, QgsProcessingParameterDefinition

TRAIN = "kestrel:trainbuildingchange"
PARAMETERS = [
    ("BEFORE", None),
    ("AFTER", None),
    ("BANDS_BEFORE", None),
    ("BANDS_AFTER", None),
    ("STRETCH_MIN", None),
    ("STRETCH_MAX", None),
    ("CHANGES", None),
    ("FOLDER", None),
    ("EPOCHS", 20),
    ("BATCH", 8),
    ("CROP", 128),
    ("LEARNING_RATE", 0.001),
    ("BASE_WEIGHTS", None),
    ("SEED", 0),
    ("DEVICE", "auto"),
    ("OUTPUT_WEIGHTS", None),
    ("REPORT", None),
]
REQUIRED = {name for name, default in PARAMETERS if default is not None} | {"OUTPUT_WEIGHTS"}
ADVANCED = {"STRETCH_MIN", "STRETCH_MAX", "BATCH", "LEARNING_RATE", "SEED", "DEVICE"}
#: Where buildings came, in pixels of a metre: row, column, rows, columns.
CHANGED = ((40, 50, 20, 20), (150, 180, 25, 25), (200, 20, 18, 18), (20, 200, 22, 22))


@pytest.fixture
def algorithm(provider):
    return provider.algorithm("trainbuildingchange")


@pytest.fixture
def training_stub(provider, qgis_new_project, monkeypatch, tmp_path):
    from kestrel.algorithms import training

    worker = TrainingStub()
    worker.validation = {"f1": 0.5, "precision": 0.6, "recall": 0.4, "iou": 0.33, "kappa": 0.45}
    monkeypatch.setattr(training, "run_job", worker)
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))
    return worker


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layers")
    before, after = make_pair(folder, changed=CHANGED)
    drawn = [square(col, row, rows) for row, col, rows, _ in CHANGED]
    return {"BEFORE": before, "AFTER": after, "CHANGES": make_polygons(folder / "new houses.gpkg", drawn)}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """A folder of two tiles."""
    folder = tmp_path_factory.mktemp("tiles")
    for name in ("1", "2"):
        before, after = make_pair(folder, width=64, height=64, changed=((8, 8, 20, 20),))
        label = make_raster(folder / "label.tif", width=64, height=64)
        data = gdal.Open(label, gdal.GA_Update)
        data.GetRasterBand(1).WriteRaster(8, 8, 20, 20, b"\xff" * 400)
        del data
        for sub, path in (("A", before), ("B", after), ("label", label)):
            (folder / sub).mkdir(exist_ok=True)
            shutil.move(path, folder / sub / f"{name}.tif")
    return str(folder)


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def run(values, feedback=None):
    feedback = feedback or QgsProcessingFeedback()
    return processing.run(TRAIN, values, feedback=feedback), feedback


def test_feature_parameters_defaults_and_flags_are_the_fixed_ones(algorithm):
    assert [(p.name(), p.defaultValue()) for p in algorithm.parameterDefinitions()] == PARAMETERS
    flags = QgsProcessingParameterDefinition.Flag
    names = {
        flag: {p.name() for p in algorithm.parameterDefinitions() if p.flags() & flag}
        for flag in (flags.FlagAdvanced, flags.FlagOptional)
    }
    assert names[flags.FlagAdvanced] == ADVANCED
    assert names[flags.FlagOptional] == {name for name, _ in PARAMETERS} - REQUIRED


def test_feature_names_outputs_and_help(algorithm):
    assert (algorithm.id(), algorithm.groupId()) == (TRAIN, "change")
    assert [output.name() for output in algorithm.outputDefinitions()] == ["OUTPUT_WEIGHTS", "REPORT"]
    assert not algorithm.icon().pixmap(16, 16).isNull()
    assert os.path.basename(algorithm.svgIconPath()) == "train_building_change.svg"
    text = algorithm.shortHelpString()
    assert ElementTree.fromstring(f"<help>{text}</help>") is not None
    for words in ("WEIGHTS", "checkpoint", "validation", "preliminary", "complete", "Fu, Zhang"):
        assert words in text
    assert "haz" not in text.lower()


def test_feature_job_of_layers(training_stub, layers, out):
    results, feedback = run(
        {
            **layers,
            "BANDS_AFTER": [3, 2, 1],
            "STRETCH_MIN": "1,2,3",
            "STRETCH_MAX": "200",
            "OUTPUT_WEIGHTS": str(out / "own"),
            "REPORT": str(out / "r.html"),
        }
    )
    [job] = training_stub.jobs
    assert (job.kind, job.model, job.device) == ("train", "building_change", "auto")
    changes = job.inputs.pop("changes")
    assert job.inputs == {
        "before": {"path": layers["BEFORE"], "bands": []},
        "after": {"path": layers["AFTER"], "bands": [3, 2, 1]},
    }
    # a selection or an edited layer counts as QGIS has it; the card will name the layer
    assert changes["path"] == os.path.join(job.scratch, "changes", "new_houses.fgb")
    assert training_stub.polygons == {"changes": 4}
    assert job.params == {
        "epochs": 20,
        "batch": 8,
        "crop": 128,
        "learning_rate": 0.001,
        "base_weights": "",
        "seed": 0,
        "stretch_min": [1.0, 2.0, 3.0],
        "stretch_max": [200.0],
    }
    assert results == {"OUTPUT_WEIGHTS": str(out / "own.safetensors"), "REPORT": str(out / "r.html")}
    assert "F1 0.500, precision 0.600, recall 0.400, IoU 0.330, kappa 0.450." in feedback.textLog()
    written = json.loads((out / "own.safetensors.kestrel.json").read_text())
    assert {entry["path"] for entry in written["inputs"]} == set(layers.values())


def test_feature_job_of_a_folder(training_stub, tiles, out):
    run({"FOLDER": tiles, "BANDS_BEFORE": [3, 2, 1], "OUTPUT_WEIGHTS": str(out / "own.safetensors")})
    [job] = training_stub.jobs
    real = os.path.realpath(tiles)
    assert job.inputs == {
        "before": {"path": f"{real}/A", "bands": [3, 2, 1]},
        "after": {"path": f"{real}/B", "bands": []},
        "changes": {"path": f"{real}/label", "bands": []},
    }


def lines(folder):
    return make_polygons(folder / "roads.gpkg", ["LINESTRING(0 0,1 1)"], kind=ogr.wkbLineString)


#: parameters (a function gets a folder and the layers), words of the sentence; None takes a layer away
CASES = {
    "nothing": ({"BEFORE": None, "AFTER": None, "CHANGES": None}, "Choose BEFORE, AFTER and CHANGES, or a"),
    "no-before": ({"BEFORE": None}, "BEFORE: choose a raster of the earlier date"),
    "no-after": ({"AFTER": None}, "AFTER: choose a raster of the later date"),
    "no-changes": ({"CHANGES": None}, "CHANGES: choose polygons of what changed"),
    "both": (
        lambda folder, layers: {"FOLDER": str(folder), "AFTER": None},
        "FOLDER .* leave BEFORE, CHANGES",
    ),
    "no-folder": (
        {"BEFORE": None, "AFTER": None, "CHANGES": None, "FOLDER": "/nowhere/tiles"},
        "FOLDER: /nowhere/tiles is no folder",
    ),
    "sub-folder": (
        lambda folder, layers: {**dict.fromkeys(layers), "FOLDER": str(folder)},
        "FOLDER: .* has no sub-folder A; it must hold A, B, label with files of equal names",
    ),
    "same": (
        lambda folder, layers: {"AFTER": layers["BEFORE"]},
        "BEFORE and AFTER are the same raster .* nothing could be learned",
    ),
    "lines": (lambda folder, layers: {"CHANGES": lines(folder)}, "CHANGES: .* holds no polygons"),
    "empty": (
        lambda folder, layers: {"CHANGES": make_polygons(folder / "none.gpkg", [])},
        "CHANGES: .* holds no polygons; choose a layer or a selection",
    ),
    "two-bands": (
        lambda folder, layers: {"AFTER": make_raster(folder / "two.tif", bands=2)},
        r"AFTER: two has 2 band\(s\), but three visible bands are needed",
    ),
    "bands": ({"BANDS_AFTER": [1, 2, 5]}, "BANDS_AFTER names band 5, but after has 3 bands"),
    "complex": (
        lambda folder, layers: {"AFTER": make_raster(folder / "slc.tif", bands=3, kind=gdal.GDT_CFloat32)},
        "AFTER: band 1 of slc is complex, which is SAR data; change is looked for in visible bands only",
    ),
    "crop": ({"CROP": 72}, "CROP is 72; it must be a multiple of 16, such as 64 or 80"),
    "base": ({"BASE_WEIGHTS": "/no/a.safetensors"}, "BASE_WEIGHTS: /no/a.safetensors does not exist"),
    "output": ({"OUTPUT_WEIGHTS": ""}, "OUTPUT_WEIGHTS: choose a file"),
}


@pytest.mark.parametrize("case", CASES)
def test_exception_bad_value_is_refused_with_one_sentence(training_stub, layers, out, tmp_path, case):
    values, words = CASES[case]
    folder = tmp_path / "made"
    folder.mkdir()
    values = values(folder, layers) if callable(values) else values
    before = folder_state(out)
    with pytest.raises(QgsProcessingException, match=words) as caught:
        run({**layers, "OUTPUT_WEIGHTS": str(out / "own.safetensors"), **values})
    assert "\n" not in str(caught.value).removeprefix("Unable to execute algorithm\n").strip()
    assert training_stub.jobs == []
    assert folder_state(out) == before


def test_feature_dates_in_one_file_and_of_other_band_counts(training_stub, layers, out, tmp_path):
    """Six bands, three of each date, are two dates; so are rasters of three and of four bands."""
    both = make_raster(tmp_path / "both.tif", width=280, height=260, bands=6, pixel=1.0)
    values = {"BEFORE": both, "AFTER": both, "BANDS_BEFORE": [1, 2, 3], "BANDS_AFTER": [4, 5, 6]}
    run({**layers, **values, "OUTPUT_WEIGHTS": str(out / "a.safetensors")})
    four = make_raster(tmp_path / "four.tif", width=280, height=260, bands=4, pixel=1.0)
    run({**layers, "AFTER": four, "OUTPUT_WEIGHTS": str(out / "b.safetensors")})
    assert len(training_stub.jobs) == 2


# --- the real worker ------------------------------------------------------------------------------


@pytest.fixture
def real_worker(provider, monkeypatch, tmp_path):
    monkeypatch.setenv("KESTREL_PYTHON", sys.executable)
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "home" / "cache" / "training"


@pytest.mark.slow
def test_feature_weights_of_layers_and_of_a_folder_find_changes(real_worker, layers, tiles, out):
    script = ROOT / "tests" / "support" / "write_building_change_weights.py"
    command = [sys.executable, str(script), str(out / "base.safetensors")]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": ""}, check=True)
    small = {"EPOCHS": 2, "BATCH": 4, "BASE_WEIGHTS": str(out / "base.safetensors")}
    results, feedback = run(
        {
            **layers,
            **small,
            "CROP": 64,
            "OUTPUT_WEIGHTS": str(out / "a.safetensors"),
            "REPORT": str(out / "a.html"),
        }
    )
    log = feedback.textLog()
    assert re.search(r"Epoch 2: loss [\d.]+, validation F1 [\d.]+, IoU [\d.]+, kappa -?[\d.e-]+", log)
    assert "16 crops of 64 x 64 pixels" in log
    assert list(real_worker.iterdir()) == []
    page = Path(results["REPORT"]).read_text()
    assert "new_houses" in page
    assert "kestrel-" not in page  # the copy that lay in scratch
    history = json.loads((out / "a.safetensors.kestrel.json").read_text())
    assert history["crops"]["marked pixels"] == pytest.approx(
        sum(rows * cols for *_, rows, cols in CHANGED) / 256**2
    )
    run({"FOLDER": tiles, **small, "CROP": 32, "OUTPUT_WEIGHTS": str(out / "b.safetensors")})
    for name in ("a", "b"):
        found = processing.run(
            "kestrel:detectbuildingchange",
            {
                "BEFORE": layers["BEFORE"],
                "AFTER": layers["AFTER"],
                "WEIGHTS": str(out / f"{name}.safetensors"),
                "OUTPUT": str(out / f"{name}.gpkg"),
                "OUTPUT_MASK": str(out / f"{name}_mask.tif"),
            },
        )
        assert gdal.Open(found["OUTPUT_MASK"]).RasterXSize == 280
