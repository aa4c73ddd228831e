"""What the engine may raise towards the user: one sentence, and a hint of what to do."""

from __future__ import annotations

#: Classes of errors, as the worker's ``error`` message carries them.
CODES = ("input", "parameter", "model", "memory", "device", "output", "runtime", "internal")


class EngineError(Exception):
    """A refusal in the user's words: what happened, where, what to do.

    ``code`` is one of CODES; ``message`` one sentence; ``hint`` optional advice.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        """Keep the three parts apart, so that the worker can send them as fields."""
        assert code in CODES, code
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        """Travel between processes whole: by default only the message would."""
        return type(self), (self.code, self.message, self.hint)


class ReadError(EngineError):
    """A window of the raster that cannot be read; the run adds how far it had come."""


class Cancelled(Exception):
    """The run was cancelled; nothing is left behind."""
