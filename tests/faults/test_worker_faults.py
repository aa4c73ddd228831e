"""Faults 24 and 25: the worker crashes, hangs, talks nonsense, is misled, or loses its parent."""

import os
import signal
import subprocess
import sys
import time

import pytest
from kestrel.engine.job import Job
from kestrel.plugin import paths
from kestrel.plugin.errors import WorkerError
from kestrel.plugin.worker import run_job
from kestrel.tests.support.worker_tools import LAUNCH_TOY, ROOT, Feedback, children_with, job, wait_until

pytestmark = pytest.mark.qgis

STATUS = Job(kind="status", model="", inputs={}, outputs={}, params={})


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    monkeypatch.setenv("KESTREL_HOME", str(folder))
    monkeypatch.setenv("KESTREL_PYTHON", sys.executable)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(paths, "LAUNCH", LAUNCH_TOY)
    yield folder
    assert wait_until(lambda: not children_with(str(tmp_path)), 6.0), "a worker was left behind"


def failure(work, **more):
    feedback = Feedback()
    with pytest.raises(WorkerError) as caught:
        run_job(work, feedback, **more)
    error = caught.value
    assert "\n" not in error.message
    assert os.path.isfile(error.log)
    assert error.log in error.text()
    return error


def test_fault_crash_names_signal_stage_and_log():
    error = failure(job("crash"))
    assert error.code == "crash"
    assert "SIGSEGV" in error.message
    assert "about to crash" in error.message
    # faulthandler's report: where the crash was
    assert "in crash" in open(error.log, encoding="utf-8").read()


def test_fault_killed_by_the_system_names_memory():
    error = failure(job("killed"))
    assert "SIGKILL" in error.message
    assert "memory" in error.hint


def test_fault_a_worker_that_just_leaves_is_quoted():
    error = failure(job("leave"))
    assert "exit code 7" in error.message
    assert "giving up" in error.hint


def test_fault_hang_without_a_line_is_killed():
    started = time.monotonic()
    # the product waits 60 s; the rule is the same
    error = failure(job("hang"), hang_s=2.0)
    assert error.code == "hung"
    assert 2.0 < time.monotonic() - started < 6.0
    assert "about to hang" in error.message


@pytest.mark.parametrize("model", ["garbage", "endless_garbage"])
def test_fault_garbage_on_stdout_is_an_error(model):
    started = time.monotonic()
    error = failure(job(model))
    assert error.code == "garbage"
    assert len(error.message) < 600
    assert time.monotonic() - started < 10.0


def test_fault_an_interpreter_that_is_no_python(tmp_path, monkeypatch):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho Usage: python FILE\n")
    fake.chmod(0o755)
    monkeypatch.setenv("KESTREL_PYTHON", str(fake))
    assert failure(STATUS).code == "garbage"
    fake.write_text("#!/bin/sh\necho cannot load libpython >&2; exit 3\n")
    assert "cannot load libpython" in failure(STATUS).hint
    fake.write_bytes(b"\x7fELF but not really")
    assert failure(STATUS).code == "start"


def test_fault_an_interpreter_without_the_packages_is_named(tmp_path, monkeypatch):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    monkeypatch.setenv("KESTREL_PYTHON", str(bare / "bin" / "python"))
    monkeypatch.setattr(paths, "LAUNCH", ROOT / "engine" / "launch.py")
    figures = run_job(STATUS, Feedback())["figures"]
    assert set(figures["missing"]) >= {"numpy", "rasterio", "torch"}
    assert figures["checks"]["torch"].startswith("ModuleNotFoundError")
    scene = Job(
        kind="predict",
        model="cfar",
        inputs={"image": {"path": str(tmp_path / "no.tif"), "bands": [1]}},
        outputs={"boxes": str(tmp_path / "out.fgb")},
        params={},
        scratch=str(tmp_path),
    )
    error = failure(scene)
    assert error.code == "runtime"
    assert str(bare / "bin" / "python") in error.message


def test_fault_poisoned_proj_environment_does_not_reach_the_worker(monkeypatch, tmp_path):
    # what QGIS's launchers set on Windows, macOS and Flatpak: another PROJ's database
    (tmp_path / "proj").mkdir()
    (tmp_path / "proj" / "proj.db").write_bytes(b"SQLite format 3\0")
    for name in ("PROJ_LIB", "PROJ_DATA", "GDAL_DATA", "GDAL_DRIVER_PATH", "PYTHONPATH"):
        monkeypatch.setenv(name, str(tmp_path / "proj"))
    monkeypatch.setattr(paths, "LAUNCH", ROOT / "engine" / "launch.py")
    assert set(run_job(STATUS, Feedback())["figures"]["checks"].values()) == {"ok"}
    # the poison is real: the same interpreter without the cleaning fails
    check = [sys.executable, "-I", "-c", "from rasterio.crs import CRS; CRS.from_epsg(32633)"]
    assert subprocess.run(check, capture_output=True, check=False).returncode != 0


PARENT = f"""
import sys
sys.path[:0] = [{str(ROOT / ".kestrel" / "python")!r}]
from kestrel.plugin import paths, worker
from kestrel.tests.support import worker_tools
paths.LAUNCH = worker_tools.LAUNCH_TOY
class Loud(worker_tools.Feedback):
    def setProgressText(self, text):
        print(text, flush=True)
worker.run_job(worker_tools.job(sys.argv[1]), Loud())
"""


@pytest.mark.parametrize("model", ["slow", pytest.param("stubborn", marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_fault_worker_is_gone_within_5_s_of_its_parents_death(model, number, home):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, model], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    for line in parent.stdout:
        if model in line:
            break
    # the parent itself and a stubborn toy's own child hold the folder's name as well
    workers = [pid for pid in children_with(str(home)) if b"launch_toy" in cmdline(pid)]
    assert len(workers) == 1
    parent.send_signal(number)
    assert parent.wait(5) == -number
    parent.stdout.close()
    assert wait_until(lambda: workers[0] not in children_with(str(home)), 5.0)
    for pid in children_with(str(home)):
        os.kill(
            pid, signal.SIGKILL
        )  # the stubborn toy's own child: its parent is dead, nobody asked it to stop


def cmdline(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()
