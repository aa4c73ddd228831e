"""A cold worker: how soon it shows a sign of life, and what it does with lines that are no messages."""

import json
import subprocess
import sys
import time

import pytest
from kestrel.engine.job import EXIT_PROTOCOL, Job, encode_message
from kestrel.plugin import paths

LAUNCH = paths.ROOT / "engine" / "launch.py"


def test_first_progress_within_3_s_of_a_cold_start(tmp_path):
    """Nothing is imported yet: the sign comes before the libraries."""
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-I", "-u", str(LAUNCH)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    job = Job("predict", "cfar", {"image": {"path": "gone.tif", "bands": [1]}}, {"boxes": "b.fgb"}, {})
    try:
        process.stdin.write(encode_message("run", job=json.loads(job.to_json())))
        process.stdin.flush()
        for line in process.stdout:
            if json.loads(line)["type"] == "progress":
                break
        seconds = time.monotonic() - start
    finally:
        process.kill()
        process.communicate()
    assert seconds < 3


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"type": NaN}', '{"type": "run", "job": Infinity}', "9" * 5000]
)
def test_a_line_that_is_no_message_ends_the_worker_by_the_protocol(line):
    """Its reader must not die silently: the worker would wait for ever."""
    done = subprocess.run(
        [sys.executable, "-I", "-u", str(LAUNCH)],
        input=line + "\n", capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert done.returncode == EXIT_PROTOCOL
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["type"], last["code"]) == ("error", "protocol")
