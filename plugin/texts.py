"""Texts for people: one translation context for dialogs, help and messages."""

from __future__ import annotations

from qgis.PyQt.QtCore import QCoreApplication

CONTEXT = "Kestrel"


def tr(text: str) -> str:
    """Return ``text`` in the user's language; tables mark theirs by ``QT_TRANSLATE_NOOP``."""
    return QCoreApplication.translate(CONTEXT, text)
