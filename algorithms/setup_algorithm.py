"""What the algorithms of the set-up share: a group, files, outputs, runs without a runtime."""

from __future__ import annotations

from qgis.core import (
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputFolder,
    QgsProcessingOutputString,
    QgsProcessingParameterFile,
)

from ..plugin.installing.errors import InstallError
from ..plugin.installing.options import Events
from ..plugin.texts import tr
from .base import KestrelAlgorithm

FOLDER = "FOLDER"
VERSIONS = "VERSIONS"
DEVICE = "DEVICE"


class SetupAlgorithm(KestrelAlgorithm):
    """Base class of the algorithms that put something below KESTREL_HOME, or tell what is there."""

    def group(self) -> str:
        """Return the toolbox group."""
        return tr("Set-up")

    def groupId(self) -> str:
        """Return the group's constant id."""
        return "setup"

    def canExecute(self) -> tuple[bool, str]:
        """Always: these bring what the others lack, or explain it."""
        return True, ""

    def add_file(self, name: str, filters: str, *, optional: bool = False, advanced: bool = False) -> None:
        """Add an existing file; ``filters`` as Qt writes them."""
        definition = QgsProcessingParameterFile(name, self.label(name), optional=optional)
        definition.setFileFilter(filters)
        self.add(definition, advanced=advanced)

    def add_outputs(self, *, device: bool) -> None:
        """Declare folder and versions, and what torch computes on where ``device`` is told too."""
        self.addOutput(QgsProcessingOutputFolder(FOLDER, tr("Folder")))
        self.addOutput(QgsProcessingOutputString(VERSIONS, tr("Versions (JSON)")))
        if device:
            self.addOutput(QgsProcessingOutputString(DEVICE, tr("Device")))


def events_for(feedback: QgsProcessingFeedback) -> Events:
    """Return an installation's events as a run's progress and log; a text once, not at every step."""
    shown = [""]

    def progress(fraction: float, text: str) -> None:
        feedback.setProgress(100.0 * fraction)
        if text != shown[0]:
            shown[0] = text
            feedback.setProgressText(text)

    return Events(
        progress=progress,
        info=feedback.pushInfo,
        warning=feedback.pushWarning,
        line=feedback.pushConsoleInfo,
    )


def failed(error: InstallError) -> QgsProcessingException:
    """Return what a run raises for ``error``."""
    return QgsProcessingException(error.text())
