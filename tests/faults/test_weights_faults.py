"""Fault 23 through the real worker: spoiled weights end in one sentence, run no code, leave nothing.

One warm worker serves all tests: a refusal must not cost it its life. The last tests show that the
same worker then loads a good file.
"""

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from kestrel.engine.job import Job
from kestrel.models.weights import update_manifest
from kestrel.plugin import paths
from kestrel.plugin.errors import WorkerError
from kestrel.plugin.warm import WarmPool
from kestrel.plugin.worker import run_job
from kestrel.tests.support import rasters
from kestrel.tests.support import ship_weights as tools
from kestrel.tests.support.worker_tools import ROOT, Feedback, children_with, wait_until

pytestmark = pytest.mark.qgis


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    home = tmp_path_factory.mktemp("home")
    patch.setenv("KESTREL_HOME", str(home))
    patch.setenv("KESTREL_PYTHON", sys.executable)
    patch.setenv("OMP_NUM_THREADS", "1")
    patch.setenv("KESTREL_TEST_WEIGHTS", str(home / "shipped"))
    patch.setattr(paths, "LAUNCH", ROOT / "tests" / "support" / "launch_other_weights.py")
    pool = WarmPool(minutes=5)
    yield pool
    pool.shut_down()
    assert wait_until(lambda: not children_with(str(home)), 3.0)
    patch.undo()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return tools.write_ship_weights(tmp_path_factory.mktemp("good") / "good.safetensors")[0]


@pytest.fixture
def shipped(pool):
    """A shipped default, with its line in the manifest, in the folder the worker takes for ours."""
    folder = Path(os.environ["KESTREL_TEST_WEIGHTS"])
    folder.mkdir()
    file, sha256, _ = tools.write_ship_weights(folder / "sar_ships.safetensors")
    update_manifest(file, "sar_ships")
    yield SimpleNamespace(file=file, sha256=sha256)
    shutil.rmtree(folder)


@pytest.fixture
def detect(pool, tmp_path):
    """Run ship detection on a small sea with the weights as typed; returns the result message."""
    image = tmp_path / "sea.tif"
    sea = np.random.default_rng(0).gamma(4, 10, (128, 192)).clip(0, 255).astype(np.uint8)
    rasters.write(image, sea)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def call(weights, **params):
        outputs = {"boxes": str(scratch / "boxes.fgb"), "report": str(scratch / "report.html")}
        inputs = {"image": {"path": str(image), "bands": [1]}}
        params = {"weights": str(weights), **params}
        return run_job(
            Job("predict", "sar_ships", inputs, outputs, params, scratch=str(scratch)), Feedback(), warm=pool
        )

    call.scratch = scratch
    return call


def refused(detect, weights, *words):
    with pytest.raises(WorkerError) as caught:
        detect(weights)
    error = caught.value
    assert error.code == "model", error.text()
    assert "\n" not in error.message
    for word in words:
        assert word in error.message
    assert os.listdir(detect.scratch) == []
    return error


def test_fault_23_missing_folder_and_foreign_name(detect, tmp_path):
    refused(detect, tmp_path / "none.safetensors", "Weights not found", "none.safetensors")
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    refused(detect, folder, "is not a file")
    refused(detect, "checkpoint.pt", "neither a .safetensors file nor a known name")


def test_fault_23_pickles_are_never_loaded(detect, tmp_path):
    proof = tmp_path / "proof"
    refused(detect, tools.pickle_bomb(tmp_path / "p.safetensors", proof), "a Python pickle", "not opened")
    refused(detect, tools.zip_bomb(tmp_path / "z.safetensors", proof), "a zip archive", "not opened")
    assert not proof.exists()


def test_fault_23_extra_and_missing_keys(detect, tmp_path, good):
    bad = tools.renamed_key(tmp_path / "keys.safetensors", good)
    refused(detect, bad, "lacks 1 tensor (stem.0.conv.weight)", "has 1 tensor (stem.extra)")


def test_fault_23_nan(detect, tmp_path, good):
    refused(detect, tools.with_nan(tmp_path / "nan.safetensors", good), "NaN or infinite", "running_mean")


def test_fault_23_header_of_200_mb(detect, tmp_path):
    refused(detect, tools.huge_header(tmp_path / "huge.safetensors"), "a header of 200 MB")


def test_fault_23_shape_bombs(detect, tmp_path, good):
    bad = tools.shape_bomb(tmp_path / "bomb.safetensors", good)
    refused(detect, bad, "1048576 x 1048576", "holds less data")
    # a card that asks for a network of terabytes
    header, data = tools.read_parts(good)
    card = header["__metadata__"]["kestrel"].replace('"width": 0.125', '"width": 1e9')
    wide = tools.write_parts(
        tmp_path / "wide.safetensors", {**header, "__metadata__": {"kestrel": card}}, data
    )
    refused(detect, wide, "asks for a network of width")


def test_fault_23_another_class_list(detect, tmp_path, good):
    header, data = tools.read_parts(good)
    card = header["__metadata__"]["kestrel"].replace('["ship"]', '["ship", "buoy"]')
    bad = tools.write_parts(
        tmp_path / "classes.safetensors", {**header, "__metadata__": {"kestrel": card}}, data
    )
    refused(detect, bad, "names 2 classes (ship, buoy)", "its network has 1")


def test_fault_23_good_weights_of_the_users_own_run_and_are_recorded(detect, good):
    message = detect(good, confidence=0.0)
    assert (detect.scratch / "boxes.fgb").stat().st_size > 0
    model = message["figures"]["model"]
    assert len(model["sha256"]) == 64
    assert model["id"] == f"sar_ships_random@{model['sha256'][:12]}"
    assert any("preliminary" in text for text in message["warnings"])


def test_fault_23_shipped_files_are_held_to_the_manifest(detect, shipped):
    message = detect("")
    assert message["figures"]["model"]["sha256"] == shipped.sha256
    data = bytearray(shipped.file.read_bytes())
    data[-1] ^= 1  # one bit of one weight
    shipped.file.write_bytes(data)
    (detect.scratch / "boxes.fgb").unlink()
    (detect.scratch / "report.html").unlink()
    for typed in ("", "sar_ships", shipped.file):
        error = refused(detect, typed, "sar_ships.safetensors is not the file Kestrel shipped", "sha256")
        assert "load your own weights under another name" in error.hint
    shipped.file.unlink()
    refused(detect, "", "The weights 'sar_ships' are not installed")
