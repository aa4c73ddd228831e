"""Ranges of rows through executors: the bytes of one machine, and nothing left when a worker dies."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from kestrel.engine.errors import Cancelled, EngineError
from kestrel.engine.job import Job
from kestrel.engine.raster_plan import Piece
from kestrel.engine.run import run_job
from kestrel.engine.units import UNIT_ROWS, units
from kestrel.tests.support import rasters, unit_toys
from kestrel.tests.support.jobs import Recorder

ROOT = Path(__file__).resolve().parents[2]
#: Two units and a rest, so narrow that a run takes a second.
TALL = 2 * UNIT_ROWS + 300
OUTPUTS = {"change": ("raster", "haze"), "scores": ("scores", "classes")}
BUILDERS = {"change": unit_toys.build_change, "scores": unit_toys.build_scores}


@pytest.fixture
def tall(tmp_path):
    return scene(tmp_path / "tall.tif", TALL, 64)


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def processes(monkeypatch):
    # spawned processes get sys.path, not the modules that the root conftest.py put into sys.modules
    monkeypatch.syspath_prepend(str(ROOT / ".kestrel" / "python"))
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


def scene(path, height, width, seed=0):
    """Smooth bands with texture and two holes, one across the first seam of units."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    image = 120 + 60 * np.sin(rows / 40) * np.cos(cols / 9) + rng.normal(0, 8, (3, height, width))
    image = image.clip(1, 255).astype(np.uint8)
    image[:, height // 2 - 130 : height // 2 + 5, width // 3 :] = 0
    image[0, : height // 50, : width // 4] = 0
    return rasters.write(path, image, nodata=0, photometric="RGB")


def job(path, out, what="change", **params):
    """Return a Job that writes what ``what`` can write into ``out``."""
    out.mkdir(exist_ok=True)
    fields = {k: params.pop(k) for k in ("aoi_wkt", "extent", "crs_wkt") if k in params}
    outputs = {name: str(out / f"{name}.tif") for name in OUTPUTS[what]}
    inputs = {"image": {"path": str(path), "bands": [1, 2, 3]}}
    return Job("predict", "toy", inputs, outputs, params, device="cpu", **fields)


def run(path, out, what="change", executor=None, events=None, **params):
    """Run a toy; return the outcome and name -> md5 of the file."""
    made = run_job(
        job(path, out, what, **params), events or Recorder(), builder=BUILDERS[what], executor=executor
    )
    return made, {
        name: hashlib.md5(Path(file).read_bytes()).hexdigest() for name, file in made.outputs.items()
    }


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_property_units_cover_every_row_once_and_begin_on_blocks():
    for height in (1, 255, 256, 8191, 8192, 8193, 30_000):
        found = list(units(Piece(512, 512 + height, 7, 9)))
        rows = [row for unit in found for row in range(unit.top, unit.bottom)]
        assert rows == list(range(512, 512 + height))
        assert all((unit.top - 512) % 256 == 0 and (unit.left, unit.right) == (7, 9) for unit in found)


@pytest.mark.parametrize("what", ["change", pytest.param("scores", marks=pytest.mark.slow)])
def test_oracle_threads_give_the_bytes_of_one_machine(tall, tmp_path, threads, what):
    inline, expected = run(tall, tmp_path / "inline", what)
    outcome, found = run(tall, tmp_path / "units", what, threads)
    assert found == expected
    assert left_in(tmp_path / "units") == sorted(f"{name}.tif" for name in OUTPUTS[what])
    for name in ("valid_pixels", "invalid_pixels", "haze_range", "size"):
        assert outcome.figures.get(name) == inline.figures.get(name), name


@pytest.mark.slow
def test_oracle_spawned_processes_give_the_bytes_of_one_machine(tall, tmp_path, processes):
    _, expected = run(tall, tmp_path / "inline")
    _, found = run(tall, tmp_path / "units", executor=processes)
    assert found == expected


@pytest.mark.slow
def test_oracle_units_and_panels_together(tmp_path, threads):
    # 1 MB holds 256 columns only: each unit runs in two panels, so blocks are written in another order
    path, out = scene(tmp_path / "wide.tif", UNIT_ROWS + 40, 300), tmp_path / "out"
    pixels = []
    for more in ({}, {"memory_mb": 1}, {"memory_mb": 1, "executor": threads}):
        run(path, out, **more)
        with rasterio.open(out / "raster.tif") as dataset:
            pixels.append(dataset.read())
    np.testing.assert_array_equal(pixels[1], pixels[0])
    np.testing.assert_array_equal(pixels[2], pixels[0])


def test_oracle_units_of_an_area(tall, tmp_path, threads):
    left, top = rasters.ORIGIN
    corners = [(left + 10 * x, top - 10 * y) for x, y in ((3.2, 7000.5), (60, 7100), (40, 15_000), (9, 9000))]
    wkt = "POLYGON ((" + ", ".join(f"{x} {y}" for x, y in [*corners, corners[0]]) + "))"
    area = {"aoi_wkt": wkt, "crs_wkt": "EPSG:32633"}
    _, expected = run(tall, tmp_path / "inline", **area)
    _, found = run(tall, tmp_path / "units", executor=threads, **area)
    assert found == expected


@pytest.mark.parametrize(
    ("height", "width", "overlap"), [(40, 50, 60), (40, 90, 60), (64, 64, 60), (1, 9, 0)]
)
def test_oracle_units_of_rasters_under_a_tile(tmp_path, threads, height, width, overlap):
    path = scene(tmp_path / "small.tif", height, width)
    _, expected = run(path, tmp_path / "inline", overlap=overlap)
    _, found = run(path, tmp_path / "units", executor=threads, overlap=overlap)
    assert found == expected


def test_oracle_a_raster_replaced_between_two_runs_of_one_job(tmp_path, threads):
    path = scene(tmp_path / "scene.tif", 300, 70)
    run(path, tmp_path / "units", executor=threads)
    with rasterio.open(path) as dataset:
        darker = dataset.read() // 2
    rasters.write(path, darker.astype(np.uint16) * 7, nodata=0, photometric="RGB")
    _, found = run(path, tmp_path / "units", executor=threads)
    _, expected = run(path, tmp_path / "inline")
    assert found == expected


def test_fault_a_killed_worker_process_is_one_clear_error(tall, tmp_path, processes):
    out = tmp_path / "out"
    _, before = run(scene(tmp_path / "small.tif", 70, 70), out)
    with pytest.raises(EngineError, match="worker process") as caught:
        run(tall, out, executor=processes, die_except=os.getpid())
    assert caught.value.hint
    assert left_in(out) == ["haze.tif", "raster.tif"]
    for name, md5 in before.items():
        assert hashlib.md5((out / f"{name}.tif").read_bytes()).hexdigest() == md5
    # the pool is of no more use, and says so as clearly
    with pytest.raises(EngineError, match="worker process"):
        run(tall, out, executor=processes)
    assert left_in(out) == ["haze.tif", "raster.tif"]


def test_fault_a_models_refusal_arrives_whole(tall, tmp_path, processes):
    with pytest.raises(EngineError) as caught:
        run(tall, tmp_path / "out", executor=processes, refuse=True)
    error = caught.value
    assert (error.code, error.message, error.hint) == ("model", "The toy refuses.", "Take another.")
    assert left_in(tmp_path / "out") == []


def test_fault_cancel_ends_the_units_too(tall, tmp_path, threads):
    events, touched = Recorder(), tmp_path / "touched"
    seconds = []

    def cancel():
        while not touched.exists():
            time.sleep(0.01)
        events.cancel.set()
        seconds.append(time.monotonic())

    watcher = threading.Thread(target=cancel)
    watcher.start()
    with pytest.raises(Cancelled):
        run(tall, tmp_path / "out", executor=threads, events=events, touch=str(touched), pause=0.05)
    ended = time.monotonic()
    watcher.join()
    assert ended - seconds[0] < 2
    threads.shutdown()  # what still runs of the units notices it by itself: 170 tiles would take 8 s
    assert time.monotonic() - seconds[0] < 4
    assert left_in(tmp_path / "out") == []


def test_fault_what_a_killed_coordinator_leaves_is_cleared_by_the_next_run(tall, tmp_path):
    out, touched = tmp_path / "out", tmp_path / "touched"
    code = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
sys.path.insert(0, {str(ROOT / ".kestrel" / "python")!r})
from kestrel.engine.job import Job
from kestrel.engine.run import run_job
from kestrel.tests.support import jobs, unit_toys
job = Job.from_json(sys.argv[1])
run_job(job, jobs.Recorder(), builder=unit_toys.build_change, executor=ThreadPoolExecutor(2))
"""
    slow = job(tall, out, touch=str(touched), pause=0.05)
    process = subprocess.Popen([sys.executable, "-c", code, slow.to_json()])
    try:
        deadline = time.monotonic() + 60
        while not touched.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert any(".part" in name for name in left_in(out))
    run(tall, out)
    assert left_in(out) == ["haze.tif", "raster.tif"]
