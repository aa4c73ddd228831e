"""kestrel:installweights and what dialogs offer afterwards; the QGIS side of the set-up algorithms."""

import hashlib
import json
import shutil
import sys
import time
import zipfile

import processing
import pytest
from kestrel.plugin import paths
from kestrel.plugin.installing import from_qgis
from kestrel.plugin.installing.errors import InstallError
from kestrel.plugin.installing.installed import RuntimeInfo
from kestrel.plugin.weight_files import FOLDER, offered, shipped, weights_problem
from qgis.core import (
    QgsApplication,
    QgsNetworkAccessManager,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
)
from qgis.PyQt.QtNetwork import QNetworkProxy

INSTALL = "kestrel:installweights"


@pytest.fixture
def home(provider, monkeypatch, tmp_path):
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_pack_is_listed_where_it_fits(home, tmp_path):
    entry = shipped()["dehazing"]
    file = FOLDER / entry["file"]
    told = {
        "name": "p",
        "model": "dehazing",
        "files": [{"name": file.name, "sha256": entry["sha256"], "size": entry["size"]}],
    }
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as pack:
        pack.writestr("pack.json", json.dumps(told))
        pack.write(file, file.name)
    result = processing.run(INSTALL, {"PACK": str(tmp_path / "p.zip")})
    assert result["FOLDER"] == str(home / "weights")
    assert json.loads(result["VERSIONS"]) == [
        {
            "name": "dehazing",
            "model": "dehazing",
            "status": entry["status"],
            "sha256": entry["sha256"],
        }
    ]
    assert "dehazing" in offered("dehazing")
    assert "dehazing" not in offered("sar_ships")


def test_own_file_is_listed_and_accepted_by_name(home, tmp_path):
    own = tmp_path / "valley.safetensors"
    shutil.copy(FOLDER / shipped()["dehazing"]["file"], own)
    # another training: the same network, other numbers
    with own.open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"\x00\x00")
    sha256 = hashlib.sha256(own.read_bytes()).hexdigest()
    with pytest.raises(QgsProcessingException, match="Give in SHA256"):
        processing.run(INSTALL, {"PACK": str(own)})
    assert not (home / "weights").exists()
    processing.run(INSTALL, {"PACK": str(own), "SHA256": sha256})
    assert "valley" in offered("dehazing")
    assert "valley" not in offered("sar_ships")
    assert weights_problem("valley", "dehazing", "WEIGHTS") is None
    assert "another model" in weights_problem("valley", "sar_ships", "WEIGHTS")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"PACK": "none.zip"}, "none.zip does not exist"),
        ({"PACK": ""}, "PACK is empty"),
        ({"PACK": __file__}, "neither a pack"),
    ],
)
def test_exception_weights(home, parameters, message):
    algorithm = QgsApplication.processingRegistry().createAlgorithmById(INSTALL)
    ok, text = algorithm.checkParameterValues(parameters, QgsProcessingContext())
    assert not ok
    assert message in text


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"PYTHON": "/none/python"}, "PYTHON: /none/python does not exist"),
        ({"PYTHON_ARCHIVE": __file__}, "ARCHIVE_SHA256 is empty"),
        ({"PYTHON_ARCHIVE": __file__, "ARCHIVE_SHA256": "12"}, "has 64 digits"),
        ({"ARCHIVE_SHA256": "ab" * 32}, "without PYTHON_ARCHIVE"),
        ({"WHEELS": "/none"}, "WHEELS: /none is no folder"),
    ],
)
def test_exception_runtime(home, parameters, message):
    algorithm = QgsApplication.processingRegistry().createAlgorithmById("kestrel:installruntime")
    ok, text = algorithm.checkParameterValues(parameters, QgsProcessingContext())
    assert not ok
    assert message in text


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        (QNetworkProxy(QNetworkProxy.ProxyType.NoProxy), ("", "")),
        (QNetworkProxy(QNetworkProxy.ProxyType.DefaultProxy), ("", "")),
        (
            QNetworkProxy(QNetworkProxy.ProxyType.HttpProxy, "proxy.test", 8080, "me@work", "a:b/c"),
            ("http://me%40work:a%3Ab%2Fc@proxy.test:8080", "intern.test"),
        ),
    ],
)
def test_proxy_of_qgis(home, proxy, expected):
    manager = QgsNetworkAccessManager.instance()
    before = manager.fallbackProxy(), manager.excludeList(), manager.noProxyList()
    try:
        manager.setFallbackProxyAndExcludes(proxy, ["http://intern.test/maps"], [])
        found = from_qgis.network()
    finally:
        manager.setFallbackProxyAndExcludes(*before)
    assert (found.proxy, found.no_proxy) == expected
    assert not found.warning


def test_socks_proxy_is_told(home):
    manager = QgsNetworkAccessManager.instance()
    before = manager.fallbackProxy(), manager.excludeList(), manager.noProxyList()
    try:
        manager.setFallbackProxyAndExcludes(
            QNetworkProxy(QNetworkProxy.ProxyType.Socks5Proxy, "proxy.test", 1), [], []
        )
        found = from_qgis.network()
    finally:
        manager.setFallbackProxyAndExcludes(*before)
    assert found.proxy == ""
    assert "no HTTP proxy" in found.warning
    assert not (paths.home() / "cache" / "qgis-certificates.pem").exists()


def test_status_tells_of_runtimes_and_added_weights(home, monkeypatch, tmp_path):
    folder = home / "runtimes" / "0123456789ab"
    folder.mkdir(parents=True)
    gone = str(tmp_path / "gone" / "python3")
    told = {"python": "bin/python", "base": {"python": gone}, "versions": {}, "accelerator": "cpu"}
    (folder / "complete.json").write_text(json.dumps(told))
    (home / "weights").mkdir()
    shutil.copy(FOLDER / shipped()["dehazing"]["file"], home / "weights" / "valley.safetensors")
    monkeypatch.setenv("KESTREL_PYTHON", str(tmp_path / "none"))
    feedback = QgsProcessingFeedback()
    found = json.loads(processing.run("kestrel:runtimestatus", {}, feedback=feedback)["VERSIONS"])
    assert found["runtimes"][0]["problem"] == "base_missing"
    assert found["added_weights"] == [{"name": "valley", "model": "dehazing"}]
    log = feedback.textLog()
    assert f"the Python it was built on, {gone}, has vanished" in log
    assert "Run kestrel:installruntime" in log
    assert "Weights added: valley, for dehazing" in log


@pytest.fixture
def dialog(home, monkeypatch):
    from kestrel.algorithms import install_runtime
    from kestrel.plugin.install_dialog import InstallDialog

    dialog = InstallDialog()
    yield dialog, lambda runs: monkeypatch.setattr(install_runtime, "install_runtime", runs)
    dialog.deleteLater()


def wait_for(condition):
    ends = time.monotonic() + 10
    while not condition() and time.monotonic() < ends:
        QgsApplication.processEvents()
    return condition()


def test_dialog_shows_progress_and_ends_ready(dialog, tmp_path, monkeypatch):
    dialog, runs = dialog
    monkeypatch.setenv("KESTREL_PYTHON", sys.executable)

    def run(request, options, events, cancelled):
        events.progress(0.4, "fetching packages")
        events.line("Collecting toys")
        events.warning("large")
        assert options.accelerator == "cpu"
        return RuntimeInfo(tmp_path, tmp_path / "python", {"torch": "2"}, "cuda")

    runs(run)
    dialog.accelerator.setCurrentIndex(1)
    dialog.install()
    assert not dialog.install_button.isEnabled()
    assert wait_for(dialog.install_button.isEnabled)
    assert dialog.stage.text() == "Ready. Models run on cuda."
    log = dialog.log.toPlainText()
    assert "fetching packages\nCollecting toys\nWarning: large" in log
    assert f"The models go on running with {sys.executable}" in log


def test_dialog_says_why_it_failed(dialog):
    dialog, runs = dialog

    def run(*_):
        raise InstallError("proxy", "The proxy wants a password (407).", "Enter it in QGIS's options.")

    runs(run)
    dialog.install()
    assert wait_for(dialog.install_button.isEnabled)
    assert "The proxy wants a password (407). Enter it in QGIS's options." in dialog.stage.text()
    dialog.wheels.setFilePath("/none")
    dialog.install()
    assert dialog.stage.text().startswith("WHEELS: /none is no folder")


def test_dialog_cancels(dialog):
    dialog, runs = dialog

    def run(request, options, events, cancelled):
        while not cancelled():
            time.sleep(0.01)
        raise InstallError("cancelled", "The installation was cancelled.")

    runs(run)
    dialog.install()
    dialog.cancel()
    assert wait_for(dialog.install_button.isEnabled)
    assert "The installation was cancelled." in dialog.stage.text()
