"""Every exception becomes one sentence: code, message, hint. Tracebacks belong into the log."""

from __future__ import annotations

import errno
import sys
from dataclasses import dataclass

from .job import JobError


@dataclass(frozen=True)
class Failure:
    """What an ``error`` message carries, beside the path of the log."""

    code: str
    message: str
    hint: str = ""


def classify(error: BaseException) -> Failure:
    """Return the failure a user reads for ``error``; known refusals keep their own words."""
    # the rooms' own refusals, by the fields they carry: importing models here would cost start-up
    message, hint = getattr(error, "message", None), getattr(error, "hint", None)
    if isinstance(message, str) and isinstance(hint, str):
        return Failure(str(getattr(error, "code", "model")), message, hint)
    if isinstance(error, JobError):
        return Failure("internal", str(error), "Plugin and worker differ in version: restart QGIS.")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Failure(
            "memory",
            f"There was not enough memory ({_text(error)}).",
            "Choose a smaller TILE or BATCH, or close other programs.",
        )
    if isinstance(error, ModuleNotFoundError):
        return Failure(
            "runtime",
            f"The Python {sys.executable} has no package {error.name}.",
            "Install it there, or choose another Python in the setting kestrel/python or KESTREL_PYTHON.",
        )
    if isinstance(error, ImportError):
        return Failure(
            "runtime",
            f"A package of the Python {sys.executable} does not load ({_text(error)}).",
            "The log names it; on Windows a missing Visual C++ redistributable is the usual cause.",
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Failure(
            "output",
            f"The disk is full ({_text(error)}).",
            "Free some space or choose another folder.",
        )
    if isinstance(error, OSError) and error.filename is not None:
        return Failure("input", f"{error.filename}: {error.strerror}.", "Check the path and its permissions.")
    return Failure(
        "internal",
        f"Kestrel stopped by an unexpected error ({type(error).__name__}: {_text(error)}).",
        "Please report it with the log.",
    )


def _text(error: BaseException) -> str:
    """Return the exception's first line, shortened: a message is one sentence."""
    lines = str(error).strip().splitlines()
    return lines[0][:300].rstrip(".") if lines else "no details"
