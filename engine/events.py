"""How a run speaks to its caller while it works, and how it keeps its own time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from .errors import Cancelled

#: A progress message at most this often; the protocol's pipe is not a place for floods.
INTERVAL_S = 0.2


class Events(Protocol):
    """What the caller offers: progress, log, and a cancel flag that is polled between tiles."""

    cancel: threading.Event

    def progress(
        self, fraction: float, done: int, total: int, stage: str, seconds_left: float | None
    ) -> None:
        """Take note of the work done: ``fraction`` 0..1 of the whole run, counts of this stage."""

    def log(self, level: str, text: str) -> None:
        """Take one line; ``level`` is ``info``, ``warning`` or ``error``."""


class Track:
    """One run's events: warnings kept for the result, seconds by stage, throttled progress."""

    def __init__(self, events: Events) -> None:
        """Start the clock."""
        self._events = events
        self._last = 0.0
        self._fraction = 0.0
        self.cancel = events.cancel
        self.seconds: dict[str, float] = {}
        self.warnings: list[str] = []

    def check(self) -> None:
        """Raise Cancelled when the caller asked to stop."""
        if self.cancel.is_set():
            raise Cancelled

    def info(self, text: str) -> None:
        """Log one line."""
        self._events.log("info", text)

    def warn(self, text: str) -> None:
        """Log a warning, once, and keep it for the result."""
        if text not in self.warnings:
            self.warnings.append(text)
            self._events.log("warning", text)

    @contextmanager
    def stage(self, name: str, fraction: float) -> Iterator[None]:
        """Time a stage that starts when ``fraction`` of the run is done."""
        self.check()
        self._fraction = max(self._fraction, fraction)
        self._events.progress(self._fraction, 0, 0, name, None)
        start = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - start)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds towards a stage."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def progress(
        self, fraction: float, done: int, total: int, stage: str, seconds_left: float | None
    ) -> None:
        """Send progress, never backwards and not too often; the last of a stage always."""
        self._fraction = min(1.0, max(self._fraction, fraction))
        now = time.monotonic()
        if done < total and now - self._last < INTERVAL_S:
            return
        self._last = now
        self._events.progress(self._fraction, done, total, stage, seconds_left)
