"""Every refusal of kestrel:dehaze before the run: one sentence, no worker, nothing written.

What it shares with kestrel:dehazedarkchannel is tested there case by case; here one of each kind.
"""

import json
import os
import re
import subprocess

import processing
import pytest
from kestrel.plugin import weight_files
from kestrel.tests.support.algorithm_tools import ROOT, fake_weights, folder_state, make_raster
from kestrel.tests.support.raster_tools import RGB, hazy_raster
from osgeo import gdal
from qgis.core import QgsProcessingContext, QgsProcessingException, QgsProcessingFeedback

DEHAZE = "kestrel:dehaze"


def with_card(path, **card):
    """A file that starts as safetensors with that card."""
    header = json.dumps({"__metadata__": {"kestrel": json.dumps(card)}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return str(path)


def two_bands(folder):
    return make_raster(folder / "two.tif", bands=2, width=70, height=70)


def small(folder):
    return hazy_raster(folder / "small.tif", width=63, height=500)


def flat(folder):
    return hazy_raster(folder / "flat.tif", width=500, height=10)


def complex_raster(folder):
    return make_raster(folder / "slc.tif", bands=3, kind=gdal.GDT_CFloat32, width=70, height=70)


def radar(folder):
    path = make_raster(folder / "s1.tif", bands=3, kind=gdal.GDT_Float32, width=70, height=70)
    data = gdal.Open(path, gdal.GA_Update)
    for number, name in enumerate(("Sigma0_VV_db", "Sigma0_VH_db", "angle"), 1):
        data.GetRasterBand(number).SetDescription(name)
    del data
    return path


def with_alpha(folder):
    return make_raster(folder / "rgba.tif", bands=4, colours=(*RGB, gdal.GCI_AlphaBand), width=70, height=70)


def for_ships(folder):
    return with_card(folder / "ships.safetensors", name="mine", paper="01: ships")


def a_zip(folder):
    (folder / "a.safetensors").write_bytes(b"PK\x03\x04 nothing that anybody opens")
    return str(folder / "a.safetensors")


#: parameters (a function gets the folder), words of the sentence
CASES = {
    "bands": ({"INPUT": two_bands}, r"INPUT: two has 2 band\(s\), but three visible bands are needed"),
    "small": (
        {"INPUT": small},
        r"INPUT: small has 63 x 500 pixels, but at least 64 x 64 are needed\.",
    ),
    "flat": ({"INPUT": flat}, "INPUT: flat has 500 x 10 pixels, but at least 64 x 64"),
    "complex": ({"INPUT": complex_raster}, "INPUT: band 1 of slc is complex, which is SAR data"),
    "radar": ({"INPUT": radar}, "INPUT: band 1 of s1 is SAR by its name"),
    "bands-alpha": ({"INPUT": with_alpha, "BANDS": [1, 2, 4]}, "BANDS: band 4 of rgba is its alpha band"),
    "bands-two": ({"BANDS": [1, 2]}, "BANDS is 1,2; choose three different bands"),
    "stretch": ({"STRETCH_MIN": "5", "STRETCH_MAX": "5"}, r"STRETCH_MIN \(5\) must be less than"),
    "strength": ({"STRENGTH": 1.5}, r"STRENGTH is 1\.5; it must lie between 0 and 1"),
    "tile": ({"TILE": 100}, r"TILE is 100; it must be a multiple of 8, such as 96 or 104\."),
    "tile-small": ({"TILE": 56}, "TILE is 56; it must lie between 64 and 1024"),
    "tile-large": ({"TILE": 1032}, "TILE is 1032; it must lie between 64 and 1024"),
    "tile-0": ({"TILE": 0}, "TILE is 0; it must lie between 64 and 1024"),
    "overlap": ({"OVERLAP": 31}, "OVERLAP is 31; it must be at least 32, or 0 = automatic"),
    "overlap-tile": ({"OVERLAP": 512}, r"OVERLAP is 512; it must be less than TILE \(512\)"),
    "overlap-default": ({"TILE": 64}, r"OVERLAP is 64; it must be less than TILE \(64\), 0 = automatic"),
    "batch": ({"BATCH": -1}, "BATCH is -1; it must lie between 0 and 4096"),
    "device": ({"DEVICE": "tpu"}, "DEVICE"),
    "weights-none": (
        {"WEIGHTS": "/nowhere/a.safetensors"},
        r"WEIGHTS: /nowhere/a\.safetensors does not exist",
    ),
    "weights-name": (
        {"WEIGHTS": "sharp"},
        r"WEIGHTS: sharp is neither a \.safetensors file nor a known name; leave it empty, "
        "or use one of: dehazing, dehazing_early, dehazing_pack",
    ),
    "weights-zip": ({"WEIGHTS": a_zip}, r"WEIGHTS: .*a\.safetensors is not a safetensors file"),
    "weights-ships": (
        {"WEIGHTS": "sar_ships"},
        "WEIGHTS: sar_ships are weights of another model; choose weights made for dehazing",
    ),
    "weights-ships-file": (
        {"WEIGHTS": for_ships},
        r"WEIGHTS: .*ships\.safetensors holds weights of another model \(sar_ships\); choose others",
    ),
    "weights-pack": ({"WEIGHTS": "dehazing_pack"}, "weights dehazing_pack are not installed; install big fi"),
    "output-none": ({"OUTPUT": ""}, "OUTPUT: choose a file for the result"),
}


@pytest.fixture
def hazy(tmp_path):
    """Large enough for a network, in a folder of its own."""
    (tmp_path / "hazy").mkdir()
    return hazy_raster(tmp_path / "hazy" / "hazy.tif", width=70, height=70)


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    """Shipped weights in a folder of the test's own."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(weight_files, "FOLDER", folder)
    papers = {"dehazing": "07: haze", "dehazing_early": "07: haze", "sar_ships": "01: ships"}
    entries = {name: {"file": f"{name}.safetensors", "card": {"paper": p}} for name, p in papers.items()}
    for entry in entries.values():
        fake_weights(folder / entry["file"])
    entries["dehazing_pack"] = {"file": "pack.safetensors", "pack": "big"}
    (folder / "manifest.json").write_text(json.dumps(entries))
    return folder


@pytest.mark.parametrize("case", CASES)
def test_exception_bad_value_is_refused_with_one_sentence(raster_stub, hazy, manifest, out, tmp_path, case):
    values, words = CASES[case]
    folder = tmp_path / "made"
    folder.mkdir()
    (out / "clear.tif").write_text("old")
    parameters = {"INPUT": hazy, "OUTPUT": str(out / "clear.tif")}
    parameters.update({name: v(folder) if callable(v) else v for name, v in values.items()})
    before = folder_state(out)
    with pytest.raises(QgsProcessingException, match=words) as caught:
        processing.run(DEHAZE, parameters)
    message = str(caught.value).removeprefix("Unable to execute algorithm\n").strip()
    assert "\n" not in message
    assert raster_stub.jobs == []
    assert folder_state(out) == before


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"sar_ships": {}}, r"WEIGHTS: no weights for dehazing come with this version; choose a \.safet"),
        ({}, "WEIGHTS: the shipped weights dehazing are not installed; install the plugin again or choose"),
        ({"dehazing": {"file": "a.safetensors"}}, "not installed; install the plugin again or choose a"),
        ({"dehazing": {"file": "a.safetensors", "pack": "big"}}, "not installed; install big or choose a"),
    ],
    ids=["none", "damaged", "missing", "pack"],
)
@pytest.mark.parametrize("typed", [{}, {"WEIGHTS": ""}, {"WEIGHTS": "dehazing"}], ids=str)
def test_exception_default_weights_that_are_not_there(
    raster_stub, hazy, manifest, out, typed, entries, words
):
    (manifest / "manifest.json").write_text(json.dumps(entries))
    with pytest.raises(QgsProcessingException, match=words):
        processing.run(DEHAZE, {"INPUT": hazy, "OUTPUT": str(out / "clear.tif"), **typed})
    assert raster_stub.jobs == []
    assert os.listdir(out) == []


@pytest.mark.parametrize("paper", ["07: the same paper", "8: a newer one", "", None, 7])
def test_feature_own_weights_that_name_no_other_model_pass(raster_stub, hazy, manifest, out, tmp_path, paper):
    """The worker compares the network's settings; here only a mistake is caught early."""
    own = with_card(tmp_path / "own.safetensors", name="mine", paper=paper)
    processing.run(DEHAZE, {"INPUT": hazy, "WEIGHTS": own, "OUTPUT": str(out / "clear.tif")})
    assert [job.params["weights"] for job in raster_stub.jobs] == [own]


def test_exception_checks_are_repeated_where_nobody_checked(raster_stub, hazy, manifest, out, qgis_app):
    """Inside a model QGIS calls no checkParameterValues."""
    from kestrel.algorithms.dehaze import Dehaze

    feedback = QgsProcessingFeedback()
    parameters = {"INPUT": hazy, "WEIGHTS": "sar_ships", "OUTPUT": str(out / "clear.tif")}
    _, ok = Dehaze().create().run(parameters, QgsProcessingContext(), feedback)
    assert not ok
    assert "sar_ships are weights of another model" in feedback.textLog()
    assert raster_stub.jobs == []
    assert os.listdir(out) == []


@pytest.mark.parametrize("case", ["small", "tile", "weights-ships"])
def test_exception_qgis_process_exits_with_1_and_writes_nothing(provider, hazy, out, tmp_path, case):
    values, words = CASES[case]
    values = {"INPUT": hazy, "OUTPUT": out / "clear.tif", **values}
    typed = [f"{name}={v(tmp_path) if callable(v) else v}" for name, v in values.items()]
    done = subprocess.run(
        [str(ROOT / "scripts" / "qgis_process"), "run", DEHAZE, "--", *typed],
        env={**os.environ, "KESTREL_HOME": str(tmp_path / "home"), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert re.search(words, done.stdout + done.stderr)
    assert os.listdir(out) == []
