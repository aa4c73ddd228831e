"""A run that writes a raster part and waits or dies: ``part_run.py OUTPUT wait|kill``.

Started by tests as a process of its own, so that a kill is a real one.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("conftest", ROOT / "conftest.py")
spec.loader.exec_module(importlib.util.module_from_spec(spec))

from kestrel.engine.parts import Parts  # noqa: E402
from kestrel.engine.raster_target import Target  # noqa: E402
from kestrel.engine.raster_writer import RasterWriter  # noqa: E402


def main(output: str, end: str) -> None:
    """Write half a raster, say so, then wait to be killed or kill oneself."""
    parts = Parts({"raster": output})
    target = Target(width=700, height=1024, count=3, dtype="uint8")
    writer = RasterWriter(target, parts.path("raster"), threading.Event(), Path(output).name)
    noise = np.random.default_rng(0).integers(0, 256, (3, 256, 700), dtype=np.uint8)
    writer.write(0, 0, noise)
    writer.write(256, 0, noise)
    print("halfway", flush=True)
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
