"""What the worker's tests share: a feedback that records, Jobs for the toy worker, process checks."""

import os
import time
from pathlib import Path

from kestrel.engine.job import Job

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_TOY = Path(__file__).with_name("launch_toy.py")


class Feedback:
    """A QgsProcessingFeedback's part that the worker client uses; cancels itself when told."""

    def __init__(self, cancel_after=None, cancel_at_stage=None):
        self.cancel_at = None if cancel_after is None else time.monotonic() + cancel_after
        self.cancel_at_stage = cancel_at_stage
        self.cancelled_at = None
        self.asked = []
        self.progress, self.texts, self.infos, self.warnings, self.errors = [], [], [], [], []

    def isCanceled(self):
        now = time.monotonic()
        self.asked.append(now)
        if self.cancelled_at is None and self.cancel_at is not None and now >= self.cancel_at:
            self.cancelled_at = now
        return self.cancelled_at is not None

    def setProgress(self, value):
        self.progress.append(value)

    def setProgressText(self, text):
        self.texts.append(text)
        if self.cancel_at_stage is not None and self.cancel_at_stage in text:
            self.cancel_at = time.monotonic()

    def pushInfo(self, text):
        self.infos.append(text)

    def pushWarning(self, text):
        self.warnings.append(text)

    def reportError(self, text, fatal=False):
        self.errors.append(text)


def job(model, kind="predict", **params):
    """Return a Job without rasters for a behaviour of the toy worker."""
    return Job(kind=kind, model=model, inputs={}, outputs={}, params=params)


def children_with(value):
    """Return the ids of living processes whose environment holds ``value`` (a test's own folder)."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            held = value.encode() in (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if held and state != "Z":
            found.append(int(entry.name))
    return found


def wait_until(condition, seconds):
    """Return whether ``condition()`` comes true within ``seconds``."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())
