"""The plugin QGIS loads: a provider everywhere; a menu and a warm worker in the GUI."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QCoreApplication
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import QAction

from . import paths, settings, warm
from .provider import KestrelProvider


class KestrelPlugin:
    """What ``classFactory`` returns."""

    MENU = "Kestrel"

    def __init__(self, iface: Any) -> None:
        """Keep ``iface``, which is None under qgis_process and only used by ``initGui``."""
        self.iface = iface
        self.provider: KestrelProvider | None = None
        self.action: QAction | None = None

    def initProcessing(self) -> None:
        """Register the provider; all that qgis_process calls."""
        provider = KestrelProvider()
        # a refused provider (a second Kestrel, from another folder) is deleted by QGIS at once
        if QgsApplication.processingRegistry().addProvider(provider):
            self.provider = provider

    def initGui(self) -> None:
        """Register the provider, add the menu, keep workers warm from now on."""
        self.initProcessing()
        warm.start(settings.warm_minutes())
        text = QCoreApplication.translate("Kestrel", "Runtime status…")
        self.action = QAction(QIcon(str(paths.ICONS / "kestrel.svg")), text, self.iface.mainWindow())
        self.action.setObjectName("kestrelRuntimeStatus")
        self.action.triggered.connect(self.show_status)
        self.iface.addPluginToMenu(self.MENU, self.action)

    def unload(self) -> None:
        """Take everything away again: menu, workers, provider."""
        if self.action is not None:
            self.iface.removePluginMenu(self.MENU, self.action)
            self.action.deleteLater()
            self.action = None
        warm.stop()
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None

    def show_status(self) -> None:
        """Open the dialog of ``kestrel:runtimestatus``."""
        # the plugin "processing" may be off, or come later; QGIS ships it
        import processing

        processing.execAlgorithmDialog("kestrel:runtimestatus")
