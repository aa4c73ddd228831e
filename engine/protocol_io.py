"""The worker's streams: the protocol gets descriptors of its own, everything else goes to stderr.

Valid Python 3.9, standard library only (``launch.py`` runs it before it knows the version).
"""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


def take_streams() -> tuple[TextIO, TextIO]:
    """Return (stdin, stdout) for the protocol, UTF-8, and hide them from everybody else.

    Works on descriptors, so that what a C library prints lands in the log as well: descriptor 1
    becomes a second stderr, descriptor 0 reads nothing. The copies are not inherited by children.
    """
    lines = io.TextIOWrapper(os.fdopen(os.dup(0), "rb"), encoding="utf-8", errors="replace", newline="\n")
    protocol = io.TextIOWrapper(os.fdopen(os.dup(1), "wb"), encoding="utf-8", newline="\n")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    # isolated mode ignores PYTHONIOENCODING, and a locale may be anything
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    return lines, protocol


def redirect_output(log: str) -> None:
    """Send stdout and stderr, by descriptor, to the end of file ``log``; raises OSError."""
    sys.stdout.flush()
    sys.stderr.flush()
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
