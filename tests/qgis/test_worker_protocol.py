"""The worker alone, over its pipes: messages, exit codes, streams (CONTRACTS.md, section 3)."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kestrel.engine.job import Job, encode_message
from kestrel.tests.support.worker_tools import LAUNCH_TOY, ROOT, job

LAUNCH = ROOT / "engine" / "launch.py"
STATUS = Job(kind="status", model="", inputs={}, outputs={}, params={})


def start(launch=LAUNCH_TOY, **more):
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-I", "-u", os.fspath(launch)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environ, **more.pop("env", {})},
        **more,
    )


def run(*messages, launch=LAUNCH_TOY, **more):
    """Send all messages at once, close stdin only after the worker left by itself."""
    worker = start(launch, **more)
    worker.stdin.write("".join(messages).encode())
    worker.stdin.flush()
    output = worker.stdout.read()
    code = worker.wait(20)
    worker.stdin.close()
    errors = worker.stderr.read().decode()
    worker.stderr.close()
    worker.stdout.close()
    return [json.loads(line) for line in output.decode().splitlines()], code, errors


def run_message(model, number="r1", **params):
    return encode_message("run", job=dataclasses.asdict(job(model, **params)), id=number)


QUIT = encode_message("quit")


def test_smoke_hello_is_the_first_message_and_fast():
    started = time.monotonic()
    messages, code, _ = run(QUIT, launch=LAUNCH)
    assert time.monotonic() - started < 5.0
    assert code == 0
    [hello] = messages
    assert hello["type"] == "hello"
    assert hello["version"] == 1
    assert hello["kestrel"] == "0.1.0"
    assert hello["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert hello["packages"]["numpy"].startswith("1.") or hello["packages"]["numpy"].startswith("2.")
    assert hello["devices"][0] == "cpu"


def test_hello_imports_nothing_heavy():
    code = (
        "import runpy, sys, atexit;"
        "atexit.register(lambda: print(sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr));"
        f"sys.path.insert(0, {str(ROOT / '.kestrel' / 'python')!r});"
        f"launch = runpy.run_path({str(LAUNCH)!r}); launch['main']()"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], input=QUIT, capture_output=True, text=True, timeout=20
    )
    loaded = set(eval(done.stderr.strip().splitlines()[-1]))
    assert "kestrel" in loaded
    assert not loaded & {"torch", "numpy", "rasterio", "shapely", "scipy", "matplotlib", "qgis"}


def test_result_carries_the_run_and_exits_0():
    messages, code, _ = run(run_message("echo", "run-7", tile=64), QUIT)
    assert code == 0
    result = messages[-1]
    assert result["type"] == "result"
    assert result["job"] == "run-7"
    assert result["figures"]["params"] == {"tile": 64}
    assert result["warnings"] == ["one tile skipped"]
    kinds = [message["type"] for message in messages]
    assert kinds[0] == "hello"
    assert kinds.count("progress") >= 4
    assert all(message["job"] == "run-7" for message in messages[1:] if message["type"] != "alive")


def test_several_runs_one_after_the_other_and_the_last_one_decides_the_exit_code():
    messages, code, _ = run_in_turn(["unexpected", "echo"])
    assert [message["type"] for message in messages] == ["error", "result"]
    assert code == 0
    messages, code, _ = run_in_turn(["echo", "unexpected"])
    assert [message["type"] for message in messages] == ["result", "error"]
    assert code == 1


def run_in_turn(models):
    worker = start()
    answers = []
    for number, model in enumerate(models):
        worker.stdin.write(run_message(model, number).encode())
        worker.stdin.flush()
        for line in worker.stdout:
            message = json.loads(line)
            if message["type"] in ("result", "error"):
                assert message["job"] == number
                answers.append(message)
                break
    worker.stdin.write(QUIT.encode())
    worker.stdin.close()
    code = worker.wait(10)
    worker.stdout.close()
    errors = worker.stderr.read().decode()
    worker.stderr.close()
    return answers, code, errors


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("refuse", "input", "scene.tif has 3 bands, this model needs 1."),
        ("model_refuses", "model", "The weights do not fit."),
        ("unexpected", "internal", "ZeroDivisionError: division by zero in tile 7)."),
        ("missing_package", "runtime", "has no package a_package_that_nobody_has."),
        ("memory", "memory", "12 GB"),
        ("disk_full", "output", "No space left on device"),
    ],
)
def test_exception_every_error_is_one_sentence_with_a_hint(model, code, words):
    messages, exit_code, errors = run(run_message(model), QUIT, env={"KESTREL_LOG": "/tmp/some.log"})
    error = messages[-1]
    assert exit_code == 1
    assert error["type"] == "error"
    assert error["code"] == code
    assert words in error["message"]
    assert "\n" not in error["message"]
    assert error["hint"]
    assert error["log"] == "/tmp/some.log"
    assert "Traceback" in errors


def test_exception_unknown_message_type_is_a_broken_protocol():
    messages, code, _ = run('{"type": "dance"}\n')
    assert code == 2
    assert messages[-1]["type"] == "error"
    assert messages[-1]["code"] == "protocol"
    assert "dance" in messages[-1]["message"]


def test_exception_garbage_on_stdin_is_a_broken_protocol():
    messages, code, _ = run("GET / HTTP/1.1\n")
    assert code == 2
    assert messages[-1]["code"] == "protocol"


def test_exception_a_second_run_while_busy_is_a_broken_protocol():
    messages, code, _ = run(run_message("slow", 1), run_message("echo", 2))
    assert code == 2
    assert "protocol" in [message.get("code") for message in messages]
    assert "result" not in [message["type"] for message in messages]


def test_exception_a_job_with_unknown_fields_is_refused():
    fields = {**dataclasses.asdict(STATUS), "colour": "red"}
    messages, code, _ = run(encode_message("run", job=fields), QUIT)
    assert code == 1
    assert messages[-1]["code"] == "internal"
    assert "colour" in messages[-1]["message"]


def test_unknown_fields_of_a_message_are_ignored():
    messages, code, _ = run(encode_message("run", job=dataclasses.asdict(job("echo")), mood="good"), QUIT)
    assert code == 0
    assert messages[-1]["type"] == "result"


def test_cancel_stops_the_run_and_exits_3():
    messages, code, _ = run(run_message("slow"), encode_message("cancel"), QUIT)
    assert code == 3
    assert messages[-1]["code"] == "cancelled"


def test_cancel_while_idle_does_not_hit_the_next_run():
    messages, code, _ = run(encode_message("cancel"), run_message("echo"), QUIT)
    assert code == 0
    assert messages[-1]["type"] == "result"


def test_fault_stdin_eof_mid_run_ends_a_worker_that_listens_quickly_and_a_deaf_one_within_5_s():
    for model, limit in (("slow", 3.5), ("stubborn", 5.0)):
        worker = start(start_new_session=True)
        worker.stdin.write(run_message(model).encode())
        worker.stdin.flush()
        for line in worker.stdout:
            if json.loads(line).get("stage") == model:
                break
        closed = time.monotonic()
        worker.stdin.close()
        assert worker.wait(10) == 3
        assert time.monotonic() - closed < limit
        if model == "stubborn":
            # its grandchild keeps the group alive
            os.killpg(worker.pid, signal.SIGKILL)
        worker.stdout.close()
        worker.stderr.close()


def test_fault_stdin_eof_while_idle_ends_the_worker():
    worker = start()
    assert json.loads(worker.stdout.readline())["type"] == "hello"
    worker.stdin.close()
    assert worker.wait(4) == 0
    worker.stdout.close()
    worker.stderr.close()


@pytest.mark.slow
def test_alive_comes_every_5_s_during_a_long_run():
    worker = start()
    worker.stdin.write(run_message("slow").encode())
    worker.stdin.flush()
    times, started = [], time.monotonic()
    for line in worker.stdout:
        if json.loads(line)["type"] == "alive":
            times.append(time.monotonic() - started)
            if len(times) == 2:
                break
    worker.stdin.close()
    worker.wait(10)
    worker.stdout.close()
    worker.stderr.close()
    assert times[0] < 6.5
    assert 4.0 < times[1] - times[0] < 6.0


def test_fault_prints_of_python_c_and_children_go_to_the_log_and_stdin_is_empty():
    messages, code, errors = run(run_message("noisy"), QUIT)
    assert code == 0
    assert messages[-1]["figures"] == {"stdin": "", "stdin_fd": ""}
    for words in ("python print", "descriptor write", "C library print", "child print"):
        assert words in errors


def test_figures_become_json_whatever_numpy_left_in_them():
    messages, _, _ = run(run_message("odd_figures"), QUIT)
    assert messages[-1]["figures"] == {"a": 0.5, "b": [0, 1], "c": None, "d": None, "e": "x"}


def test_text_is_utf8_in_any_locale():
    name = "海岸 – 50 µm.tif"
    messages, code, _ = run(
        run_message("echo", note=name), QUIT, env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    )
    assert code == 0
    assert messages[-1]["figures"]["params"]["note"] == name


def test_launch_from_a_folder_with_space_and_dot(tmp_path):
    home = tmp_path / "my plugins v1.2" / "kestrel main.zip"
    for room in ("engine", "models"):
        shutil.copytree(ROOT / room, home / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "metadata.txt"):
        shutil.copy(ROOT / name, home / name)
    message = encode_message("run", job=dataclasses.asdict(STATUS))
    messages, code, _ = run(message, QUIT, launch=home / "engine" / "launch.py", cwd=tmp_path)
    assert code == 0
    result = messages[-1]
    assert result["type"] == "result"
    assert result["figures"]["kestrel"] == "0.1.0"
    assert result["figures"]["checks"] == {"CRS from EPSG": "ok", "write one pixel": "ok", "torch": "ok"}
    assert result["figures"]["missing"] == []


def test_status_names_interpreter_versions_devices_and_weights():
    messages, code, _ = run(encode_message("run", job=dataclasses.asdict(STATUS)), QUIT, launch=LAUNCH)
    figures = messages[-1]["figures"]
    assert code == 0
    assert figures["python"]["path"] == sys.executable
    assert figures["packages"]["torch"]
    assert figures["devices"][0]["name"] == "cpu"
    assert isinstance(figures["weights"], list)


def test_importing_launch_registers_the_package_and_starts_nothing(tmp_path):
    # what a spawned pool does with the main module
    code = (
        "import runpy, sys;"
        f"runpy.run_path({str(LAUNCH)!r}, run_name='__mp_main__');"
        "import kestrel.engine.job; print(kestrel.engine.job.JOB_VERSION)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "1\n"


def test_an_interpreter_that_is_too_old_gets_a_sentence(tmp_path):
    shutil.copytree(ROOT / "engine", tmp_path / "kestrel" / "engine")
    shutil.copy(ROOT / "__init__.py", tmp_path / "kestrel" / "__init__.py")
    launch = tmp_path / "kestrel" / "engine" / "launch.py"
    text = launch.read_text(encoding="utf-8")
    launch.write_text(text.replace("MINIMUM = (3, 11)", "MINIMUM = (99, 0)"), encoding="utf-8")
    messages, code, _ = run(launch=launch)
    assert code == 1
    assert messages[-1]["code"] == "runtime"
    assert sys.executable in messages[-1]["message"]


def test_weights_list_tells_good_missing_and_changed_files(tmp_path):
    from hashlib import sha256

    from kestrel.engine.status import weights_list

    (tmp_path / "good.safetensors").write_bytes(b"good")
    (tmp_path / "changed.safetensors").write_bytes(b"other")
    manifest = {
        name: {
            "file": f"{name}.safetensors",
            "sha256": sha256(name.encode()).hexdigest(),
            "status": "released",
        }
        for name in ("good", "changed", "gone")
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert {line["name"]: line["state"] for line in weights_list(tmp_path)} == {
        "good": "ok",
        "changed": "changed",
        "gone": "missing",
    }
    assert weights_list(Path(tmp_path / "nowhere")) == []
