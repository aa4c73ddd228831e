"""What installing says when it does not end well."""

from __future__ import annotations


class InstallError(Exception):
    """An installation stopped: one sentence, what to do, and a stable ``code``; nothing half is left."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def text(self) -> str:
        """Return sentence and hint as one text for a ``QgsProcessingException``."""
        return f"{self.message} {self.hint}".strip()
