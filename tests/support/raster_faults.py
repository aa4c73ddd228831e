"""Raster Jobs that must fail or must survive: refusals, full disks, and runs of their own to be killed.

As a script it is the killed runs' parent: ``raster_faults.py`` reads ``IMAGE OUTPUT HAZE`` as JSON
lines, forks a run for each, answers its process id and, when it is over, its exit status. Imports
happen once, so that a kill at a random moment hits the run and not Python's start.
``raster_faults.py IMAGE FOLDER MB ...`` runs the dark channel with so little memory, and says what became
of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

#: Makes the checkout importable in a process of its own.
CONFTEST = Path(__file__).resolve().parents[2] / "conftest.py"
if __name__ == "__main__":
    import runpy

    runpy.run_path(str(CONFTEST))

from kestrel.engine.errors import EngineError  # noqa: E402
from kestrel.engine.run import Outcome, run_job  # noqa: E402
from kestrel.tests.support import raster_toys as toys  # noqa: E402
from kestrel.tests.support.jobs import Recorder  # noqa: E402

#: Tiles of the runs that are killed or cancelled: 25 of 20 ms on 600 x 600 pixels, with overviews.
SLOW = {"tile": 128, "overlap": 8}


def hazy(height: int, width: int, dtype: Any = "uint8", bands: int = 3, seed: int = 0) -> np.ndarray:
    """Return (bands, height, width) of 20..225, smooth with some noise: no band is constant."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    slope = 110 + 40 * np.sin(rows / 17) + 40 * np.cos(cols / 23)
    image = slope + np.arange(bands)[:, None, None] * 5 + rng.integers(-10, 11, (bands, height, width))
    return image.astype(dtype)


def restore(image: Path, outputs: dict[str, Path], events: Any = None, **fields: Any) -> Outcome:
    """Run the real dark channel, by the registry."""
    job = replace(toys.job(image, outputs, **fields), model="dark_channel")
    return run_job(job, events or Recorder())


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return all files below a folder with size, time and inode: what "nothing was written" means."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        stamp = (status.st_size, status.st_mtime_ns, status.st_ino) if path.is_file() else (0, 0, 0)
        found[str(path.relative_to(folder))] = stamp
    return found


def refusal(words: str, image: Path, folder: Path, output: str = "out.tif", **fields: Any) -> EngineError:
    """Run the dark channel, which must refuse in one sentence and leave ``folder`` as it is."""
    import pytest

    make = fields.pop("make", None)
    before = listing(folder)
    outputs = {"raster": folder / output}
    job = toys.job(image, outputs, **fields)
    if make is None:
        job = replace(job, model="dark_channel")
    with pytest.raises(EngineError, match=words) as caught:
        run_job(job, Recorder(), make)
    error = caught.value
    assert error.hint or error.code == "parameter"  # there the sentence itself says what is allowed
    assert "\n" not in error.message
    assert error.message.endswith(".")
    assert len(error.message) < 400
    assert listing(folder) == before
    return error


def darker(image: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """Return float64 what ``toys.darkened`` makes of ``image``: x + (f(u) - u) (max - min)."""
    low, high = (np.reshape(np.asarray(end, float), (-1, 1, 1)) for end in (low, high))
    u = np.clip((image.astype(float) - low) / (high - low), 0, 1)
    return image + (0.9 * u - u) * (high - low)


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a small tmpfs on ``folder`` (made here); skips the test where that is not allowed."""
    import pytest

    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "kestrel-test", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no mount: {error}")
    if done.returncode:
        pytest.skip(f"no tmpfs: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Runs:
    """A process that forks one slow run after the other, each to be killed."""

    def __enter__(self) -> Runs:
        self._child = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: Any) -> None:
        self._child.stdin.close()
        self._child.wait(10)
        self._child.stdout.close()

    def start(self, image: Path, output: Path, haze: Path) -> int:
        """Fork a run and return its process id."""
        self._child.stdin.write(json.dumps([str(image), str(output), str(haze)]) + "\n")
        self._child.stdin.flush()
        return int(self._child.stdout.readline())

    def wait(self) -> int:
        """Return the exit status of the run: 0, or minus the signal's number.

        Only then is it reaped, so that until here its number means nobody else.
        """
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        return int(self._child.stdout.readline())


def serve() -> None:
    """Fork a run for every line on stdin."""
    for line in sys.stdin:
        image, output, haze = json.loads(line)
        child = os.fork()
        if not child:
            code = 1
            try:
                outputs = {"raster": output, "haze": haze}
                run_job(toys.job(image, outputs, **SLOW), Recorder(), toys.builder(toys.slow))
                code = 0
            finally:
                os._exit(code)
        print(child, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def starve(image: Path, folder: Path, megabytes: list[int]) -> None:
    """Run the dark channel once as it is, then with so many MB more than the process has, until tiles shrink.

    Prints JSON, each line: MB (0 = unlimited), the tile that was used or 0, the error's code and sentence.
    """
    import resource

    restore(image, {"raster": folder / "warm.tif"}, tile=256)  # libraries take their memory now
    first = 0
    for extra in [0, *megabytes]:
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        hard = resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_AS, (used + extra * 2**20 if extra else hard, hard))
        answer: list[Any] = [extra, 0, "", ""]
        try:
            figures = restore(image, {"raster": folder / f"{extra}.tif"}, tile=2048, overlap=134).figures
            answer[1] = figures["params_used"]["tile"]
        except EngineError as error:
            answer[2:] = error.code, error.message
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        print(json.dumps(answer), flush=True)
        if 0 < answer[1] < first:
            break
        first = first or answer[1]


if __name__ == "__main__":
    if sys.argv[1:]:
        starve(Path(sys.argv[1]), Path(sys.argv[2]), [int(mb) for mb in sys.argv[3:]])
    else:
        serve()
