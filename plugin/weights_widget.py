"""WEIGHTS in a dialog: a list of the released weights in which any other name or path may be typed.

Imported by its path from the parameter's metadata, and only where there is a dialog.
"""

from __future__ import annotations

import os
from typing import Any

from processing.gui.wrappers import WidgetWrapperFactory
from qgis.core import QgsProcessingContext, QgsProcessingParameterDefinition
from qgis.gui import QgsAbstractProcessingParameterWidgetWrapper, QgsProcessingGui
from qgis.PyQt.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QToolButton, QWidget

from . import paths
from .texts import tr
from .weight_files import SUFFIX, offered


class WeightsWidget:
    """What QGIS calls with a parameter and its dialog; what it gets back is another class's object."""

    def __new__(
        cls,
        parameter: QgsProcessingParameterDefinition,
        dialog: Any,
        row: int = 0,
        col: int = 0,
        model: str = "",
    ) -> Any:
        """Return the list for a run or a batch; in the modeler QGIS's own widget, which knows its sources.

        ``model``: whose weights are offered.
        """
        kind = type(dialog).__name__
        if kind == "ModelerParametersDialog":
            plain = parameter.clone()
            plain.setMetadata({})
            widget = WidgetWrapperFactory.create_wrapper(plain, dialog, row, col)
            widget.plain = plain  # the widget holds a pointer only
            return widget
        types = QgsProcessingGui.WidgetType
        return WeightsWrapper(
            parameter, types.Batch if kind == "BatchAlgorithmDialog" else types.Standard, model
        )


class WeightsWrapper(QgsAbstractProcessingParameterWidgetWrapper):
    """An editable list and a button that looks for a file; the value is a text, None when empty."""

    def __init__(self, parameter: QgsProcessingParameterDefinition, kind: Any, model: str) -> None:
        super().__init__(parameter, kind)
        self._model = model
        self._list: QComboBox | None = None

    def createWidget(self) -> QWidget:
        """Return the widget, empty, which stands for the shipped weights."""
        widget = QWidget()
        self._list = QComboBox()
        self._list.setEditable(True)
        self._list.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        # a long name must not decide how wide the dialog is
        self._list.setMinimumContentsLength(20)
        self._list.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._list.lineEdit().setPlaceholderText(tr("The shipped weights"))
        self._list.addItems(["", *offered(self._model)])
        self._list.editTextChanged.connect(lambda: self.widgetValueHasChanged.emit(self))
        button = QToolButton()
        button.setText("…")
        button.setToolTip(tr("Choose a file"))
        button.clicked.connect(self._choose)
        layout = QHBoxLayout(widget)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._list, 1)
        layout.addWidget(button)
        return widget

    def setWidgetValue(self, value: Any, context: QgsProcessingContext) -> None:
        """Show a value as typed."""
        if self._list is not None:
            self._list.setEditText("" if value is None else str(value))

    def widgetValue(self) -> Any:
        """Return what is shown."""
        text = self._list.currentText().strip() if self._list is not None else ""
        return text or None

    def _choose(self) -> None:
        typed = self._list.currentText().strip()
        folder = os.path.dirname(typed) if os.path.isabs(typed) else os.fspath(paths.home() / "weights")
        found, _ = QFileDialog.getOpenFileName(
            self._list, tr("Weights"), folder, tr("Weights (*{suffix})").format(suffix=SUFFIX)
        )
        if found:
            self._list.setEditText(found)
