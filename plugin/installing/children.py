"""Run a Python module in a child: pass its lines on, notice a stall, cancel, leave nothing behind.

The child's stdin is a pipe nobody writes to. When the installer ends, however that happens, the pipe
ends too and the child takes its whole process group with it, so that no orphan goes on writing.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

POLL_S = 0.1
#: How often sizes are looked at: often enough for a progress bar, rare enough to cost nothing.
WATCH_S = 1.0
LEAVE_S = 5.0

#: ``python -m MODULE ...`` with an eye on stdin; os.read, because a buffered reader that still waits
#: when the interpreter leaves is a fatal error.
_GUARD = """
import os, runpy, signal, sys, threading
def leave():
    while os.read(0, 4096):
        pass
    if hasattr(os, "killpg"):
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
threading.Thread(target=leave, daemon=True).start()
sys.argv = sys.argv[1:]
if sys.argv[0].endswith(".py"):
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class Stalled(Exception):
    """The child did nothing for too long and was killed."""


class Cancelled(Exception):
    """The user cancelled; the child was killed."""


def run_module(
    python: Path | str,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    line: Callable[[str], None],
    cancelled: Callable[[], bool],
    stall_s: float,
    size: Callable[[], int] = lambda: 0,
    watch: Callable[[int], None] = lambda bytes_now: None,
    kept_open: Sequence[int] = (),
) -> int:
    """Run ``python -m ARGUMENTS`` (or a ``.py`` file) and return its exit code.

    ``line`` gets each line of its output. ``size`` returns bytes that grow while it works; ``watch``
    gets them about once a second. No line and no growth for ``stall_s`` is a stall, and a line in
    which pip announces another attempt is no sign of life. Handles in ``kept_open`` stay open in the
    child on POSIX, so that a lock lasts as long as the child. Raises Cancelled, Stalled, OSError.
    """
    with subprocess.Popen(
        [os.fspath(python), "-I", "-X", "utf8", "-u", "-c", _GUARD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environ),
        # a group of its own: one signal reaches the whole tree
        start_new_session=os.name != "nt",
        pass_fds=tuple(kept_open) if os.name != "nt" else (),
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    ) as child:
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        reader = threading.Thread(target=_read, args=(child, lines), daemon=True)
        reader.start()
        try:
            return _listen(child, lines, line, cancelled, stall_s, size, watch)
        finally:
            kill(child)
            reader.join(LEAVE_S)


def kill(child: subprocess.Popen[bytes]) -> None:
    """Kill ``child`` and everything it started; harmless when it has ended."""
    if os.name == "nt":
        if child.poll() is None:
            _kill_tree_windows(child.pid)
    elif child.returncode is None:
        # not reaped yet, so the number is still its own; what it started may outlive it
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    if child.poll() is None:
        child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(LEAVE_S)


def _listen(
    child: subprocess.Popen[bytes],
    lines: queue.SimpleQueue[str | None],
    line: Callable[[str], None],
    cancelled: Callable[[], bool],
    stall_s: float,
    size: Callable[[], int],
    watch: Callable[[int], None],
) -> int:
    moved = watched = time.monotonic()
    seen = 0
    while True:
        if cancelled():
            raise Cancelled
        now = time.monotonic()
        if now - watched >= min(WATCH_S, stall_s / 4):
            watched = now
            bytes_now = size()
            watch(bytes_now)
            if bytes_now != seen:
                seen, moved = bytes_now, now
        if now - moved > stall_s:
            raise Stalled
        try:
            text = lines.get(timeout=POLL_S)
        except queue.Empty:
            continue
        if text is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(LEAVE_S)
            raise Stalled  # it closed its output and stays
        if "Retrying (Retry(" not in text:
            moved = time.monotonic()
        if text:
            line(text)


def _read(child: subprocess.Popen[bytes], lines: queue.SimpleQueue[str | None]) -> None:
    assert child.stdout is not None
    with contextlib.suppress(OSError, ValueError):
        for data in child.stdout:
            lines.put(data.decode("utf-8", "replace").rstrip())
    lines.put(None)


def _kill_tree_windows(pid: int) -> None:
    taskkill = os.path.join(os.environ.get("SystemRoot", r"C:\Windows"), "System32", "taskkill.exe")
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            [taskkill, "/F", "/T", "/PID", str(pid)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LEAVE_S,
            check=False,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
