"""The plugin QGIS loads: a provider everywhere; a menu and a warm worker in the GUI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qgis.core import QgsApplication
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import QAction

from . import paths, settings, warm
from .provider import KestrelProvider
from .texts import tr


class KestrelPlugin:
    """What ``classFactory`` returns."""

    MENU = "Kestrel"

    def __init__(self, iface: Any) -> None:
        """Keep ``iface``, which is None under qgis_process and only used by ``initGui``."""
        self.iface = iface
        self.provider: KestrelProvider | None = None
        self.actions: list[QAction] = []
        self.dialog: Any = None

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
        for name, text, icon, action in (
            ("kestrelInstallRuntime", tr("Install runtime…"), "install_runtime.svg", self.show_install),
            ("kestrelInstallWeights", tr("Install weights…"), "install_weights.svg", self.show_weights),
            ("kestrelRuntimeStatus", tr("Runtime status…"), "status.svg", self.show_status),
        ):
            self._add(name, text, icon, action)

    def _add(self, name: str, text: str, icon: str, triggered: Callable[[], None]) -> None:
        action = QAction(QIcon(str(paths.ICONS / icon)), text, self.iface.mainWindow())
        action.setObjectName(name)
        # without the signal's argument
        action.triggered.connect(lambda: triggered())
        self.iface.addPluginToMenu(self.MENU, action)
        self.actions.append(action)

    def unload(self) -> None:
        """Take everything away again: menu, workers, provider."""
        for action in self.actions:
            self.iface.removePluginMenu(self.MENU, action)
            action.deleteLater()
        self.actions = []
        if self.dialog is not None:
            self.dialog.cancel()
            self.dialog.deleteLater()
            self.dialog = None
        warm.stop()
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None

    def show_install(self) -> None:
        """Open the dialog that installs a runtime; an installation under way is shown again."""
        # widgets that only this needs
        from .install_dialog import InstallDialog

        if self.dialog is None:
            self.dialog = InstallDialog(self.iface.mainWindow())
        self.dialog.show()
        self.dialog.raise_()

    def show_weights(self) -> None:
        """Open the dialog of ``kestrel:installweights``."""
        _open("kestrel:installweights")

    def show_status(self) -> None:
        """Open the dialog of ``kestrel:runtimestatus``."""
        _open("kestrel:runtimestatus")


def _open(algorithm: str) -> None:
    # the plugin "processing" may be off, or come later; QGIS ships it
    import processing

    processing.execAlgorithmDialog(algorithm)
