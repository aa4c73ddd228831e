"""The plugin side's errors: what a user reads when a run does not end well."""

from __future__ import annotations


class WorkerError(Exception):
    """A run failed: one sentence, what to do, where the log lies, and a stable ``code``."""

    def __init__(self, message: str, hint: str = "", log: str = "", code: str = "worker") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.log = log
        self.code = code

    def text(self) -> str:
        """Return sentence, hint and log as one text for a ``QgsProcessingException``."""
        parts = [self.message]
        if self.hint:
            parts.append(self.hint)
        if self.log:
            parts.append(f"Log: {self.log}")
        return " ".join(parts)


class WorkerCancelled(Exception):
    """The user cancelled; the worker has stopped or was killed."""
