"""kestrel:traindehazing: its interface, its Job, its refusals, and a training with the real worker."""

import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import processing
import pytest
from kestrel.plugin import weight_files
from kestrel.plugin.errors import WorkerCancelled, WorkerError
from kestrel.tests.support.algorithm_tools import ROOT, folder_state, make_raster
from kestrel.tests.support.raster_tools import pixels
from kestrel.tests.support.training_tools import TrainingStub, layer, pair
from osgeo import gdal
from qgis.core import (
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterDefinition,
    QgsProject,
    QgsRasterLayer,
)

TRAIN = "kestrel:traindehazing"
PARAMETERS = [
    ("HAZY", None),
    ("CLEAR", None),
    ("BANDS", None),
    ("STRETCH_MIN", None),
    ("STRETCH_MAX", None),
    ("SIMULATE", False),
    ("PRESET", "small"),
    ("EPOCHS", 20),
    ("BATCH", 8),
    ("CROP", 96),
    ("LEARNING_RATE", 0.001),
    ("BASE_WEIGHTS", None),
    ("SEED", 0),
    ("DEVICE", "auto"),
    ("OUTPUT_WEIGHTS", None),
    ("REPORT", None),
]
REQUIRED = {name for name, default in PARAMETERS if default is not None} | {"CLEAR", "OUTPUT_WEIGHTS"}
ADVANCED = {"STRETCH_MIN", "STRETCH_MAX", "BATCH", "LEARNING_RATE", "SEED", "DEVICE"}
#: A training of seconds.
SMALL = {"CROP": 32, "EPOCHS": 2, "BATCH": 4}


@pytest.fixture
def algorithm(provider):
    return provider.algorithm("traindehazing")


@pytest.fixture
def training_stub(provider, qgis_new_project, monkeypatch, tmp_path):
    from kestrel.algorithms import training

    worker = TrainingStub()
    monkeypatch.setattr(training, "run_job", worker)
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))
    return worker


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    hazy, clear = pair(tmp_path_factory.mktemp("layers"))
    return {"HAZY": hazy, "CLEAR": clear}


def run(values, feedback=None):
    feedback = feedback or QgsProcessingFeedback()
    return processing.run(TRAIN, values, feedback=feedback), feedback


# --- interface ------------------------------------------------------------------------------------


def test_feature_parameters_and_defaults_are_the_fixed_ones(algorithm):
    assert [(p.name(), p.defaultValue()) for p in algorithm.parameterDefinitions()] == PARAMETERS


def test_feature_flags_fold_away_what_is_rare(algorithm):
    flags = QgsProcessingParameterDefinition.Flag
    names = {
        flag: {p.name() for p in algorithm.parameterDefinitions() if p.flags() & flag}
        for flag in (flags.FlagAdvanced, flags.FlagOptional)
    }
    assert names[flags.FlagAdvanced] == ADVANCED
    # a switch and numbers have defaults, so that leaving them out is fine
    assert names[flags.FlagOptional] == {name for name, _ in PARAMETERS} - REQUIRED


def test_feature_names_outputs_and_help(algorithm):
    assert (algorithm.id(), algorithm.groupId()) == (TRAIN, "restoration")
    assert [output.name() for output in algorithm.outputDefinitions()] == ["OUTPUT_WEIGHTS", "REPORT"]
    assert not algorithm.parameterDefinition("REPORT").createByDefault()
    assert algorithm.parameterDefinition("PRESET").options() == ["small", "paper"]
    assert algorithm.parameterDefinition("PRESET").usesStaticStrings()
    assert "*.safetensors" in algorithm.parameterDefinition("OUTPUT_WEIGHTS").fileFilter()
    assert not algorithm.icon().pixmap(16, 16).isNull()
    assert os.path.basename(algorithm.svgIconPath()) == "train_dehazing.svg"
    assert {"training", "fine-tune", "dehazing"} <= set(algorithm.tags())
    text = algorithm.shortHelpString()
    assert ElementTree.fromstring(f"<help>{text}</help>") is not None
    for parameter in algorithm.parameterDefinitions():
        assert len(parameter.help()) > 15, parameter.name()
    for words in ("WEIGHTS", "checkpoint", "validation", "preliminary", "Guan"):
        assert words in text


# --- the Job --------------------------------------------------------------------------------------


def test_feature_job_holds_the_defaults(training_stub, layers, out):
    results, feedback = run({**layers, "OUTPUT_WEIGHTS": str(out / "own.safetensors")})
    [job] = training_stub.jobs
    assert (job.kind, job.model, job.device) == ("train", "dehazing", "auto")
    assert job.inputs == {
        "hazy": {"path": layers["HAZY"], "bands": []},
        "clear": {"path": layers["CLEAR"], "bands": []},
    }
    assert job.outputs == {"weights": str(out / "own.safetensors")}
    assert job.params == {
        "simulate": False,
        "preset": "small",
        "epochs": 20,
        "batch": 8,
        "crop": 96,
        "learning_rate": 0.001,
        "base_weights": "",
        "seed": 0,
    }
    assert results == {"OUTPUT_WEIGHTS": str(out / "own.safetensors")}
    log = feedback.textLog()
    assert "PSNR 30.00 dB; 20.00 dB untreated, 25.00 dB after" in log
    written = json.loads((out / "own.safetensors.kestrel.json").read_text())
    assert written["algorithm"] == TRAIN
    assert written["parameters"]["EPOCHS"] == 20
    assert written["crops"] == {"learned from": 16, "validated on": 4}
    assert written["warnings"] == ["a stub warned"]
    assert {entry["path"] for entry in written["inputs"]} == set(layers.values())


def test_feature_job_holds_what_was_typed(training_stub, layers, out):
    results, _ = run(
        {
            "CLEAR": layers["CLEAR"],
            "BANDS": [3, 2, 1],
            "STRETCH_MIN": "1,2,3",
            "STRETCH_MAX": "200",
            "SIMULATE": True,
            "PRESET": "paper",
            "EPOCHS": 3,
            "BATCH": 2,
            "CROP": 64,
            "LEARNING_RATE": 0.0002,
            "SEED": 7,
            "DEVICE": "cpu",
            "OUTPUT_WEIGHTS": str(out / "own"),
            "REPORT": str(out / "r.html"),
        }
    )
    [job] = training_stub.jobs
    assert job.device == "cpu"
    assert job.inputs == {"clear": {"path": layers["CLEAR"], "bands": [3, 2, 1]}}
    # an ending is added, and told
    assert job.outputs == {"weights": str(out / "own.safetensors"), "report": str(out / "r.html")}
    assert results == {"OUTPUT_WEIGHTS": str(out / "own.safetensors"), "REPORT": str(out / "r.html")}
    assert job.params == {
        "simulate": True,
        "preset": "paper",
        "epochs": 3,
        "batch": 2,
        "crop": 64,
        "learning_rate": 0.0002,
        "base_weights": "",
        "seed": 7,
        "stretch_min": [1.0, 2.0, 3.0],
        "stretch_max": [200.0],
    }


def test_feature_temporary_weights_are_made_and_said(training_stub, layers):
    results, feedback = run({**layers, "OUTPUT_WEIGHTS": "TEMPORARY_OUTPUT"})
    assert results["OUTPUT_WEIGHTS"].endswith(".safetensors")
    assert "cannot be gone on with" in feedback.textLog()


def test_feature_cancel_says_how_to_go_on_and_keeps_the_old_file(training_stub, layers, out):
    (out / "own.safetensors").write_text("old")
    training_stub.error = WorkerCancelled()
    with pytest.raises(
        QgsProcessingException, match=r"no weights were written\. The same call again goes on"
    ):
        run({**layers, "OUTPUT_WEIGHTS": str(out / "own.safetensors")})
    assert (out / "own.safetensors").read_text() == "old"
    training_stub.error, training_stub.late_error = None, WorkerCancelled()
    with pytest.raises(QgsProcessingException, match="had just been finished and stays"):
        run({**layers, "OUTPUT_WEIGHTS": str(out / "own.safetensors")})


def test_exception_of_the_worker_is_one_sentence(training_stub, layers, out):
    training_stub.error = WorkerError("CLEAR c does not overlap HAZY h.", "Choose another.", "", "parameter")
    with pytest.raises(QgsProcessingException, match=r"does not overlap HAZY h\. Choose another") as error:
        run({**layers, "OUTPUT_WEIGHTS": str(out / "own.safetensors")})
    assert "Traceback" not in str(error.value)
    assert os.listdir(out) == []


# --- refusals -------------------------------------------------------------------------------------


def radar(folder):
    path = make_raster(folder / "s1.tif", bands=3, kind=gdal.GDT_Float32)
    data = gdal.Open(path, gdal.GA_Update)
    for number, name in enumerate(("Sigma0_VV_db", "Sigma0_VH_db", "angle"), 1):
        data.GetRasterBand(number).SetDescription(name)
    del data
    return path


def with_card(folder, **card):
    """A file that starts like weights, with a card."""
    header = json.dumps({"__metadata__": {"kestrel": json.dumps(card)}}).encode()
    path = folder / "base.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return str(path)


#: parameters (a function gets the folder), words of the sentence
CASES = {
    "no-clear": ({"CLEAR": ""}, "CLEAR: choose a raster layer or file without haze"),
    "no-hazy": ({"HAZY": ""}, "HAZY: choose a hazy layer .* or set SIMULATE"),
    "missing": ({"HAZY": "/nowhere/a.tif"}, r"HAZY: /nowhere/a\.tif does not exist"),
    "same": (lambda folder, layers: {"HAZY": layers["CLEAR"]}, "HAZY and CLEAR are the same raster"),
    "two-bands": (
        lambda folder, layers: {"CLEAR": make_raster(folder / "two.tif", bands=2)},
        r"CLEAR: two has 2 band\(s\), but three visible bands are needed",
    ),
    "bands-differ": (
        lambda folder, layers: {"CLEAR": make_raster(folder / "five.tif", bands=5)},
        "HAZY hazy has 3 bands and CLEAR five has 5; write in BANDS",
    ),
    "bands-5": (
        lambda folder, layers: {"HAZY": make_raster(folder / "five.tif", bands=5), "BANDS": [1, 2, 5]},
        "BANDS names band 5, but clear has 3 bands",
    ),
    "bands-two": ({"BANDS": [1, 2]}, "BANDS is 1,2; choose three different bands"),
    "radar": (lambda folder, layers: {"HAZY": radar(folder)}, "HAZY: band 1 of s1 is SAR by its name"),
    "complex": (
        lambda folder, layers: {"CLEAR": make_raster(folder / "slc.tif", bands=3, kind=gdal.GDT_CFloat32)},
        "CLEAR: band 1 of slc is complex, which is SAR data",
    ),
    "gcps": (
        lambda folder, layers: {"HAZY": make_raster(folder / "gcp.tif", bands=3, gcps=True)},
        "HAZY: gcp is placed by ground control points only",
    ),
    "bare": (
        lambda folder, layers: {"HAZY": make_raster(folder / "bare.tif", bands=3, epsg=0, width=9)},
        "CLEAR: clear has 160 x 128 pixels, HAZY 9 x 48, and without georeference",
    ),
    "crop": ({"CROP": 60}, "CROP is 60; it must be a multiple of 8, such as 56 or 64"),
    "crop-small": ({"CROP": 8}, "CROP is 8; it must lie between 32 and 1024"),
    "epochs": ({"EPOCHS": 0}, "EPOCHS is 0; it must lie between 1 and 10000"),
    "batch": ({"BATCH": 0}, "BATCH is 0; it must lie between 1 and 256"),
    "rate": ({"LEARNING_RATE": 0}, "LEARNING_RATE is 0; it must lie between"),
    "rate-nan": ({"LEARNING_RATE": "nan"}, "LEARNING_RATE is nan"),
    "seed": ({"SEED": -1}, "SEED is -1"),
    "preset": ({"PRESET": "huge"}, "PRESET"),
    "stretch": ({"STRETCH_MIN": "1"}, "STRETCH_MIN is given without STRETCH_MAX"),
    "stretch-text": ({"STRETCH_MIN": "a", "STRETCH_MAX": "2"}, "STRETCH_MIN is a; write one number"),
    "base-missing": ({"BASE_WEIGHTS": "/no/a.safetensors"}, "BASE_WEIGHTS: /no/a.safetensors does not exist"),
    "base-name": ({"BASE_WEIGHTS": "boats"}, "BASE_WEIGHTS: boats is neither"),
    "base-preset": (
        lambda folder, layers: {"BASE_WEIGHTS": with_card(folder, paper="07: DWTMA-Net", preset="paper")},
        "BASE_WEIGHTS base.safetensors are of the preset paper, but PRESET is small",
    ),
    "base-model": (
        lambda folder, layers: {"BASE_WEIGHTS": with_card(folder, paper="01", preset="paper")},
        "BASE_WEIGHTS: .* holds weights of another model",
    ),
    "output-none": ({"OUTPUT_WEIGHTS": ""}, "OUTPUT_WEIGHTS: choose a file"),
    "output-ending": ({"OUTPUT_WEIGHTS": "/tmp/own.pt"}, "OUTPUT_WEIGHTS: own.pt must end with .safetensors"),
    "output-folder": ({"OUTPUT_WEIGHTS": "/no/own.safetensors"}, "OUTPUT_WEIGHTS: the folder /no does not"),
    "output-shipped": (
        {"OUTPUT_WEIGHTS": str(weight_files.FOLDER / "mine.safetensors")},
        "holds the shipped weights; choose another folder",
    ),
    "output-base": (
        lambda folder, layers: dict.fromkeys(
            ("BASE_WEIGHTS", "OUTPUT_WEIGHTS"), with_card(folder, paper="07", preset="small")
        ),
        "OUTPUT_WEIGHTS is the same file as BASE_WEIGHTS",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_exception_bad_value_is_refused_with_one_sentence(training_stub, layers, out, tmp_path, case):
    values, words = CASES[case]
    folder = tmp_path / "made"
    folder.mkdir()
    values = values(folder, layers) if callable(values) else values
    (out / "own.safetensors").write_text("old")
    before = folder_state(out)
    with pytest.raises(QgsProcessingException, match=words) as caught:
        run({**layers, "OUTPUT_WEIGHTS": str(out / "own.safetensors"), **values})
    assert "\n" not in str(caught.value).removeprefix("Unable to execute algorithm\n").strip()
    assert training_stub.jobs == []
    assert folder_state(out) == before


# --- the real worker ------------------------------------------------------------------------------


@pytest.fixture
def real_worker(provider, monkeypatch, tmp_path):
    monkeypatch.setenv("KESTREL_PYTHON", sys.executable)
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))
    # the order of sums follows from the number of threads
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "home" / "cache" / "training"


class Stopper(QgsProcessingFeedback):
    """Cancels itself once a text of the training says that so many steps are done."""

    def __init__(self, steps):
        super().__init__()
        self.steps, self.at, self.texts = steps, None, []

    def setProgressText(self, text):
        self.texts.append(text)
        super().setProgressText(text)

    def setProgress(self, progress):
        super().setProgress(progress)
        # 8 % before the first step, 97 % after the last
        if self.at is None and progress >= 8 + 89 * self.steps:
            self.at = time.monotonic()
            self.cancel()


def history(path):
    return json.loads(Path(f"{path}.kestrel.json").read_text())


@pytest.mark.slow
def test_feature_toolbox_and_qgis_process_train_weights_that_dehaze_loads(real_worker, layers, out):
    results, feedback = run(
        {**layers, **SMALL, "OUTPUT_WEIGHTS": str(out / "a.safetensors"), "REPORT": str(out / "a.html")}
    )
    assert results == {"OUTPUT_WEIGHTS": str(out / "a.safetensors"), "REPORT": str(out / "a.html")}
    log = feedback.textLog()
    assert re.search(r"Epoch 2: loss [\d.]+, validation PSNR \(dB\) [\d.]+", log)
    assert "20 crops of 32 x 32 pixels: 16 to learn from and 4 to validate on" in log
    typed = {**layers, **SMALL, "OUTPUT_WEIGHTS": out / "b.safetensors"}
    done = subprocess.run(
        [
            str(ROOT / "scripts" / "qgis_process"),
            *("run", TRAIN, "--json", "--"),
            *(f"{name}={value}" for name, value in typed.items()),
        ],
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout[done.stdout.index("{") :])["results"] == {
        "OUTPUT_WEIGHTS": str(out / "b.safetensors")
    }
    a, b = (history(out / name) for name in ("a.safetensors", "b.safetensors"))
    assert a["validation"] == b["validation"]
    assert a["validation"]
    assert list(real_worker.iterdir()) == []
    page = (out / "a.html").read_text()
    assert "Validation crops" in page
    assert page.count("<img") == 2 + 4
    processing.run(
        "kestrel:dehaze",
        {"INPUT": layers["HAZY"], "WEIGHTS": str(out / "a.safetensors"), "OUTPUT": str(out / "clear.tif")},
    )
    assert pixels(out / "clear.tif")[1:] == pixels(layers["HAZY"])[1:]
    assert pixels(out / "clear.tif")[0] != pixels(layers["HAZY"])[0]


@pytest.mark.slow
def test_fault_cancel_is_quick_and_the_same_call_goes_on(real_worker, layers, out):
    values = {**layers, **SMALL, "EPOCHS": 8, "OUTPUT_WEIGHTS": str(out / "a.safetensors")}
    stopper = Stopper(0.4)
    with pytest.raises(QgsProcessingException, match="The same call again goes on"):
        run(values, stopper)
    assert time.monotonic() - stopper.at < 3  # 2 s, and a processor that others use as well
    assert os.listdir(out) == []
    [kept] = real_worker.iterdir()
    assert (kept / "checkpoint.safetensors").exists()
    _, feedback = run(values)
    step, total = map(int, re.search(r"Going on from step (\d+) of (\d+)", feedback.textLog()).groups())
    assert step > 0.3 * total
    assert list(real_worker.iterdir()) == []
    assert os.path.getsize(out / "a.safetensors") > 100_000


@pytest.mark.slow
def test_exception_what_only_the_worker_sees_keeps_the_old_file(real_worker, layers, out, tmp_path):
    far = layer(tmp_path / "far.tif", haze=0, transform=(700000, 10, 0, 4500000, 0, -10))
    (out / "a.safetensors").write_text("old")
    for values, words in (
        ({"CLEAR": far}, "CLEAR far.tif does not overlap HAZY hazy.tif"),
        ({"CROP": 64}, "HAZY hazy.tif and CLEAR clear.tif hold 4 crops of 64 x 64 pixels"),
    ):
        with pytest.raises(QgsProcessingException, match=words) as caught:
            run({**layers, **SMALL, "OUTPUT_WEIGHTS": str(out / "a.safetensors"), **values})
        assert "Traceback" not in str(caught.value)
        assert os.listdir(out) == ["a.safetensors"]
        assert (out / "a.safetensors").read_text() == "old"


def test_feature_layer_of_the_project_that_is_no_file_is_exported(training_stub, layers, out, tmp_path):
    """What lies in an archive is exported to the scratch folder, each layer to one of its own."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(layers["HAZY"], "inside.tif")
    raster = QgsRasterLayer(f"/vsizip/{tmp_path / 'a.zip'}/inside.tif", "in an archive")
    assert raster.isValid()
    QgsProject.instance().addMapLayer(raster)
    run({**layers, "HAZY": raster, "OUTPUT_WEIGHTS": str(out / "own.safetensors")})
    [job] = training_stub.jobs
    assert os.path.basename(os.path.dirname(job.inputs["hazy"]["path"])) == "hazy"
    assert job.inputs["hazy"]["path"].startswith(job.scratch)
    assert job.inputs["clear"]["path"] == layers["CLEAR"]
