"""The Processing provider ``kestrel``: an explicit list of algorithms, no discovery."""

from __future__ import annotations

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from . import paths


class KestrelProvider(QgsProcessingProvider):
    """Registers without torch, rasterio or a worker: algorithms import what QGIS ships, no more."""

    def id(self) -> str:
        """Return the provider's id, the part before the colon of every algorithm."""
        return "kestrel"

    def name(self) -> str:
        """Return the name in the toolbox."""
        return "Kestrel"

    def longName(self) -> str:
        """Return the name with the plugin's version."""
        return f"Kestrel {paths.kestrel_version()}"

    def icon(self) -> QIcon:
        """Return the toolbox icon."""
        return QIcon(self.svgIconPath())

    def svgIconPath(self) -> str:
        """Return the icon's path."""
        return str(paths.ICONS / "kestrel.svg")

    def loadAlgorithms(self) -> None:
        """Add every algorithm; QGIS calls this whenever it refreshes the provider."""
        from ..algorithms.dehaze import Dehaze
        from ..algorithms.dehaze_dark_channel import DehazeDarkChannel
        from ..algorithms.detect_building_change import DetectBuildingChange
        from ..algorithms.detect_change_vector import DetectChangeVector
        from ..algorithms.detect_ships import DetectShips
        from ..algorithms.detect_ships_cfar import DetectShipsCfar
        from ..algorithms.install_runtime import InstallRuntime
        from ..algorithms.install_weights import InstallWeights
        from ..algorithms.runtime_status import RuntimeStatus
        from ..algorithms.train_building_change import TrainBuildingChange
        from ..algorithms.train_dehazing import TrainDehazing

        for algorithm in (
            DetectShips,
            DetectShipsCfar,
            Dehaze,
            DehazeDarkChannel,
            DetectBuildingChange,
            DetectChangeVector,
            TrainDehazing,
            TrainBuildingChange,
            InstallRuntime,
            InstallWeights,
            RuntimeStatus,
        ):
            self.addAlgorithm(algorithm())
