"""Which Python runs the models: the order, the reasons, the probe, the child's environment."""

import json
import os
import sys
import time

import pytest
from kestrel.plugin import runtime, settings
from kestrel.plugin.environment import child_environment
from kestrel.plugin.errors import WorkerCancelled, WorkerError

pytestmark = pytest.mark.qgis


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    """No setting, no variable, no managed runtime, nothing probed."""
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KESTREL_PYTHON", raising=False)
    monkeypatch.setattr(settings, "python", lambda: "")
    monkeypatch.setattr(runtime, "_probed", {})
    return tmp_path


def executable(path, text="#!/bin/sh\nexit 0\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def managed(home, name, python, stamp):
    folder = home / "home" / "runtimes" / name
    executable(folder / "bin" / "python")
    complete = folder / "complete.json"
    complete.write_text(json.dumps({"python": python}))
    os.utime(complete, (stamp, stamp))
    return folder


def test_the_setting_comes_first_then_the_variable_then_managed_then_qgis(clean, monkeypatch):
    own = executable(clean / "own" / "bin" / "python3")
    monkeypatch.setattr(runtime, "qgis_python", lambda: own)
    monkeypatch.setattr(runtime, "_probe", lambda python, cancelled: "")
    assert runtime.find_runtime() == runtime.Runtime(
        own, "QGIS's own Python", f"{own} has the packages that are needed"
    )

    folder = managed(clean, "0123456789ab", "bin/python", 1000)
    assert runtime.find_runtime().source == "managed runtime"
    assert runtime.find_runtime().python == str(folder / "bin" / "python")

    monkeypatch.setenv("KESTREL_PYTHON", executable(clean / "it" / "python"))
    assert runtime.find_runtime().python == str(clean / "it" / "python")

    monkeypatch.setattr(settings, "python", lambda: executable(clean / "chosen" / "python"))
    assert runtime.find_runtime().source == "setting kestrel/python"
    assert runtime.find_runtime().python == str(clean / "chosen" / "python")


def test_the_newest_complete_managed_runtime_wins_and_an_incomplete_one_does_not_exist(clean):
    managed(clean, "old", "bin/python", 1000)
    newer = managed(clean, "newer", "bin/python", 2000)
    managed(clean, "broken", "bin/nothing", 3000)
    (managed(clean, "garbled", "bin/python", 4000) / "complete.json").write_text("{")
    executable(clean / "home" / "runtimes" / "half" / "bin" / "python")
    assert runtime.find_runtime().python == str(newer / "bin" / "python")


@pytest.mark.parametrize("kind", ["missing", "not executable", "folder"])
def test_exception_a_named_python_is_never_replaced_by_another(clean, monkeypatch, kind):
    named = clean / "python"
    if kind == "not executable":
        named.write_text("")
    elif kind == "folder":
        named.mkdir()
    managed(clean, "0123456789ab", "bin/python", 1000)
    monkeypatch.setenv("KESTREL_PYTHON", str(named))
    with pytest.raises(WorkerError) as caught:
        runtime.find_runtime()
    assert caught.value.code == "no_runtime"
    assert str(named) in caught.value.message
    assert "KESTREL_PYTHON" in caught.value.message
    assert "kestrel/python" in caught.value.hint


def test_exception_nothing_found_tells_every_place(clean, monkeypatch):
    monkeypatch.setattr(runtime, "qgis_python", lambda: "")
    with pytest.raises(WorkerError) as caught:
        runtime.find_runtime()
    message = caught.value.message
    for place in ("setting kestrel/python", "KESTREL_PYTHON", "managed runtime", "QGIS's own Python"):
        assert place in message


def test_qgis_own_python_is_beside_its_prefix_and_never_sys_executable(clean, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/usr/bin/qgis.bin")
    monkeypatch.setattr(sys, "prefix", str(clean / "prefix"))
    assert runtime.qgis_python() == ""
    python = executable(clean / "prefix" / "bin" / "python3")
    assert runtime.qgis_python() == python


def test_the_probe_accepts_an_interpreter_that_imports_what_is_needed():
    started = time.monotonic()
    assert runtime._probe(sys.executable, lambda: False) == ""
    assert time.monotonic() - started < 30


def test_the_probe_names_what_is_missing(clean):
    import subprocess

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clean / "bare"], check=True)
    problem = runtime._probe(str(clean / "bare" / "bin" / "python"), lambda: False)
    assert problem.startswith("lacks numpy (ModuleNotFoundError), rasterio (ModuleNotFoundError)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/bin/sh\nexit 3\n", "exit code 3"),
        ('#!/bin/sh\necho \'KESTREL {"version": [2, 7], "missing": []}\'\n', "is Python 2.7, not QGIS's"),
    ],
)
def test_exception_the_probe_explains(clean, text, words):
    assert words in runtime._probe(executable(clean / "python", text), lambda: False)


def test_exception_the_probe_times_out_and_can_be_cancelled(clean, monkeypatch):
    python = executable(clean / "python", "#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(runtime, "PROBE_S", 0.3)
    assert "did not answer" in runtime._probe(python, lambda: False)
    with pytest.raises(WorkerCancelled):
        runtime._probe(python, lambda: True)


def test_the_probe_is_asked_once_for_a_file_and_again_when_it_changes_or_failed_long_ago(clean, monkeypatch):
    asked, answer = [], [""]
    own = executable(clean / "own" / "bin" / "python3")
    monkeypatch.setattr(runtime, "qgis_python", lambda: own)
    monkeypatch.setattr(runtime, "_probe", lambda python, cancelled: asked.append(python) or answer[0])
    assert runtime.find_runtime().python == runtime.find_runtime().python
    assert len(asked) == 1
    os.utime(own, (1000, 1000))
    answer[0] = "lacks rasterio"
    for _ in range(2):
        with pytest.raises(WorkerError, match="lacks rasterio"):
            runtime.find_runtime()
    assert len(asked) == 2
    monkeypatch.setattr(runtime, "RETRY_S", -1.0)
    answer[0] = ""
    assert runtime.find_runtime().python == own
    assert len(asked) == 3


def test_child_environment_drops_what_misleads_and_keeps_the_rest(clean):
    poison = [
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONEXECUTABLE",
        "PythonPath",
        "__PYVENV_LAUNCHER__",
        "PYTHONUSERBASE",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "CONDA_DEFAULT_ENV",
        "PIP_INDEX_URL",
        "QGIS_PREFIX_PATH",
        "QGIS_PLUGINPATH",
        "PROJ_DATA",
        "PROJ_LIB",
        "GDAL_DATA",
        "GDAL_DRIVER_PATH",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "DYLD_LIBRARY_PATH",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    ]
    kept = {
        "PATH": "/usr/bin",
        "HOME": "/h",
        "HTTPS_PROXY": "http://p",
        "LANG": "de_DE.UTF-8",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    base = {**dict.fromkeys(poison, "/bad"), **kept}
    before = dict(base)
    assert child_environment(base) == kept
    assert base == before
    marked = child_environment(base, home=clean, log=clean / "x.log")
    assert marked == {**kept, "KESTREL_HOME": str(clean), "KESTREL_LOG": str(clean / "x.log")}
