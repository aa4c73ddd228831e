"""The worker: reads messages, runs one Job at a time, answers (CONTRACTS.md, section 3).

Three threads. The main thread runs Jobs, because torch and GDAL like it there. A reader thread
takes messages as they come, so that a cancel arrives mid-run. The alive thread sends ``alive``
and, once stdin is closed (QGIS is gone), cancels and leaves the process, whatever the main thread
is doing.

``run{job, id, log}``: the Job, the id that every message of this run carries as ``job``, and the log
file that takes what is printed meanwhile (a warm worker gets another with each run).

Start-up imports the standard library only: ``hello`` takes versions from package metadata and
devices from traces on disk; torch is imported by the first Job that needs it.
"""

from __future__ import annotations

import faulthandler
import os
import platform
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any, TextIO

from .failures import Failure, classify
from .heap import keep_large
from .job import (
    EXIT_CANCELLED,
    EXIT_ERROR,
    EXIT_PROTOCOL,
    EXIT_RESULT,
    PROTOCOL_VERSION,
    TO_WORKER,
    Job,
    JobError,
    decode_message,
    encode_message,
)
from .protocol_io import redirect_output
from .versions import kestrel_version, likely_devices, package_versions

ALIVE_S = 5.0
#: After stdin's end the main thread gets this long to stop between two tiles.
LEAVE_S = 3.0
#: Progress reaches QGIS at most this often; a tile of a tiny network takes a millisecond.
PROGRESS_S = 0.1


class Channel:
    """Writes messages, from any thread, each with the id of the run it belongs to."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self.job: Any = None
        self.broken = threading.Event()

    def send(self, kind: str, **fields: Any) -> None:
        """Write one message; when nobody reads any more, only remember that."""
        if self.job is not None:
            fields.setdefault("job", self.job)
        line = encode_message(kind, **_plain(fields))
        with self._lock:
            try:
                self._stream.write(line)
                self._stream.flush()
            except (OSError, ValueError):
                self.broken.set()


class RunEvents:
    """What the engine tells while it runs: the ``Events`` protocol of ``engine/run.py``."""

    def __init__(self, channel: Channel, cancel: threading.Event) -> None:
        self.cancel = cancel
        self._channel = channel
        self._last = 0.0
        self._stage = ""

    def progress(
        self,
        fraction: float,
        done: int = 0,
        total: int = 0,
        stage: str = "",
        seconds_left: float | None = None,
    ) -> None:
        """Send progress; ``fraction`` in 0..1. Too frequent calls within one stage are dropped."""
        now = time.monotonic()
        if now - self._last < PROGRESS_S and stage == self._stage and fraction < 1.0:
            return
        self._last, self._stage = now, stage
        self._channel.send(
            "progress",
            fraction=min(max(float(fraction), 0.0), 1.0),
            done=done,
            total=total,
            stage=stage,
            seconds_left=seconds_left,
        )

    def log(self, level: str, text: str) -> None:
        """Send one line for QGIS's log panel; ``level`` is ``info`` or ``warning``."""
        self._channel.send("log", level=level, text=text)


class Worker:
    """One process's state: the streams, the run in progress, the exit code so far."""

    def __init__(self, lines: TextIO, protocol: TextIO) -> None:
        self._lines = lines
        self._channel = Channel(protocol)
        self._inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._cancel = threading.Event()
        self._closed = threading.Event()
        self._busy = threading.Event()
        self._log = os.environ.get("KESTREL_LOG", "")
        self._runs = 0
        self._code = EXIT_RESULT

    def serve(self) -> int:
        """Say hello, run Jobs until ``quit`` or stdin's end, return the exit code."""
        packages = package_versions()
        self._channel.send(
            "hello",
            version=PROTOCOL_VERSION,
            kestrel=kestrel_version(),
            python=platform.python_version(),
            packages=packages,
            devices=likely_devices(packages),
            pid=os.getpid(),
        )
        threading.Thread(target=self._read, name="kestrel-reader", daemon=True).start()
        threading.Thread(target=self._live, name="kestrel-alive", daemon=True).start()
        while True:
            message = self._inbox.get()
            if message is None or self._code == EXIT_PROTOCOL:
                return self._code
            self._run(message)

    def _read(self) -> None:
        """Reader thread: every message but ``run`` acts at once."""
        for line in self._messages():
            try:
                message = decode_message(line, TO_WORKER)
            except JobError as error:
                self._refuse(str(error))
                break
            if message["type"] == "quit":
                # after the run in progress; reading goes on, for a cancel or stdin's end
                self._inbox.put(None)
            elif message["type"] == "cancel":
                # a cancel that arrives after the result must not hit the next run
                if self._busy.is_set():
                    self._cancel.set()
            elif self._busy.is_set():
                self._refuse("A second Job arrived while one is running.")
                break
            else:
                self._cancel.clear()
                self._busy.set()
                self._inbox.put(message)
        self._closed.set()
        self._inbox.put(None)

    def _messages(self) -> Iterator[str]:
        while line := self._lines.readline():
            yield line

    def _refuse(self, text: str) -> None:
        """Answer a broken protocol: nothing after it can be trusted, so the worker leaves."""
        self._code = EXIT_PROTOCOL
        self._channel.send(
            "error", code="protocol", message=text, hint="Restart QGIS, then report it.", log=self._log
        )

    def _live(self) -> None:
        """Alive thread: the pulse, and the end of a worker nobody listens to."""
        while not self._closed.wait(ALIVE_S):
            self._channel.send("alive")
            if self._channel.broken.is_set():
                break
        self._cancel.set()
        time.sleep(LEAVE_S)
        code = self._code if self._code == EXIT_PROTOCOL else EXIT_CANCELLED
        os._exit(code)

    def _run(self, message: dict[str, Any]) -> None:
        """Run one Job and send exactly one ``result`` or ``error``."""
        self._runs += 1
        self._channel.job = message.get("id", self._runs)
        self._open_log(message.get("log"))
        try:
            outputs, figures, warnings = self._answer(Job.from_dict(message.get("job")))
        except BaseException as error:
            answer = self._failed(error)
        else:
            self._code = EXIT_RESULT if self._code != EXIT_PROTOCOL else self._code
            answer = ("result", {"outputs": outputs, "figures": figures, "warnings": warnings})
        # free for the next run before the answer is out: it may come back faster than we get here
        self._busy.clear()
        self._channel.send(answer[0], **answer[1])
        self._channel.job = None

    def _answer(self, job: Job) -> tuple[dict[str, str], dict[str, Any], list[str]]:
        """Return (outputs, figures, warnings) of a Job; raises what the engine raises."""
        events = RunEvents(self._channel, self._cancel)
        # before the imports below: they take seconds on a slow disk, and the user should see a sign
        events.progress(0.0, stage="starting")
        if job.kind == "status":
            from .status import status

            figures, warnings = status(job.scratch)
            return {}, {**figures, "log": self._log}, warnings
        from .run import run_job

        outcome = run_job(job, events)
        return dict(outcome.outputs), dict(outcome.figures), list(outcome.warnings)

    def _failed(self, error: BaseException) -> tuple[str, dict[str, Any]]:
        """Return the ``error`` message for what a run raised; the traceback goes to the log."""
        if self._cancel.is_set():
            # a library that was interrupted may raise anything; what the user did explains it
            failure, code = Failure("cancelled", "The run was cancelled."), EXIT_CANCELLED
        else:
            failure, code = classify(error), EXIT_ERROR
        traceback.print_exception(error, file=sys.stderr)
        sys.stderr.flush()
        if self._code != EXIT_PROTOCOL:
            self._code = code
        return (
            "error",
            {"code": failure.code, "message": failure.message, "hint": failure.hint, "log": self._log},
        )

    def _open_log(self, log: Any) -> None:
        """Send what libraries print to the run's own log; a warm worker gets one with each run."""
        if isinstance(log, str) and log and log != self._log:
            try:
                redirect_output(log)
            except OSError as error:
                self._channel.send("log", level="warning", text=f"The log {log} cannot be written: {error}.")
                return
            self._log = log


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: numpy scalars as Python's, no NaN, paths as text."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return str(value)


def serve(lines: TextIO, protocol: TextIO) -> int:
    """Run the worker on a pair of streams until it is told to leave; returns its exit code."""
    faulthandler.enable()
    keep_large()
    return Worker(lines, protocol).serve()
