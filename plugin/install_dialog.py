"""The dialog behind Kestrel > Install runtime: kestrel:installruntime as a background task.

It stays one object as long as the plugin is loaded: closed, it hides, and the installation goes on.
"""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsApplication,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProcessingFeedback,
)
from qgis.gui import QgsCollapsibleGroupBox, QgsFileWidget
from qgis.PyQt.QtCore import pyqtSignal
from qgis.PyQt.QtGui import QFontDatabase
from qgis.PyQt.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QLabel,
    QPlainTextEdit,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from . import paths
from .installing import installed
from .installing.options import ACCELERATORS
from .texts import tr

ALGORITHM = "kestrel:installruntime"
#: pip says some hundred lines; what is older stands in the log file.
LOG_LINES = 5000


class Feedback(QgsProcessingFeedback):
    """Passes everything on as signals: a task runs in another thread than the dialog."""

    said = pyqtSignal(str)
    stage = pyqtSignal(str)
    failed = pyqtSignal(str)

    def pushInfo(self, info: str) -> None:
        """Show a line."""
        self.said.emit(info)

    def pushCommandInfo(self, info: str) -> None:
        """Show a command."""
        self.said.emit(info)

    def pushDebugInfo(self, info: str) -> None:
        """Show a line."""
        self.said.emit(info)

    def pushConsoleInfo(self, info: str) -> None:
        """Show what a child printed."""
        self.said.emit(info)

    def pushWarning(self, warning: str) -> None:
        """Show a warning."""
        self.said.emit(tr("Warning: {text}").format(text=warning))

    def setProgressText(self, text: str) -> None:
        """Say what is being done."""
        self.stage.emit(text)

    def reportError(self, error: str, fatalError: bool = False) -> None:
        """Keep the sentence that says why it failed."""
        self.failed.emit(error)


class InstallDialog(QDialog):
    """Choices, a button, progress, cancel, log."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(tr("Kestrel: install runtime"))
        self.setObjectName("kestrelInstall")
        self._feedback: Feedback | None = None
        self._running: tuple[Any, ...] = ()
        self._error = ""
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.stage = QLabel()
        self.stage.setWordWrap(True)
        self.bar = QProgressBar()
        self.log = QPlainTextEdit()
        self.log.setReadOnly(True)
        self.log.setMaximumBlockCount(LOG_LINES)
        self.log.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        self.install_button = self.buttons.addButton(tr("Install"), QDialogButtonBox.ButtonRole.ActionRole)
        self.cancel_button = self.buttons.addButton(tr("Cancel"), QDialogButtonBox.ButtonRole.ActionRole)
        self.install_button.setDefault(True)
        self.install_button.clicked.connect(self.install)
        self.cancel_button.clicked.connect(self.cancel)
        self.buttons.rejected.connect(self.hide)
        layout = QVBoxLayout(self)
        for widget in (self.state, self._choices(), self.stage, self.bar):
            layout.addWidget(widget)
        layout.addWidget(self.log, 1)
        layout.addWidget(self.buttons)
        self.resize(720, 560)
        self._show_running(False)

    def showEvent(self, event: Any) -> None:
        """Look again at what is installed whenever the dialog appears."""
        super().showEvent(event)
        if self._feedback is None:
            self._show_state()

    def install(self) -> None:
        """Start the installation; what cannot be is said at once."""
        algorithm = QgsApplication.processingRegistry().createAlgorithmById(ALGORITHM)
        context, parameters = QgsProcessingContext(), self._parameters()
        fine, sentence = algorithm.checkParameterValues(parameters, context)
        if not fine:
            self.stage.setText(sentence)
            return
        self.log.clear()
        self._error = ""
        self._feedback = feedback = Feedback()
        feedback.said.connect(self.log.appendPlainText)
        feedback.stage.connect(self._tell_stage)
        feedback.failed.connect(self._tell_error)
        feedback.progressChanged.connect(lambda percent: self.bar.setValue(round(percent)))
        task = QgsProcessingAlgRunnerTask(algorithm, parameters, context, feedback)
        task.executed.connect(self._finish)
        # the task holds pointers only
        self._running = (algorithm, context, feedback, task)
        self._show_running(True)
        QgsApplication.taskManager().addTask(task)

    def cancel(self) -> None:
        """Ask the installation to stop; it answers within a second."""
        if self._feedback is not None:
            self.stage.setText(tr("Cancelling…"))
            self.cancel_button.setEnabled(False)
            self._feedback.cancel()

    def _choices(self) -> QWidget:
        box = QWidget()
        form = QFormLayout(box)
        form.setContentsMargins(0, 0, 0, 0)
        self.accelerator = QComboBox()
        labels = {
            "auto": tr("auto - a GPU where its driver answers"),
            "cpu": tr("cpu - the smaller download"),
            "cuda": tr("cuda - NVIDIA GPUs, some gigabytes"),
        }
        for name in ACCELERATORS:
            self.accelerator.addItem(labels.get(name, name), name)
        form.addRow(tr("Accelerator"), self.accelerator)
        self.more = QgsCollapsibleGroupBox(tr("More"))
        self.more.setCollapsed(True)
        lines = QFormLayout(self.more)
        self.python = QgsFileWidget()
        self.python.lineEdit().setPlaceholderText(tr("Looked for on this machine"))
        self.wheels = QgsFileWidget()
        self.wheels.setStorageMode(QgsFileWidget.StorageMode.GetDirectory)
        self.wheels.lineEdit().setPlaceholderText(tr("Only without a network"))
        self.rebuild = QCheckBox(tr("Build anew, also where a complete runtime exists"))
        lines.addRow(tr("Python"), self.python)
        lines.addRow(tr("Folder of wheels"), self.wheels)
        lines.addRow(self.rebuild)
        form.addRow(self.more)
        self.choices = box
        return box

    def _parameters(self) -> dict[str, Any]:
        return {
            "ACCELERATOR": self.accelerator.currentData(),
            "PYTHON": self.python.filePath().strip(),
            "WHEELS": self.wheels.filePath().strip(),
            "REBUILD": self.rebuild.isChecked(),
        }

    def _tell_stage(self, text: str) -> None:
        self.stage.setText(text)
        self.log.appendPlainText(text)

    def _tell_error(self, text: str) -> None:
        self._error = text
        self.log.appendPlainText(text)

    def _finish(self, successful: bool, results: dict[str, Any]) -> None:
        self._feedback = None
        self._running = ()
        self._show_running(False)
        self._show_state()
        if successful:
            device = str(results.get("DEVICE") or "cpu")
            self.stage.setText(tr("Ready. Models run on {device}.").format(device=device))
        else:
            self.bar.setValue(0)
            self.stage.setText(self._error or tr("The installation failed; the log says why."))

    def _show_running(self, running: bool) -> None:
        self.choices.setEnabled(not running)
        self.install_button.setEnabled(not running)
        self.cancel_button.setEnabled(running)
        self.bar.setValue(0 if running else self.bar.value())

    def _show_state(self) -> None:
        # its hint is to open this dialog
        self.state.setText(installed.state(paths.home()).message)
