"""Keep one idle worker per interpreter in the GUI: importing torch costs seconds at each run.

Only the GUI has a pool (``kestrel_plugin.initGui`` starts it); qgis_process runs one shot each.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .worker import WorkerProcess

_current: WarmPool | None = None


class WarmPool:
    """Idle workers, each with the timer that ends it, and the busy ones, for the shut-down."""

    def __init__(self, minutes: float) -> None:
        """Keep a worker for ``minutes`` after its last run; 0 = close it at once."""
        self._seconds = minutes * 60.0
        self._lock = threading.Lock()
        self._idle: dict[str, tuple[WorkerProcess, threading.Timer]] = {}
        self._busy: set[WorkerProcess] = set()
        self._closed = False

    def take(self, python: str) -> WorkerProcess | None:
        """Return the idle worker of ``python``, now busy, or None: none there, or at work."""
        with self._lock:
            worker, timer = self._idle.pop(python, (None, None))
            if worker is None or timer is None:
                return None
            timer.cancel()
            if worker.alive():
                self._busy.add(worker)
                return worker
        worker.kill()
        return None

    def adopt(self, worker: WorkerProcess) -> None:
        """Remember a worker that was started for a run."""
        with self._lock:
            self._busy.add(worker)

    def forget(self, worker: WorkerProcess) -> None:
        """Drop a worker that its run has ended."""
        with self._lock:
            self._busy.discard(worker)

    def give_back(self, worker: WorkerProcess) -> None:
        """Keep a worker for the next run, or close it: a second one, or a pool that is shut down."""
        with self._lock:
            self._busy.discard(worker)
            keep = self._seconds > 0 and not self._closed and worker.python not in self._idle
            if keep:
                timer = threading.Timer(self._seconds, self._expire, (worker,))
                timer.daemon = True
                self._idle[worker.python] = (worker, timer)
                timer.start()
        if not keep:
            worker.close()

    def shut_down(self) -> None:
        """End all workers at once, the busy ones too: the plugin is being unloaded."""
        with self._lock:
            self._closed = True
            idle, self._idle = list(self._idle.values()), {}
            busy, self._busy = list(self._busy), set()
        for worker, timer in idle:
            timer.cancel()
            worker.kill()
        for worker in busy:
            worker.kill()

    def _expire(self, worker: WorkerProcess) -> None:
        with self._lock:
            held = self._idle.get(worker.python)
            if held is None or held[0] is not worker:
                return
            del self._idle[worker.python]
        worker.close()


def start(minutes: float) -> WarmPool:
    """Make the session's pool; called once, when the GUI starts."""
    global _current
    stop()
    _current = WarmPool(minutes)
    return _current


def stop() -> None:
    """End the session's pool and its workers."""
    global _current
    pool, _current = _current, None
    if pool is not None:
        pool.shut_down()


def current() -> WarmPool | None:
    """Return the session's pool, or None outside the GUI."""
    return _current
