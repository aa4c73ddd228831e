"""kestrel:detectbuildingchange - buildings that came or went, by a neural network, SSA-Net (paper 08)."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingContext
from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from ..plugin.texts import tr
from .change import ChangeAlgorithm
from .change_texts import MIN_AREA, OVERLAP, RESAMPLE, SHARED_TEXTS, THRESHOLD, TILE
from .checks import given
from .networks import NETWORK_TEXTS, WEIGHTS, NetworkChecks


class DetectBuildingChange(NetworkChecks, ChangeAlgorithm):
    """Change detection by a siamese network that weighs space and spectrum."""

    NAME = "detectbuildingchange"
    MODEL = "building_change"
    DEFAULT_WEIGHTS = "building_change"
    ICON = "building_change.svg"
    #: Four halvings of the image.
    STRIDE = 16
    #: The network takes variances over what four halvings leave; a pair of 1024 takes several gigabytes.
    TILES = (32, 1024)
    TEXTS = {  # noqa: RUF012 (never changed)
        **SHARED_TEXTS,
        **NETWORK_TEXTS,
        RESAMPLE: (
            QT_TRANSLATE_NOOP("Kestrel", "Resample to the pixel size of the weights"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Off: the network runs on the grid of the earlier date. On: both rasters are brought to the "
                "pixel size that the weights were trained on, the middle of the card's range, and the "
                "probabilities back to the grid of the earlier date (bilinear), on which all outputs lie. "
                "Helps most where the raster is finer. A coarser one shows no more than it did: outlines get "
                "sharper and false alarms fewer, but faint buildings are missed unless THRESHOLD is lowered. "
                "The field tile then counts tiles of the finer or coarser grid. Where sizes agree within 5 % "
                "nothing is resampled; more than 16 times apart "
                "is refused. It takes as long as rasters of that pixel size.",
            ),
        ),
        THRESHOLD: (
            SHARED_TEXTS[THRESHOLD][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Probability (0 to 1) from which a pixel counts as changed. Lower finds more changes and "
                "more false alarms. 0 = that of the weights' card, the best on images of its own.",
            ),
        ),
        MIN_AREA: (
            SHARED_TEXTS[MIN_AREA][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Polygons with less area are left out; -1 = what the "
                "weights' card says, 50 where it says nothing, 0 = all are kept. The mask is never sieved, "
                "so it can show specks that no polygon has. Without a CRS in the layer's own units.",
            ),
        ),
        TILE: (
            SHARED_TEXTS[TILE][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Side of the squares that the network looks at one by one, a multiple of 16 up to 1024. The "
                "network takes statistics of a whole tile, so another size than the card's changes the "
                "result, and a warning says so. Left out of a script or model it is the card's.",
            ),
        ),
    }

    def displayName(self) -> str:
        """Return the name in the toolbox."""
        return tr("Detect building change")

    def tags(self) -> list[str]:
        """Return what people type to find it."""
        return tr(
            "change,change detection,building,construction,demolition,urban growth,two dates,"
            "deep learning,neural network,siamese,SSA-Net"
        ).split(",")

    def shortDescription(self) -> str:
        """Return one line for lists."""
        return tr(
            "Finds where buildings appeared or went between two rasters of different dates with a neural "
            "network, as polygons."
        )

    def sections(self) -> list[tuple[str, list[str]]]:
        """Return the help."""
        return [
            ("", [self.shortDescription(), *_what()]),
            (tr("Output"), self.output_help()),
            (tr("Limits"), [*_limits(), self.weights_note()]),
            (
                tr("Citation"),
                [
                    "Fu, Zhang, Zhao, Zhang, Li, Shang, Shen: Remote Sensing Image-Based Building Change "
                    "Detection: A Case Study of the Qinling Mountains in China. MDPI."
                ],
            ),
        ]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Add the parameters in the order of the dialog."""
        self.add_dates()
        self.add_weights(WEIGHTS, self.DEFAULT_WEIGHTS, advanced=False)
        self.add_radiometry()
        self.add_flag(RESAMPLE, advanced=True)
        self.add_shapes_and_area()
        self.add_tiles()
        self.add_batch_and_device()
        self.add_outputs()

    def own_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Check batch and weights."""
        return self.network_problem(parameters, context)

    def own_params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return the network's params; a run without TILE or OVERLAP takes the card's."""
        params = self.network_params(parameters, context)
        for name in (TILE, OVERLAP):
            if not given(parameters, name):
                params[name.lower()] = 0
        if self.parameterAsBool(parameters, RESAMPLE, context):
            params["resample"] = True
        return params


def _what() -> list[str]:
    return [
        tr(
            "SSA-Net reads each date with layers of its own, compares what they saw at five scales and "
            "answers for each pixel how probable a changed building is. The rasters are read in overlapping "
            "tiles whose answers are blended, so that no polygon is cut at a tile's border."
        ),
        tr(
            "The order of dates matters: the earlier one belongs into BEFORE. The network answers otherwise "
            "when the dates are swapped, and its figures hold for the right order only."
        ),
    ]


def _limits() -> list[str]:
    return [
        tr(
            "Weights know the sensor, the pixel size and the buildings that they were trained on; elsewhere "
            "they miss buildings and see others in bare soil, cars and shadows. Compare with "
            "kestrel:detectchangevector, which needs no weights, and check against REFERENCE where changes "
            "are known."
        ),
    ]
