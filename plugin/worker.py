"""Run a Job in a worker process: start it, listen, pass progress on, cancel, kill, explain.

Nothing here blocks: a thread reads the child's lines into a queue, another writes, and the loop
looks at the queue ten times a second, which is also how often it asks ``feedback.isCanceled()``.
Timings and exit codes: CONTRACTS.md, section 3.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import queue
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from ..engine.job import FROM_WORKER, PROTOCOL_VERSION, Job, JobError, decode_message, encode_message
from . import paths
from . import warm as warm_pool
from .environment import child_environment
from .errors import WorkerCancelled, WorkerError
from .installing import sweep
from .runtime import find_runtime

POLL_S = 0.1
#: Cancel: this long for the worker to stop by itself; with the kill the algorithm is back in 2 s.
CANCEL_S = 1.5
HANG_S = 60.0
#: A one-shot worker that sent its result gets this long to leave.
LEAVE_S = 2.0
#: A stage's text is repeated with its counts at most this often: every text is a line in the log panel.
TEXT_S = 10.0
#: No message is longer; garbage without line ends must not fill the memory.
MAX_LINE = 64 * 1024 * 1024

_run_ids = itertools.count(1)


class WorkerProcess:
    """One child process and its two threads. Killed with everything it started."""

    def __init__(self, python: str, log: Path) -> None:
        """Start the worker with ``python``; stderr goes to ``log``. Raises WorkerError."""
        self.python = python
        self.log = log
        self.lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # an installation elsewhere leaves this runtime alone as long as the mark is held
        self._mark = sweep.mark(python, paths.runtimes_folder())
        try:
            with open(log, "ab") as stderr:
                self.process = subprocess.Popen(
                    [python, "-I", "-u", os.fspath(paths.LAUNCH)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    cwd=paths.cache_folder(),
                    env=child_environment(os.environ, home=paths.home(), log=log),
                    # a group of its own: one signal reaches the whole tree, and Ctrl-C in a
                    # terminal reaches QGIS alone
                    start_new_session=os.name != "nt",
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
        except OSError as error:
            self._unmark()
            raise WorkerError(
                f"The worker does not start with {python} ({error.strerror}).",
                "Check the setting kestrel/python or the variable KESTREL_PYTHON.",
                os.fspath(log),
                "start",
            ) from error
        for target, name in ((self._read, "kestrel-read"), (self._write, "kestrel-write")):
            threading.Thread(target=target, name=name, daemon=True).start()

    def send(self, kind: str, **fields: Any) -> None:
        """Queue one message; a worker that reads nothing blocks its own writer thread only."""
        self._outbox.put(encode_message(kind, **fields).encode())

    def alive(self) -> bool:
        """Return whether the process still runs."""
        return self.process.poll() is None

    def kill(self) -> None:
        """Kill the worker and everything it started, at once."""
        if self.alive():
            if os.name == "nt":
                _kill_tree_windows(self.process.pid)
            else:
                # the group still exists: its leader is not reaped yet
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
        self._outbox.put(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LEAVE_S)
        self._unmark()

    def close(self) -> None:
        """Ask the worker to leave, wait a moment, kill what is left."""
        self.send("quit")
        self._outbox.put(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LEAVE_S)
        self.kill()

    def _unmark(self) -> None:
        if self._mark:
            self._mark.release()

    def _read(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        with contextlib.suppress(OSError, ValueError), stream:
            while line := stream.readline(MAX_LINE):
                self.lines.put(line)
        self.lines.put(None)

    def _write(self) -> None:
        stream = self.process.stdin
        assert stream is not None
        with contextlib.suppress(OSError, ValueError), stream:
            while (data := self._outbox.get()) is not None:
                stream.write(data)
                stream.flush()


def run_job(
    job: Job, feedback: Any, *, warm: warm_pool.WarmPool | None = None, hang_s: float = HANG_S
) -> dict[str, Any]:
    """Run ``job`` in a worker and return its ``result`` message, with ``log`` and ``runtime`` added.

    ``feedback`` is a QgsProcessingFeedback. ``warm`` is the pool to take a worker from, by default
    the GUI's, if there is one; without a pool, or while its worker is busy, the Job gets a worker
    of its own. Raises WorkerError or WorkerCancelled; nothing of the worker is left then.
    """
    if feedback.isCanceled():
        raise WorkerCancelled
    runtime = find_runtime(feedback.isCanceled)
    try:
        log = paths.new_log(job.model or job.kind)
    except OSError as error:
        raise WorkerError(
            f"Kestrel cannot write below {paths.home()} ({error.strerror}).",
            "Make the folder writable or name another one in the variable KESTREL_HOME.",
            code="home",
        ) from error
    pool = warm or warm_pool.current()
    worker = pool.take(runtime.python) if pool else None
    result = None
    if worker is not None:
        result = _converse(worker, pool, job, feedback, log, hang_s, kept=True)
    if result is None:
        worker = WorkerProcess(runtime.python, log)
        if pool:
            pool.adopt(worker)
        result = _converse(worker, pool, job, feedback, log, hang_s)
    return {**result, "log": os.fspath(log), "runtime": dataclasses.asdict(runtime)}


def _converse(
    worker: WorkerProcess,
    pool: warm_pool.WarmPool | None,
    job: Job,
    feedback: Any,
    log: Path,
    hang_s: float,
    kept: bool = False,
) -> dict[str, Any] | None:
    """Return the worker's result; None where one that was ``kept`` had died before this run.

    A process that was just killed can look alive for a moment; it has said nothing about the run then.
    """
    conversation = _Conversation(worker, feedback, log, hang_s)
    try:
        return conversation.run(job)
    except WorkerError:
        if kept and not conversation.heard and not worker.alive():
            return None
        raise
    finally:
        if pool and conversation.answered:
            pool.give_back(worker)
        elif conversation.answered:
            worker.close()
        else:
            worker.kill()
            if pool:
                pool.forget(worker)


class _Conversation:
    """One Job's exchange with a worker."""

    def __init__(self, worker: WorkerProcess, feedback: Any, log: Path, hang_s: float) -> None:
        self.worker = worker
        self.feedback = feedback
        self.log = os.fspath(log)
        self.hang_s = hang_s
        self.id = f"{os.getpid()}-{next(_run_ids)}"
        self.stage = ""
        self.texts_at = 0.0
        self.warned: set[str] = set()
        #: The worker gave its answer, a refusal or a cancel included, and is ready for another run.
        self.answered = False
        #: The worker said something about this run.
        self.heard = False

    def run(self, job: Job) -> dict[str, Any]:
        """Send the Job and listen until its result; raises WorkerError, WorkerCancelled."""
        self.worker.send("run", job=dataclasses.asdict(job), id=self.id, log=self.log)
        heard = time.monotonic()
        kill_at = None
        while True:
            now = time.monotonic()
            if kill_at is None and self.feedback.isCanceled():
                self.worker.send("cancel")
                kill_at = now + CANCEL_S
            if kill_at is not None and now >= kill_at:
                self.worker.kill()
                raise WorkerCancelled
            if now - heard > self.hang_s:
                self.worker.kill()
                raise self._error(
                    f"The worker has said nothing for {self.hang_s:.0f} s{self._where()} and was stopped.",
                    "The log holds its last words.",
                    "hung",
                )
            try:
                line = self.worker.lines.get(timeout=POLL_S)
            except queue.Empty:
                # its pipe can outlive the worker, in a process that it forked
                if not self.worker.alive() and now - heard > LEAVE_S:
                    line = None
                else:
                    continue
            if line is None:
                if kill_at is not None:
                    raise WorkerCancelled
                raise self._ended()
            heard = time.monotonic()
            result = self._hear(self._decode(line), cancelled=kill_at is not None)
            if result is not None:
                return result

    def _decode(self, line: bytes) -> dict[str, Any]:
        try:
            return decode_message(line.decode("utf-8", "replace"), FROM_WORKER)
        except JobError as error:
            self.worker.kill()
            raise self._error(
                f"The worker sent something that is not a message ({str(error)[:300]})",
                "A library may write past Kestrel's guard; please report it with the log.",
                "garbage",
            ) from None

    def _hear(self, message: dict[str, Any], *, cancelled: bool) -> dict[str, Any] | None:
        """Act on one message; return it when it is the result."""
        kind = message["type"]
        if kind == "hello":
            if message.get("version") != PROTOCOL_VERSION:
                self.worker.kill()
                raise self._error(
                    f"The worker speaks protocol {message.get('version')!r}, QGIS's side {PROTOCOL_VERSION}.",
                    "The plugin was updated while QGIS runs: restart QGIS.",
                    "protocol",
                )
            return None
        if kind == "alive" or message.get("job") not in (None, self.id):
            # the pulse, or the late word of an earlier run
            return None
        self.heard = True
        if kind == "progress":
            self._progress(message)
        elif kind == "log":
            self._say(str(message.get("level")), str(message.get("text")))
        elif cancelled:
            self.answered = message.get("code") != "protocol"
            raise WorkerCancelled
        elif kind == "error":
            self.answered = message.get("code") != "protocol"
            raise WorkerError(
                str(message.get("message")),
                str(message.get("hint") or ""),
                str(message.get("log") or self.log),
                str(message.get("code")),
            )
        elif kind == "result":
            self.answered = True
            for text in message.get("warnings", []):
                self._say("warning", str(text))
            return message
        return None

    def _progress(self, message: dict[str, Any]) -> None:
        self.feedback.setProgress(100.0 * float(message.get("fraction") or 0.0))
        stage, now = str(message.get("stage") or ""), time.monotonic()
        if not stage or (stage == self.stage and now - self.texts_at < TEXT_S):
            return
        self.stage, self.texts_at = stage, now
        text = stage
        if message.get("total"):
            text += f": {message.get('done')} of {message['total']}"
        left = message.get("seconds_left")
        if left:
            text += f", about {_duration(float(left))} left"
        self.feedback.setProgressText(text)

    def _say(self, level: str, text: str) -> None:
        if level == "warning":
            if text not in self.warned:
                self.warned.add(text)
                self.feedback.pushWarning(text)
        elif level == "error":
            self.feedback.reportError(text)
        else:
            self.feedback.pushInfo(text)

    def _ended(self) -> WorkerError:
        """Explain a worker that left without an answer."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.worker.process.wait(LEAVE_S)
        code = self.worker.process.returncode
        hint = "The log holds its last words."
        if code is not None and code < 0:
            name = _signal_name(-code)
            if name == "SIGKILL":
                hint = "Usually the system does so when memory runs out: choose a smaller TILE or BATCH."
            return self._error(f"The worker was ended by {name}{self._where()}.", hint, "crash")
        if code is not None and code >= 0xC0000000:
            return self._error(f"The worker crashed (0x{code:08X}){self._where()}.", hint, "crash")
        last = _last_line(self.log)
        if last:
            hint = f"Its last words: {last}"
        return self._error(
            f"The worker left with exit code {code} and without an answer{self._where()}.", hint, "crash"
        )

    def _where(self) -> str:
        return f" (stage: {self.stage})" if self.stage else ""

    def _error(self, message: str, hint: str, code: str) -> WorkerError:
        return WorkerError(message, hint, self.log, code)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as log:
            lines = [line.strip() for line in log.readlines()[-50:] if line.strip()]
    except OSError:
        return ""
    return lines[-1][:300] if lines else ""


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _kill_tree_windows(pid: int) -> None:
    taskkill = os.path.join(os.environ.get("SystemRoot", r"C:\Windows"), "System32", "taskkill.exe")
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            [taskkill, "/F", "/T", "/PID", str(pid)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=1.0,
            check=False,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
