"""Faults 19, 21, 22 and 24 of ENGINE.md, section 7, for rasters: interrupted at any moment.

Whatever happens, an output that was there is byte for byte the old or the complete new one, and what is
left beside it goes with the next run.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from kestrel.engine.errors import Cancelled, EngineError
from kestrel.engine.parts import Parts
from kestrel.engine.run import run_job
from kestrel.tests.support import raster_faults, rasters
from kestrel.tests.support import raster_toys as toys
from kestrel.tests.support.jobs import Recorder
from kestrel.tests.support.raster_faults import SLOW, hazy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals, tmpfs and limits as Linux has them")

OLD = {"out.tif": b"the old raster" * 1000, "haze.tif": b"the old haze" * 999, "report.html": b"<old>" * 99}


def noise(side):
    """Pixels that do not pack, so that a file's size is known."""
    return np.random.default_rng(0).integers(1, 255, (3, side, side), dtype=np.uint8)


def places(folder, report=True):
    names = {"raster": "out.tif", "haze": "haze.tif", **({"report": "report.html"} if report else {})}
    return {name: folder / file for name, file in names.items()}


def put_old(folder):
    for name, content in OLD.items():
        (folder / name).write_bytes(content)


def intact(folder, *more):
    """All old outputs are there and nothing else but ``more``."""
    assert sorted(path.name for path in folder.iterdir()) == sorted([*OLD, *more])
    for name, content in OLD.items():
        assert (folder / name).read_bytes() == content, name


class TestFault19FullDisk:
    """The disk fills up while the run goes: another program takes the space at the first tile."""

    SIDE = 600

    @pytest.fixture(scope="class")
    @staticmethod
    def scene(tmp_path_factory):
        return rasters.write(tmp_path_factory.mktemp("scene") / "a.tif", noise(TestFault19FullDisk.SIDE))

    @pytest.fixture(scope="class")
    @staticmethod
    def whole(scene, tmp_path_factory):
        """The sizes of a complete run's files, by output."""
        outputs = places(tmp_path_factory.mktemp("whole"))
        toys.run(scene, outputs["raster"], toys.builder(toys.darkened), outputs=outputs)
        return {name: path.stat().st_size for name, path in outputs.items()}

    def filled(self, scene, disk, kilobytes, outputs, **fields):
        """Run with ``kilobytes`` left from the first tile on."""

        def answer(image):
            if not (disk / "ballast").exists():
                stat = os.statvfs(disk)
                size = max(0, stat.f_bavail * stat.f_frsize - kilobytes * 1024)
                (disk / "ballast").write_bytes(bytes(size))
            return toys.darkened(image)

        # nothing else in this folder grows, so only the ballast makes the disk too small
        return run_job(toys.job(scene, outputs, **fields), Recorder(), toys.builder(answer))

    @pytest.mark.parametrize("cog", [False, True])
    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99])
    def test_error_and_the_old_outputs_intact(self, tmp_path, scene, whole, share, cog):
        # of the raster, its overviews and the haze; the report comes last
        kilobytes = int(share * (whole["raster"] + whole["haze"]) / 1024)
        with raster_faults.small_disk(tmp_path / "disk", 16_000) as disk:
            put_old(disk)
            with pytest.raises(EngineError) as caught:
                self.filled(scene, disk, kilobytes, places(disk), cog=cog)
            error = caught.value
            assert error.code == "output", error.message
            assert "no space left on device" in error.message or "free" in error.message, error.message
            assert "\n" not in error.message
            assert "pace" in error.hint
            intact(disk, "ballast")

    def test_no_room_for_the_report(self, tmp_path, scene, whole):
        kilobytes = (whole["raster"] + whole["haze"] + whole["report"] // 2) // 1024
        with raster_faults.small_disk(tmp_path / "disk", 16_000) as disk:
            put_old(disk)
            with pytest.raises(EngineError, match=r"report\.html|[Nn]o space left") as caught:
                self.filled(scene, disk, kilobytes, places(disk))
            assert caught.value.code == "output"
            intact(disk, "ballast")

    def test_with_enough_room_it_is_complete_and_a_rerun_after_an_error_works(self, tmp_path, scene, whole):
        needed = sum(whole.values()) // 1024
        with raster_faults.small_disk(tmp_path / "disk", 16_000) as disk:
            put_old(disk)
            with pytest.raises(EngineError):
                self.filled(scene, disk, needed // 3, places(disk))
            (disk / "ballast").unlink()
            self.filled(scene, disk, needed * 4 // 3, places(disk))
            with rasterio.open(disk / "out.tif") as dataset:
                assert np.array_equal(dataset.read() != 0, np.ones((3, self.SIDE, self.SIDE), bool))
            assert {p.name for p in disk.iterdir()} == {*OLD, "ballast"}

    def test_too_small_a_disk_is_refused_before_a_tile_runs(self, tmp_path, scene):
        def answer(image):
            raise AssertionError("a tile ran")

        with raster_faults.small_disk(tmp_path / "disk", 1000) as disk:
            put_old(disk)
            job = toys.job(scene, places(disk))
            with pytest.raises(EngineError, match=r"may need .* free") as caught:
                run_job(job, Recorder(), toys.builder(answer))
            assert caught.value.code == "output"
            intact(disk)

    @pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
    def test_a_limit_on_the_files_size(self, tmp_path, scene, whole, share):
        put_old(tmp_path)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * whole["raster"]), hard))
        try:
            with pytest.raises(EngineError, match="file too large") as caught:
                run_job(
                    toys.job(scene, places(tmp_path, report=False)),
                    Recorder(),
                    toys.builder(toys.darkened),
                )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.code == "output"
        intact(tmp_path)


@pytest.fixture(scope="module")
def slow_scene(tmp_path_factory):
    """A scene of 25 slow tiles, and the files and seconds of a complete run."""
    folder = tmp_path_factory.mktemp("slow")
    scene = rasters.write(folder / "a.tif", hazy(600, 600))
    outputs = places(folder, report=False)
    started = time.monotonic()
    run_job(toys.job(scene, outputs, **SLOW), Recorder(), toys.builder(toys.slow))
    return scene, {p.name: p.read_bytes() for p in outputs.values()}, time.monotonic() - started


def moments(count, seconds, seed):
    """Return random moments of a run: half anywhere, half near its end, where files change places."""
    rng = random.Random(seed)
    return [rng.uniform(0, seconds) if i % 2 else rng.uniform(0.7, 1.2) * seconds for i in range(count)]


def old_or_new(folder, new):
    """Each output is byte for byte the old or the new one; return how many are new."""
    count = 0
    for name, content in new.items():
        found = (folder / name).read_bytes()
        assert found in (OLD[name], content), f"{name} is neither the old nor the new one"
        count += found == content
    return count


def kill_at(folder, slow_scene, count, seed):
    """Kill runs at random moments; return how many ended by the kill and how many had finished."""
    scene, new, seconds = slow_scene
    outputs = places(folder, report=False)
    ends = []
    with raster_faults.Runs() as runs:
        for moment in moments(count, seconds, seed):
            put_old(folder)
            run = runs.start(scene, outputs["raster"], outputs["haze"])
            time.sleep(moment)
            os.kill(run, signal.SIGKILL)
            ends.append(runs.wait())
            old_or_new(folder, new)
            if ends[-1] == 0:
                assert old_or_new(folder, new) == 2
            # what the next run does before anything else
            Parts(outputs).abandon()
            assert sorted(p.name for p in folder.iterdir()) == sorted(OLD)
            old_or_new(folder, new)
    run_job(toys.job(scene, outputs, **SLOW), Recorder(), toys.builder(toys.darkened))
    return ends


@pytest.mark.slow
def test_fault_22_killed_at_5_random_moments(tmp_path, slow_scene):
    ends = kill_at(tmp_path, slow_scene, 5, seed=1)
    assert -signal.SIGKILL in ends


@pytest.mark.slow
def test_fault_22_killed_at_50_random_moments(tmp_path, slow_scene):
    ends = kill_at(tmp_path, slow_scene, 50, seed=2)
    assert ends.count(-signal.SIGKILL) > 20
    assert set(ends) <= {0, -signal.SIGKILL}


def test_fault_22_a_killed_run_leaves_its_part_and_the_next_run_removes_it(tmp_path, slow_scene):
    scene = slow_scene[0]
    put_old(tmp_path)
    outputs = places(tmp_path, report=False)
    with raster_faults.Runs() as runs:
        run = runs.start(scene, outputs["raster"], outputs["haze"])
        part = tmp_path / f".out.tif.{run}.part.tif"
        deadline = time.monotonic() + 20
        while not part.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(run, signal.SIGKILL)
        assert runs.wait() == -signal.SIGKILL
    assert part.exists()
    assert {name for name in os.listdir(tmp_path) if name.startswith(".")} >= {part.name}
    for name, content in OLD.items():
        assert (tmp_path / name).read_bytes() == content
    _, out = toys.run(scene, outputs["raster"], outputs=outputs)
    assert np.array_equal(out, hazy(600, 600))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(OLD)


def cancel_at(folder, slow_scene, count, seed, threads=True):
    """Cancel runs at random moments; return how many were cancelled."""
    scene, new, seconds = slow_scene
    outputs = places(folder, report=False)
    cancelled = 0
    for moment in moments(count, seconds, seed):
        put_old(folder)
        events = Recorder()
        before = set(threading.enumerate())
        timer = threading.Timer(moment, events.cancel.set)
        started = time.monotonic()
        timer.start()
        try:
            run_job(toys.job(scene, outputs, **SLOW), events, toys.builder(toys.slow), threads)
        except Cancelled:
            cancelled += 1
            assert time.monotonic() - started < moment + 2
            assert old_or_new(folder, new) == 0
        else:
            assert old_or_new(folder, new) == 2
        finally:
            timer.cancel()
            timer.join()
        assert set(threading.enumerate()) <= before
        assert sorted(p.name for p in folder.iterdir()) == sorted(OLD)
    return cancelled


@pytest.mark.parametrize("threads", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_fault_21_cancelled_at_5_random_moments(tmp_path, slow_scene, threads):
    assert cancel_at(tmp_path, slow_scene, 5, seed=3, threads=threads)


@pytest.mark.slow
def test_fault_21_cancelled_at_50_random_moments(tmp_path, slow_scene):
    assert cancel_at(tmp_path, slow_scene, 50, seed=4) > 20


class AtStage(Recorder):
    """Cancels at the first word of a stage, ``now`` the moment."""

    def __init__(self, stage):
        super().__init__()
        self.stage, self.now = stage, None

    def progress(self, fraction, done, total, stage, seconds_left):
        super().progress(fraction, done, total, stage, seconds_left)
        if stage == self.stage and self.now is None:
            self.now = time.monotonic()
            self.cancel.set()


@pytest.mark.parametrize(
    "stage",
    ["start", "opening", "model", "statistics", "survey", "tiles", "finishing the raster", "overviews", "COG",
     "checking the raster", "quality", "report"],
)  # fmt: skip
def test_fault_21_cancelled_in_every_stage(tmp_path, stage):
    """Back within 2 s, nothing left, and the real model runs again afterwards."""
    path = rasters.write(tmp_path / "a.tif", hazy(1100, 1100))
    folder = tmp_path / "out"
    folder.mkdir()
    put_old(folder)
    job = replace(toys.job(path, places(folder), cog=stage == "COG", reference=path), model="dark_channel")
    events = AtStage(stage)
    before = set(threading.enumerate())
    with pytest.raises(Cancelled):
        run_job(job, events)
    assert time.monotonic() - events.now < 2
    assert set(threading.enumerate()) <= before
    intact(folder)


@pytest.mark.parametrize("threads", [True, False])
def test_fault_21_an_error_in_the_writer_ends_the_run_and_its_threads(tmp_path, monkeypatch, threads):
    from kestrel.engine import raster_run

    def fail(self, piece, arrays):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(raster_run.Writers, "put", fail)
    path = rasters.write(tmp_path / "a.tif", hazy(600, 600))
    folder = tmp_path / "out"
    folder.mkdir()
    put_old(folder)
    before = set(threading.enumerate())
    with pytest.raises((EngineError, OSError)):
        run_job(toys.job(path, places(folder)), Recorder(), toys.builder(), threads)
    assert set(threading.enumerate()) <= before
    intact(folder)


@pytest.mark.slow
def test_fault_20_with_little_memory_tiles_halve_and_the_pixels_are_the_same(tmp_path):
    """RLIMIT_AS, as a full machine: numpy cannot allocate, wherever that happens to be."""
    scene = rasters.write(tmp_path / "a.tif", hazy(1000, 1000))
    folder = tmp_path / "out"
    folder.mkdir()
    command = [sys.executable, raster_faults.__file__, scene, folder, *map(str, range(120, 10, -20))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-2000:]
    complete = {extra: tile for extra, tile, *_ in answers if tile}
    assert complete[0] == 1000  # the whole raster at once
    assert min(complete.values()) < 1000
    with rasterio.open(folder / "0.tif") as dataset:
        whole = dataset.read()
    for extra in complete:
        with rasterio.open(folder / f"{extra}.tif") as dataset:
            assert np.array_equal(dataset.read(), whole)  # its reach is finite: no pixel may differ
    assert {code for _, tile, code, _ in answers if not tile} <= {"memory"}
    assert {p.name for p in folder.iterdir()} == {"warm.tif", *(f"{extra}.tif" for extra in complete)}


def test_fault_22_terminated_by_sigterm_leaves_what_a_kill_leaves(tmp_path, slow_scene):
    """SIGTERM ends Python at once; the next run clears."""
    scene, new, seconds = slow_scene
    put_old(tmp_path)
    outputs = places(tmp_path, report=False)
    with raster_faults.Runs() as runs:
        run = runs.start(scene, outputs["raster"], outputs["haze"])
        time.sleep(seconds / 2)
        os.kill(run, signal.SIGTERM)
        runs.wait()
    assert old_or_new(tmp_path, new) == 0
    Parts(outputs).abandon()
    intact(tmp_path)


@pytest.mark.qgis
class TestThroughTheWorker:
    """The same through the worker process, as QGIS runs it, with the real dark channel."""

    @pytest.fixture(scope="class")
    @staticmethod
    def pool(tmp_path_factory):
        from kestrel.plugin.warm import WarmPool
        from kestrel.tests.support.worker_tools import children_with, wait_until

        patch = pytest.MonkeyPatch()
        home = tmp_path_factory.mktemp("home")
        patch.setenv("KESTREL_HOME", str(home))
        patch.setenv("KESTREL_PYTHON", sys.executable)
        patch.setenv("OMP_NUM_THREADS", "1")
        pool = WarmPool(minutes=5)
        yield pool
        pool.shut_down()
        assert wait_until(lambda: not children_with(str(home)), 3.0)
        patch.undo()

    @pytest.fixture(scope="class")
    @staticmethod
    def scene(tmp_path_factory):
        return rasters.write(tmp_path_factory.mktemp("scene") / "a.tif", hazy(1500, 1500))

    @pytest.fixture
    def dehaze(self, pool, scene, tmp_path):
        from kestrel.plugin.worker import run_job as run_in_worker
        from kestrel.tests.support.worker_tools import Feedback

        put_old(tmp_path)

        def call(feedback=None, **params):
            job = replace(toys.job(scene, places(tmp_path), **params), model="dark_channel")
            return run_in_worker(job, feedback or Feedback(), warm=pool)

        return call

    @pytest.mark.parametrize("when", ["starting", "statistics", "tiles", "overviews", "checking", "report"])
    def test_fault_21_cancel_is_back_within_2_s_and_leaves_nothing(self, dehaze, tmp_path, when):
        from kestrel.plugin.errors import WorkerCancelled
        from kestrel.tests.support.worker_tools import Feedback

        feedback = Feedback(cancel_at_stage=when)
        with pytest.raises(WorkerCancelled):
            dehaze(feedback)
        assert time.monotonic() - feedback.cancelled_at < 2
        Parts(places(tmp_path)).abandon()  # where the worker had to be killed its parts go now
        intact(tmp_path)

    def test_fault_21_a_worker_killed_in_a_long_tile_is_cleared_by_the_next_run(
        self, dehaze, tmp_path, scene
    ):
        from kestrel.plugin.errors import WorkerCancelled
        from kestrel.tests.support.worker_tools import Feedback

        feedback = Feedback(cancel_at_stage="tiles")
        with pytest.raises(WorkerCancelled):
            dehaze(feedback, tile=16384, patch=101, overlap=908)
        assert time.monotonic() - feedback.cancelled_at < 2
        for name, content in OLD.items():
            assert (tmp_path / name).read_bytes() == content
        message = dehaze()
        assert message["figures"]["tiles_run"] == message["figures"]["tiles_total"]
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(OLD)
        with rasterio.open(tmp_path / "out.tif") as out, rasterio.open(scene) as source:
            assert (out.shape, out.dtypes, out.transform) == (source.shape, source.dtypes, source.transform)

    def test_fault_22_the_worker_is_killed(self, dehaze, tmp_path):
        from kestrel.plugin.errors import WorkerError
        from kestrel.tests.support.worker_tools import Feedback, children_with

        class Killer(Feedback):
            def setProgressText(self, text):
                super().setProgressText(text)
                if text.startswith("tiles"):
                    for worker in children_with(os.environ["KESTREL_HOME"]):
                        os.kill(worker, signal.SIGKILL)

        with pytest.raises(WorkerError, match="SIGKILL"):
            dehaze(Killer())
        for name, content in OLD.items():
            assert (tmp_path / name).read_bytes() == content
        dehaze()
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(OLD)

    def test_exception_a_refusal_is_one_sentence(self, dehaze, tmp_path):
        from kestrel.plugin.errors import WorkerError

        with pytest.raises(WorkerError, match="OVERLAP") as caught:
            dehaze(tile=256, overlap=256)
        assert caught.value.code == "parameter"
        intact(tmp_path)
