"""Running Jobs in-process: the engine as the worker calls it, with events that remember."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from kestrel.engine.job import Job
from kestrel.engine.run import Outcome, run_job

from . import toys


class Recorder:
    """Events that keep what they are told; ``cancel_at`` sets cancel at that many tile reports."""

    def __init__(self, cancel_at: int | None = None) -> None:
        self.cancel = threading.Event()
        self.lines: list[tuple[str, str]] = []
        self.steps: list[tuple[float, int, int, str, float | None]] = []
        self._cancel_at = cancel_at

    def progress(
        self, fraction: float, done: int, total: int, stage: str, seconds_left: float | None
    ) -> None:
        self.steps.append((fraction, done, total, stage, seconds_left))
        tiles = sum(step[3] == "tiles" for step in self.steps)
        if self._cancel_at is not None and tiles >= self._cancel_at:
            self.cancel.set()

    def log(self, level: str, text: str) -> None:
        self.lines.append((level, text))


def job(image: Path, scratch: Path, bands: tuple[int, ...] = (1,), **fields: Any) -> Job:
    """Return a predict Job for one image; other Job fields and ``land`` by name, rest are params."""
    known = {k: fields.pop(k) for k in ("extent", "aoi_wkt", "crs_wkt", "device") if k in fields}
    inputs: dict[str, dict[str, Any]] = {"image": {"path": str(image), "bands": list(bands)}}
    if "land" in fields:
        inputs["land"] = {"path": str(fields.pop("land"))}
    outputs = {"boxes": str(scratch / "boxes.fgb")}
    if fields.pop("report", False):
        outputs["report"] = str(scratch / "report.html")
    return Job("predict", "toy", inputs, outputs, fields, scratch=str(scratch), **known)


def run(
    image: Path,
    scratch: Path,
    builder: Any = toys.build,
    events: Any = None,
    threads: bool = True,
    **fields: Any,
) -> tuple[Outcome, dict[str, np.ndarray]]:
    """Run a toy Job; return the outcome and the features by column, ``polygon`` among them."""
    events = events or Recorder()
    outcome = run_job(job(image, scratch, **fields), events, builder=builder, threads=threads)
    return outcome, read(Path(outcome.outputs["boxes"]))


def read(path: Path) -> dict[str, np.ndarray]:
    """Return all columns of a FlatGeobuf, in file order, with ``polygon`` as shapely geometries."""
    meta, _, wkb, data = pyogrio.raw.read(path)
    return {"polygon": shapely.from_wkb(wkb), **dict(zip(meta["fields"], data, strict=True))}
