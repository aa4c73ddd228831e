"""The real worker with toys: started like ``engine/launch.py``, by path, under ``-I -u``.

Jobs whose model is in BEHAVIOURS run that function instead of the engine; the toys of ``toys.py``
and ``toy_models.py`` stand in the registry and run through the real engine. Everything else -
streams, threads, messages, exit codes - is the product's.
"""

import ctypes
import dataclasses
import functools
import importlib.util
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

spec = importlib.util.spec_from_file_location("kestrel_launch", ROOT / "engine" / "launch.py")
launch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launch)

protocol = None


class Outcome:
    def __init__(self, outputs=None, figures=None, warnings=()):
        self.outputs, self.figures, self.warnings = outputs or {}, figures or {}, list(warnings)


def echo(job, events):
    """Answer with what the Job asked for, after progress and log lines."""
    for done in range(4):
        events.progress(done / 4, done, 4, "tiles", 3.0)
        time.sleep(0.12)
    events.log("info", "as told")
    events.log("warning", "one tile skipped")
    return Outcome(dict(job.outputs), {"params": job.params, "pid": os.getpid()}, ["one tile skipped"])


def environment(job, events):
    return Outcome(figures={"environ": dict(os.environ), "cwd": os.getcwd(), "path": sys.path})


def odd_figures(job, events):
    """Figures as numpy leaves them: scalars, arrays, NaN, infinity."""
    import numpy as np

    return Outcome(
        figures={"a": np.float32(0.5), "b": np.arange(2), "c": float("nan"), "d": np.inf, "e": Path("x")}
    )


def noisy(job, events):
    """Print on every way to stdout that a library could take."""
    print("python print")
    os.write(1, b"descriptor write\n")
    libc = ctypes.CDLL(None)
    libc.puts(b"C library print")
    libc.fflush(None)
    subprocess.run([sys.executable, "-c", "print('child print')"], check=True)
    return Outcome(figures={"stdin": sys.stdin.read(), "stdin_fd": os.read(0, 10).decode()})


def refuse(job, events):
    from kestrel.engine.errors import EngineError

    raise EngineError("input", "scene.tif has 3 bands, this model needs 1.", "Choose BAND.")


def model_refuses(job, events):
    from kestrel.models.task import ModelError

    raise ModelError("The weights do not fit.", "Choose others.")


def unexpected(job, events):
    raise ZeroDivisionError("division by zero in tile 7\nsecond line")


def missing_package(job, events):
    import a_package_that_nobody_has  # noqa: F401


def memory(job, events):
    raise MemoryError("12 GB")


def disk_full(job, events):
    raise OSError(28, "No space left on device")


def slow(job, events):
    """Run until cancelled, as the engine does between two tiles."""
    from kestrel.engine.errors import Cancelled

    events.progress(0.1, 1, 10, "slow", None)
    if not events.cancel.wait(120):
        return Outcome()
    raise Cancelled


def stubborn(job, events):
    """Ignore cancel, with a grandchild that does the same."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    events.progress(0.1, 1, 10, "stubborn", None)
    time.sleep(120)


def crash(job, events):
    events.progress(0.5, 5, 10, "about to crash", None)
    time.sleep(0.2)
    ctypes.string_at(0)


def killed(job, events):
    os.kill(os.getpid(), signal.SIGKILL)


def leave(job, events):
    os.write(2, b"giving up\n")
    os._exit(7)


def hang(job, events):
    """Hold the interpreter lock, as a C library in an endless loop does: not even ``alive`` comes."""
    events.progress(0.2, 2, 10, "about to hang", None)
    time.sleep(0.2)
    ctypes.PyDLL(None).sleep(120)


def garbage(job, events):
    protocol.write("this is not a message\n")
    protocol.flush()
    time.sleep(60)


def endless_garbage(job, events):
    """Write binary zeros without a line end, on the protocol's own stream."""
    while True:
        protocol.buffer.write(b"\xff\x00" * 2**20)


BEHAVIOURS = {
    function.__name__: function
    for function in (
        echo,
        environment,
        odd_figures,
        noisy,
        refuse,
        model_refuses,
        unexpected,
        missing_package,
        memory,
        disk_full,
        slow,
        stubborn,
        crash,
        killed,
        leave,
        hang,
        garbage,
        endless_garbage,
    )
}


def run_job(job, events):
    # qgis_process asks for a product's model; a test may put a toy in its place
    job = dataclasses.replace(job, model=os.environ.get("KESTREL_TOY_MODEL", job.model))
    if job.model in BEHAVIOURS:
        return BEHAVIOURS[job.model](job, events)
    return real_run().run_job(job, events)


@functools.cache
def real_run():
    """Import the real ``engine/run.py`` under its own name, beside the one put in its place."""
    load("kestrel.models.toys", Path(__file__).with_name("toys.py"))
    load("kestrel.models.toy_models", Path(__file__).with_name("toy_models.py"))
    return load("kestrel.engine.real_run", ROOT / "engine" / "run.py")


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main():
    global protocol
    from kestrel.engine.protocol_io import take_streams

    lines, protocol = take_streams()
    module = types.ModuleType("kestrel.engine.run")
    module.run_job = run_job
    sys.modules["kestrel.engine.run"] = module
    from kestrel.models import registry

    registry.MODELS["toy"] = registry.Entry("toys:build", "", ())
    for name in ("crash", "refuse", "slow"):
        registry.MODELS["toy_" + name] = registry.Entry(f"toy_models:{name}", "", ())
    from kestrel.engine.worker import serve

    return serve(lines, protocol)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
