"""What reaches the worker from kestrel:dehaze (stub worker)."""

import os

import processing
import pytest
from kestrel.tests.support.algorithm_tools import fake_weights
from kestrel.tests.support.raster_tools import hazy_raster
from qgis.core import QgsProcessingFeedback, QgsSettings

DEHAZE = "kestrel:dehaze"


@pytest.fixture
def large(tmp_path):
    """As small as the algorithm takes it."""
    return hazy_raster(tmp_path / "hazy.tif", width=64, height=64)


@pytest.fixture
def run(raster_stub, large, weights):
    """Run with weights of our own; return the Job and the log."""

    def run_it(**more):
        feedback = QgsProcessingFeedback()
        parameters = {"INPUT": large, "WEIGHTS": weights, "OUTPUT": "TEMPORARY_OUTPUT", **more}
        processing.run(DEHAZE, parameters, feedback=feedback)
        return raster_stub.jobs[-1], feedback.textLog()

    return run_it


def test_feature_job_holds_the_defaults(run, large, weights, out):
    job, _ = run(OUTPUT=str(out / "clear.tif"))
    assert (job.kind, job.model, job.device) == ("predict", "dehazing", "auto")
    assert job.inputs == {"image": {"path": large, "bands": []}}
    assert job.outputs == {"raster": str(out / "clear.tif")}
    assert job.params == {
        "other_bands": "copy",
        "weights": weights,
        "strength": 1.0,
        "tile": 0,
        "overlap": 64,
        "memory_mb": 0,
    }


def test_feature_job_holds_what_was_typed(run, large, weights, out):
    reference = hazy_raster(out / "reference.tif", width=64, height=64)
    job, _ = run(
        BANDS="3,2,1",
        OTHER_BANDS="drop",
        STRETCH_MIN="1,2,3",
        STRETCH_MAX="200",
        TILE=256,
        OVERLAP=32,
        STRENGTH=0.5,
        BATCH=2,
        DEVICE="cpu",
        REFERENCE=reference,
        OUTPUT=str(out / "clear.tif"),
        OUTPUT_HAZE=str(out / "haze.tif"),
        REPORT=str(out / "report.html"),
    )
    assert job.device == "cpu"
    assert job.inputs == {
        "image": {"path": large, "bands": [3, 2, 1]},
        "reference": {"path": reference, "bands": []},
    }
    assert set(job.outputs) == {"raster", "haze", "report"}
    assert job.params == {
        "other_bands": "drop",
        "weights": weights,
        "stretch_min": [1.0, 2.0, 3.0],
        "stretch_max": [200.0],
        "strength": 0.5,
        "tile": 256,
        "overlap": 32,
        "batch": 2,
        "memory_mb": 0,
    }


@pytest.mark.parametrize(("typed", "sent"), [({}, 0), ({"TILE": 512}, 512), ({"TILE": None}, 0)])
def test_feature_a_tile_that_was_not_typed_is_the_cards(run, typed, sent):
    assert run(**typed)[0].params["tile"] == sent


def test_feature_automatic_overlap_is_allowed(run):
    assert run(OVERLAP=0)[0].params["overlap"] == 0


def test_feature_weights_reach_the_worker_by_name_or_whole_path(run, weights, tmp_path, monkeypatch):
    mine = tmp_path / "home" / "weights"
    mine.mkdir(parents=True)
    fake_weights(mine / "mine.safetensors")
    assert run(WEIGHTS="mine")[0].params["weights"] == "mine"
    monkeypatch.chdir(tmp_path)
    assert run(WEIGHTS=os.path.basename(weights))[0].params["weights"] == weights


def test_feature_device_auto_is_what_the_setting_says(run):
    try:
        QgsSettings().setValue("kestrel/device", "cpu")
        assert run()[0].device == "cpu"
    finally:
        QgsSettings().remove("kestrel/device")


def test_feature_copied_bands_are_called_not_comparable(run, tmp_path):
    five = hazy_raster(tmp_path / "five.tif", bands=5, width=64, height=64)
    assert "2 other band(s) are copied as they are" in run(INPUT=five)[1]
