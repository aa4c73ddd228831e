"""kestrel:runtimestatus: what it finds, and that a missing runtime is a finding, not a failure."""

import json
import os
import subprocess
import sys
from html.parser import HTMLParser

import processing
import pytest
from kestrel.algorithms import runtime_status
from kestrel.plugin.errors import WorkerCancelled, WorkerError
from kestrel.tests.support.algorithm_tools import ROOT
from qgis.core import QgsProcessingException, QgsProcessingFeedback

STATUS = "kestrel:runtimestatus"

FIGURES = {
    "kestrel": "0.1.0",
    "python": {"path": "/some/python", "version": "3.12.1", "prefix": "/some"},
    "packages": {"numpy": "1.26.4", "torch": None},
    "missing": ["torch"],
    "devices": [{"name": "cpu", "detail": "x"}, {"name": "cuda", "detail": "H100 <80 GB>"}],
    "device_note": "",
    "weights": [
        {"name": "sar_ships", "status": "released", "state": "changed", "sha256": "ab" * 32, "file": "a"}
    ],
    "checks": {"torch": "ok"},
}


@pytest.fixture
def home(provider, monkeypatch, tmp_path):
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KESTREL_PYTHON", sys.executable)
    return tmp_path / "home"


def run(**parameters):
    feedback = QgsProcessingFeedback()
    return processing.run(STATUS, parameters, feedback=feedback), feedback.textLog()


def answering(monkeypatch, result=None, error=None):
    def run_job(job, feedback, **_):
        assert job.kind == "status"
        if error:
            raise error
        return result

    monkeypatch.setattr(runtime_status, "run_job", run_job)


def test_real_worker_answers(home):
    result, log = run()
    assert set(result) == {"FOLDER", "VERSIONS", "DEVICE"}
    assert result["FOLDER"] == str(home)
    versions = json.loads(result["VERSIONS"])
    assert versions["python"] == sys.executable
    assert versions["worker"]["packages"]["rasterio"].startswith("1.4")
    assert result["DEVICE"] in ("cpu", "cuda", "mps")
    assert f"Runtime: {sys.executable} (named by the variable KESTREL_PYTHON)" in log
    assert "CRS from EPSG: ok" in log


def test_missing_runtime_is_reported_and_succeeds(home, monkeypatch, tmp_path):
    monkeypatch.setenv("KESTREL_PYTHON", str(tmp_path / "none"))
    result, log = run(REPORT=str(tmp_path / "r.html"))
    assert result["DEVICE"] == ""
    assert json.loads(result["VERSIONS"])["python"] == ""
    assert "Runtime: none" in log
    assert f"{tmp_path / 'none'} does not exist" in log
    assert "To do: No Python that can run the models was found." in log
    assert "KESTREL_PYTHON" in (tmp_path / "r.html").read_text()


def test_missing_runtime_exits_with_0_in_qgis_process(home, tmp_path):
    done = subprocess.run(
        [str(ROOT / "scripts" / "qgis_process"), "run", STATUS, "--json"],
        env={**os.environ, "PYTHONPATH": "", "KESTREL_PYTHON": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(done.stdout[done.stdout.index("{") :])["results"]
    assert results["DEVICE"] == ""
    assert results["FOLDER"] == str(home)


def test_missing_package_and_changed_weights_say_what_to_do(home, monkeypatch):
    answering(monkeypatch, {"figures": FIGURES, "warnings": ["Missing package: torch."], "log": "/l"})
    result, log = run()
    assert result["DEVICE"] == "cuda"
    assert "numpy 1.26.4, torch missing" in log
    assert "Weights: sar_ships (released), changed, sha256 abababababab" in log
    assert (
        f"To do: Install what is missing into {sys.executable}: {sys.executable} -m pip install torch" in log
    )


def test_broken_worker_is_a_finding(home, monkeypatch):
    answering(monkeypatch, error=WorkerError("It crashed.", "Mend it.", "/the/log"))
    result, log = run()
    assert result["DEVICE"] == ""
    assert "To do: It crashed. Mend it. Log: /the/log" in log


def test_cancel_raises(home, monkeypatch):
    answering(monkeypatch, error=WorkerCancelled())
    with pytest.raises(QgsProcessingException, match="Cancelled"):
        run()


def test_report_is_static_and_escaped(home, monkeypatch, tmp_path):
    answering(monkeypatch, {"figures": FIGURES, "warnings": ["<script>"], "log": "/l"})
    result, _ = run(REPORT=str(tmp_path / "r.html"))
    text = (tmp_path / "r.html").read_text()
    assert result["REPORT"] == str(tmp_path / "r.html")

    found = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.add(tag)

    Tags().feed(text)
    assert "pre" in found
    assert "script" not in found
    assert "&lt;script&gt;" in text
    assert "H100 &lt;80 GB&gt;" in text


@pytest.mark.parametrize("report", ["none/r.html", "."])
def test_bad_report_path_is_refused(home, tmp_path, report):
    with pytest.raises(QgsProcessingException, match="REPORT: "):
        run(REPORT=str(tmp_path / report))
