"""Write a raster under a limit on file sizes: ``full_disk_run.py OUTPUT KILOBYTES``; prints the refusal."""

from __future__ import annotations

import importlib.util
import resource
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("conftest", ROOT / "conftest.py")
spec.loader.exec_module(importlib.util.module_from_spec(spec))

from kestrel.engine.errors import EngineError  # noqa: E402
from kestrel.engine.events import Track  # noqa: E402
from kestrel.engine.raster_writer import RasterWriter, Target  # noqa: E402


def main(output: str, kilobytes: str) -> None:
    """Write 3000 kB of noise and its overviews."""
    limit = int(kilobytes) * 1000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    cancel = threading.Event()
    events = SimpleNamespace(cancel=cancel, progress=lambda *_: None, log=lambda *_: None)
    target = Target(width=1000, height=1024, count=3, dtype="uint8")
    values = np.random.default_rng(0).integers(0, 256, (3, 1024, 1000), dtype=np.uint8)
    try:
        with RasterWriter(target, Path(output), cancel, Path(output).name) as writer:
            for row in range(0, 1024, 256):
                writer.write(row, 0, values[:, row : row + 256])
            writer.finish(Track(events))
    except EngineError as error:
        print(error.code, error.message.split()[0], error.message.rsplit(": ")[-1].rstrip("."), sep="|")


if __name__ == "__main__":
    main(*sys.argv[1:])
