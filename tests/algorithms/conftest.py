"""The provider in pytest-qgis's application, and a worker that only pretends."""

import gc

import pytest

pytest.importorskip("qgis.core", reason="needs QGIS's Python packages")

from kestrel.tests.support.algorithm_tools import StubWorker, fake_weights, make_raster
from kestrel.tests.support.change_tools import ChangeStub
from kestrel.tests.support.raster_tools import RasterStub, hazy_raster
from qgis.core import QgsApplication


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/algorithms" in item.path.as_posix():
            item.add_marker(pytest.mark.qgis)


@pytest.fixture(scope="session")
def provider(qgis_app, qgis_processing):
    from kestrel.plugin.provider import KestrelProvider

    provider = KestrelProvider()
    assert QgsApplication.processingRegistry().addProvider(provider)
    yield provider
    QgsApplication.processingRegistry().removeProvider(provider)
    # tracebacks of expected errors hold contexts with layers, which must go before GDAL does
    gc.collect()


@pytest.fixture
def stub(provider, qgis_new_project, monkeypatch, tmp_path):
    """Every run in this test goes to a stub; its Jobs are in ``stub.jobs``."""
    from kestrel.algorithms import boxes

    worker = StubWorker()
    monkeypatch.setattr(boxes, "run_job", worker)
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))
    return worker


@pytest.fixture
def raster_stub(provider, qgis_new_project, monkeypatch, tmp_path):
    """Every run of a raster-to-raster algorithm in this test goes to a stub."""
    from kestrel.algorithms import rasters

    worker = RasterStub()
    monkeypatch.setattr(rasters, "run_job", worker)
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))
    return worker


@pytest.fixture
def hazy(tmp_path):
    """A small three-band raster in a folder of its own."""
    folder = tmp_path / "hazy"
    folder.mkdir()
    return hazy_raster(folder / "hazy.tif")


@pytest.fixture
def scene(tmp_path):
    """A small north-up raster in a folder of its own."""
    folder = tmp_path / "in"
    folder.mkdir()
    return make_raster(folder / "scene.tif")


@pytest.fixture
def weights(tmp_path):
    return fake_weights(tmp_path / "own.safetensors")


@pytest.fixture
def out(tmp_path):
    """The folder outputs go to."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def change_stub(provider, qgis_new_project, monkeypatch, tmp_path):
    """Every run of an algorithm of two dates in this test goes to a stub."""
    from kestrel.algorithms import change

    worker = ChangeStub()
    monkeypatch.setattr(change, "run_job", worker)
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))
    return worker


@pytest.fixture
def dates(tmp_path):
    """Two small rasters of one ground in a folder of their own, as parameters."""
    folder = tmp_path / "dates"
    folder.mkdir()
    before, after = (hazy_raster(folder / f"{name}.tif") for name in ("before", "after"))
    return {"BEFORE": before, "AFTER": after}
