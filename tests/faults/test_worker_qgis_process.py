"""Faults 21, 22, 24 and 25 where a user meets them: in the real qgis_process, with an output that exists.

KESTREL_PYTHON is a small script that starts the toy worker in the real one's place.
"""

import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from kestrel.tests.support import rasters
from kestrel.tests.support.worker_tools import LAUNCH_TOY, ROOT, children_with, wait_until

pytestmark = pytest.mark.qgis

SHIPS = [(50, 60, 70, 66), (200, 100, 230, 110)]


class Run:
    """One ``scripts/qgis_process run kestrel:detectshipscfar`` with a toy as its model."""

    def __init__(self, folder):
        self.home = folder / "home"
        self.output = folder / "out put.gpkg"
        self.scene = rasters.write(folder / "scene ü.tif", rasters.sea(300, 400, SHIPS))
        self.python = folder / "toy python"
        self.python.write_text(
            f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -u {shlex.quote(str(LAUNCH_TOY))}\n"
        )
        self.python.chmod(0o755)

    def start(self, model):
        dropped = ("PYTHONPATH", "QGIS_CUSTOM_CONFIG_PATH", "VIRTUAL_ENV")
        environ = {name: value for name, value in os.environ.items() if name not in dropped}
        environ.update(
            KESTREL_HOME=str(self.home),
            KESTREL_PYTHON=str(self.python),
            KESTREL_TOY_MODEL=model,
            OMP_NUM_THREADS="1",
        )
        command = [ROOT / "scripts" / "qgis_process", "run", "kestrel:detectshipscfar", "--"]
        return subprocess.Popen(
            [*command, f"INPUT={self.scene}", f"OUTPUT={self.output}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd="/",
        )

    def finish(self, model):
        process = self.start(model)
        text = process.communicate(timeout=60)[0].decode()
        return process.returncode, text

    def worker(self):
        """Return the worker's id once there is one, and its stage is past the start."""
        found = []

        def seen():
            found[:] = [pid for pid in children_with(str(self.home)) if "launch_toy" in command_line(pid)]
            return found

        assert wait_until(seen, 20)
        return found[0]

    def count(self):
        """Return how many features the GeoPackage holds, as any reader sees it."""
        with sqlite3.connect(self.output) as database:
            [(table,)] = database.execute("select table_name from gpkg_contents where data_type = 'features'")
            return database.execute(f'select count(*) from "{table}"').fetchone()[0]

    def leftovers(self):
        """Return the output folder's files that no finished run leaves."""
        known = {self.home.name, self.scene.name, self.python.name}
        # QGIS keeps the statistics of a layer it loads; the sidecar is ours
        known |= {self.scene.name + ".aux.xml", self.output.name, self.output.name + ".kestrel.json"}
        return sorted(set(os.listdir(self.output.parent)) - known)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with the scene and the output of a good run; each test works on a copy."""
    folder = tmp_path_factory.mktemp("finished")
    good = Run(folder)
    code, text = good.finish("toy")
    assert code == 0, text
    assert good.count() == len(SHIPS)
    assert good.leftovers() == []
    return folder


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    run = Run(tmp_path)
    yield run
    assert wait_until(lambda: not children_with(str(run.home)), 5.0), "a worker was left behind"


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("refuse", "scene.tif has 3 bands, this model needs 1. Choose BAND."),
        ("crash", "The worker was ended by SIGSEGV"),
        ("toy_crash", "The worker was ended by SIGSEGV"),
        ("garbage", "not a message"),
        ("unexpected", "ZeroDivisionError"),
    ],
)
def test_fault_25_one_sentence_exit_code_1_and_the_old_output_untouched(run, model, words):
    before = run.output.read_bytes()
    code, text = run.finish(model)
    assert code == 1
    assert words in text
    assert str(run.home / "logs") in text
    assert run.output.read_bytes() == before
    assert run.leftovers() == []


def test_fault_24_sigterm_of_qgis_process_ends_the_worker_within_5_s(run):
    before = run.output.read_bytes()
    process = run.start("toy_slow")
    worker = run.worker()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode in (-signal.SIGTERM, 143)
    assert wait_until(lambda: worker not in children_with(str(run.home)), 5.0)
    assert run.output.read_bytes() == before
    assert run.finish("toy")[0] == 0
    assert run.leftovers() == []


def test_fault_21_sigint_is_a_cancel_and_back_within_2_s(run):
    before = run.output.read_bytes()
    process = run.start("toy_slow")
    run.worker()
    time.sleep(1.0)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    # qgis_process itself takes some tenths to leave
    assert time.monotonic() - sent < 2.0
    assert run.output.read_bytes() == before
    assert run.leftovers() == []


@pytest.mark.parametrize("victim", ["worker", pytest.param("qgis_process", marks=pytest.mark.slow)])
def test_fault_22_kill_9_mid_run_leaves_the_old_output_and_the_next_run_works(run, victim):
    before = run.output.read_bytes()
    process = run.start("toy_slow")
    worker = run.worker()
    time.sleep(1.0)
    os.kill(worker if victim == "worker" else process.pid, signal.SIGKILL)
    text = process.communicate(timeout=20)[0].decode()
    if victim == "worker":
        assert process.returncode == 1
        assert "SIGKILL" in text
        assert run.leftovers() == []
    assert run.output.read_bytes() == before
    code, text = run.finish("toy")
    assert code == 0, text
    assert run.count() == len(SHIPS)
    assert run.leftovers() == []


def test_fault_24_two_runs_to_one_output_the_second_is_refused(run):
    first = run.start("toy_slow")
    run.worker()
    code, text = run.finish("toy")
    assert code == 1
    assert run.output.name in text
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=10)
    assert run.count() == len(SHIPS)
