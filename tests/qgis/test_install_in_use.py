"""What counts as an installed runtime, and that one in use is never swept."""

import json
import os
import subprocess
import sys
import time

import pytest
from kestrel.plugin import paths, runtime
from kestrel.plugin.installing import installed, sweep
from kestrel.plugin.worker import WorkerProcess

HOLD = """
import sys
sys.path.insert(0, sys.argv[1])
from kestrel.plugin.installing import sweep
from pathlib import Path
mark = sweep.mark(sys.argv[2], Path(sys.argv[3]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KESTREL_HOME", os.fspath(tmp_path))
    monkeypatch.delenv("KESTREL_PYTHON", raising=False)
    return tmp_path


def fake_runtime(home, name, base=sys.executable, age_s=0.0, **more):
    """Lay out a complete runtime without packages, ``age_s`` old."""
    folder = home / "runtimes" / name
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(base)
    complete = folder / "complete.json"
    told = {"python": "bin/python", "base": {"python": os.fspath(base)}, "versions": {"torch": "2"}, **more}
    complete.write_text(json.dumps(told))
    os.utime(complete, (time.time() - age_s,) * 2)
    return folder


def test_the_newest_that_works_is_used(home):
    assert installed.state(home).status == "none"
    older = fake_runtime(home, "older", age_s=100)
    newer = fake_runtime(home, "newer", device="cuda")
    broken = fake_runtime(home, "broken", age_s=-50)
    (broken / "bin" / "python").unlink()
    fake_runtime(home, "unreadable", age_s=-100).joinpath("complete.json").write_text("{")
    fake_runtime(home, "unfinished").joinpath("complete.json").unlink()
    now = installed.state(home)
    assert (now.status, now.info.folder, now.info.device) == ("ready", newer, "cuda")
    assert [info.folder for info in now.complete] == [broken, newer, older]
    assert runtime.find_runtime().python == os.fspath(newer / "bin" / "python")


def test_a_vanished_base_is_said_by_the_lookup_too(home, monkeypatch):
    monkeypatch.setattr(runtime, "qgis_python", str)  # no other Python comes in between
    base = home / "base-python"
    base.symlink_to(sys.executable)
    fake_runtime(home, "one", base=base)
    base.unlink()
    assert installed.state(home).status == "base_missing"
    managed = next(each for each in runtime.candidates() if each.source == "managed runtime")
    assert not managed.usable
    assert f"the Python it was built on, {base}, has vanished" in managed.reason


def test_a_runtime_in_use_by_another_process_stays_until_that_ends(home):
    """Its end by SIGKILL counts too: the mark's file stays, its lock does not."""
    old, new = fake_runtime(home, "old", age_s=100), fake_runtime(home, "new")
    search = os.fspath(paths.ROOT / ".kestrel" / "python")
    if not os.path.isdir(search):
        pytest.skip("the checkout is not set up")
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, search, old / "bin" / "python", home / "runtimes"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert other.stdout.readline() == "held\n"
        assert sweep.in_use(old)
        assert sweep.sweep(home / "runtimes", new) == []
        assert installed.state(home).complete[1].folder == old
    finally:
        other.kill()
        other.communicate()
    assert list((old / sweep.MARKS).iterdir())
    assert sweep.sweep(home / "runtimes", new) == [old]
    assert not old.exists()
    assert new.exists()


def test_unfinished_folders_go_and_complete_ones_stay(home):
    kept, left = fake_runtime(home, "kept"), fake_runtime(home, "left")
    (left / "complete.json").unlink()
    sweep.remove_unfinished(home / "runtimes")
    assert [path.name for path in (home / "runtimes").iterdir()] == [kept.name]


def test_a_worker_marks_its_runtime_while_it_lives(home):
    folder = fake_runtime(home, "one")
    worker = WorkerProcess(os.fspath(folder / "bin" / "python"), paths.new_log("test"))
    assert sweep.in_use(folder)
    worker.kill()
    assert not sweep.in_use(folder)
    assert sweep.mark(sys.executable, home / "runtimes") is None  # a named Python is nobody's to sweep
