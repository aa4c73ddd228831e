"""``plugin/worker.py`` against a real child: results, progress, errors, cancel, the warm worker."""

import itertools
import os
import sys
import threading
import time

import pytest
from kestrel.engine.job import Job
from kestrel.plugin import paths, warm
from kestrel.plugin.errors import WorkerCancelled, WorkerError
from kestrel.plugin.worker import WorkerProcess, run_job
from kestrel.tests.support.worker_tools import LAUNCH_TOY, Feedback, children_with, job, wait_until

pytestmark = pytest.mark.qgis


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A KESTREL_HOME of the test's own, which also marks the test's processes."""
    folder = tmp_path / "kestrel home ü"
    monkeypatch.setenv("KESTREL_HOME", str(folder))
    monkeypatch.setenv("KESTREL_PYTHON", sys.executable)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(paths, "LAUNCH", LAUNCH_TOY)
    yield folder
    warm.stop()
    assert wait_until(lambda: not children_with(str(tmp_path)), 3.0), "a worker was left behind"


@pytest.fixture
def pool():
    return warm.start(minutes=5)


def test_smoke_result_progress_text_and_log(home):
    feedback = Feedback()
    result = run_job(job("echo", confidence=0.25), feedback)
    assert result["figures"]["params"] == {"confidence": 0.25}
    assert result["runtime"]["source"] == "variable KESTREL_PYTHON"
    assert result["log"].startswith(str(home / "logs"))
    assert feedback.progress == sorted(feedback.progress)
    assert 75.0 in feedback.progress
    assert "tiles: 0 of 4, about 3 s left" in feedback.texts
    assert feedback.infos == ["as told"]
    # said once by the engine's log line, once more by the result: shown once
    assert feedback.warnings == ["one tile skipped"]


def test_a_job_and_a_result_far_larger_than_a_pipe():
    note = "POLYGON " * 500_000
    assert run_job(job("echo", note=note), Feedback())["figures"]["params"]["note"] == note


def test_one_shot_worker_is_gone_when_the_algorithm_is_back(home):
    run_job(job("echo"), Feedback())
    assert children_with(str(home)) == []


def test_the_loop_asks_for_cancel_at_least_four_times_a_second():
    feedback = Feedback(cancel_after=2.0)
    with pytest.raises(WorkerCancelled):
        run_job(job("slow"), feedback)
    gaps = [after - before for before, after in itertools.pairwise(feedback.asked)]
    assert max(gaps) < 0.25


def test_the_real_worker_answers_a_status_job(monkeypatch):
    monkeypatch.setattr(paths, "LAUNCH", paths.ROOT / "engine" / "launch.py")
    result = run_job(Job(kind="status", model="", inputs={}, outputs={}, params={}), Feedback())
    assert set(result["figures"]["checks"].values()) == {"ok"}


def test_exception_an_error_keeps_message_hint_code_and_log():
    with pytest.raises(WorkerError) as caught:
        run_job(job("refuse"), Feedback())
    error = caught.value
    assert error.message == "scene.tif has 3 bands, this model needs 1."
    assert error.hint == "Choose BAND."
    assert error.code == "input"
    assert "Traceback" in open(error.log, encoding="utf-8").read()
    assert error.text() == f"{error.message} Choose BAND. Log: {error.log}"


def test_exception_home_that_cannot_be_written(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("KESTREL_HOME", str(blocked))
    with pytest.raises(WorkerError, match="cannot write below"):
        run_job(job("echo"), Feedback())


def test_cancel_before_the_start_starts_nothing(home):
    feedback = Feedback(cancel_after=0.0)
    with pytest.raises(WorkerCancelled):
        run_job(job("echo"), feedback)
    assert not (home / "logs").exists()


@pytest.mark.parametrize("model", ["slow", "stubborn", "hang"])
@pytest.mark.parametrize("when", ["at start", "mid-run"])
def test_fault_cancel_is_back_within_2_s_and_leaves_no_process(home, model, when):
    feedback = Feedback(cancel_after=0.02) if when == "at start" else Feedback(cancel_at_stage=model)
    with pytest.raises(WorkerCancelled):
        run_job(job(model), feedback)
    assert time.monotonic() - feedback.cancelled_at < 2.0
    assert children_with(str(home)) == []


def test_a_rerun_after_a_cancel_works(pool):
    for model in ("slow", "stubborn"):
        with pytest.raises(WorkerCancelled):
            run_job(job(model), Feedback(cancel_at_stage=model))
        assert run_job(job("echo"), Feedback())["type"] == "result"


def test_warm_worker_is_reused_with_a_log_for_each_run(pool, home):
    first = run_job(job("echo"), Feedback())
    second = run_job(job("noisy"), Feedback())
    third = run_job(job("echo"), Feedback())
    assert first["figures"]["pid"] == third["figures"]["pid"]
    assert len({first["log"], second["log"], third["log"]}) == 3
    words = {run["log"]: open(run["log"], encoding="utf-8").read() for run in (first, second, third)}
    assert [text.count("C library print") for text in words.values()] == [0, 1, 0]
    assert len(children_with(str(home))) == 1


def test_warm_worker_survives_a_refusal_and_a_cancel(pool):
    pid = run_job(job("echo"), Feedback())["figures"]["pid"]
    with pytest.raises(WorkerError):
        run_job(job("unexpected"), Feedback())
    with pytest.raises(WorkerCancelled):
        run_job(job("slow"), Feedback(cancel_at_stage="slow"))
    assert run_job(job("echo"), Feedback())["figures"]["pid"] == pid


def test_warm_worker_that_died_while_idle_is_replaced(pool, home):
    pid = run_job(job("echo"), Feedback())["figures"]["pid"]
    os.kill(pid, 9)
    assert wait_until(lambda: not children_with(str(home)), 2.0)
    assert run_job(job("echo"), Feedback())["figures"]["pid"] != pid


def test_a_second_algorithm_meanwhile_gets_a_worker_of_its_own(pool, home):
    busy = Feedback()
    thread = threading.Thread(target=lambda: run_quietly(job("slow"), busy))
    thread.start()
    assert wait_until(lambda: "slow" in " ".join(busy.texts), 5.0)
    assert run_job(job("echo"), Feedback())["type"] == "result"
    assert not busy.asked[-1] < time.monotonic() - 1.0
    busy.cancelled_at = time.monotonic()
    thread.join(3.0)
    assert not thread.is_alive()
    # one of the two is kept
    assert wait_until(lambda: len(children_with(str(home))) == 1, 4.0)


def run_quietly(work, feedback):
    try:
        run_job(work, feedback)
    except WorkerCancelled:
        feedback.infos.append("cancelled")


def test_idle_worker_expires(home):
    warm.start(minutes=0.5 / 60)
    run_job(job("echo"), Feedback())
    assert len(children_with(str(home))) == 1
    assert wait_until(lambda: not children_with(str(home)), 4.0)


def test_warm_minutes_0_means_one_shot(home):
    warm.start(minutes=0)
    run_job(job("echo"), Feedback())
    assert children_with(str(home)) == []


def test_shut_down_ends_idle_and_busy_workers(pool, home):
    run_job(job("echo"), Feedback())
    caught = []

    def work():
        try:
            run_job(job("slow"), Feedback())
        except WorkerError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert wait_until(lambda: len(children_with(str(home))) == 1, 3.0)
    time.sleep(0.5)
    warm.stop()
    thread.join(3.0)
    assert children_with(str(home)) == []
    assert caught[0].code == "crash"


def test_only_the_last_20_logs_are_kept(home):
    logs = [paths.new_log("a b/ü") for _ in range(25)]
    assert [log.exists() for log in logs] == [False] * 5 + [True] * 20
    assert logs[0].name.endswith("-a-b.log")


def test_the_child_sees_a_cleaned_environment_and_the_cache_folder(monkeypatch, home):
    poison = {
        "PROJ_LIB": "/nowhere",
        "PROJ_DATA": "/nowhere",
        "GDAL_DATA": "/nowhere",
        "GDAL_DRIVER_PATH": "/nowhere",
        "PYTHONPATH": "/nowhere",
        "PYTHONUSERBASE": "/nowhere",
        "QGIS_PREFIX_PATH": "/nowhere",
        "CONDA_PREFIX": "/nowhere",
        "PIP_INDEX_URL": "https://example.org",
        "SSL_CERT_FILE": "/nowhere",
        "VIRTUAL_ENV": "/nowhere",
    }
    for name, value in poison.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LANG_OF_MINE", "kept")
    figures = run_job(job("environment"), Feedback())["figures"]
    assert not set(poison) & set(figures["environ"])
    assert figures["environ"]["LANG_OF_MINE"] == "kept"
    assert figures["environ"]["KESTREL_HOME"] == str(home)
    assert figures["cwd"] == str(home / "cache")
    assert "/nowhere" not in figures["path"]
    # the parent's own stays as it is
    assert os.environ["PROJ_LIB"] == "/nowhere"


def test_warm_worker_that_only_seems_alive_is_replaced(pool, home, monkeypatch):
    """For a moment after a kill the process still counts as running: the run must not fail for it."""
    pid = run_job(job("echo"), Feedback())["figures"]["pid"]
    os.kill(pid, 9)
    assert wait_until(lambda: not children_with(str(home)), 2.0)
    take = pool.take

    def hurried(python):
        seen = iter([True])
        with monkeypatch.context() as patch:
            real = WorkerProcess.alive
            patch.setattr(WorkerProcess, "alive", lambda self: next(seen, None) or real(self))
            return take(python)

    monkeypatch.setattr(pool, "take", hurried)
    assert run_job(job("echo"), Feedback())["figures"]["pid"] != pid
