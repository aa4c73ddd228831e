"""kestrel:detectships - ships in SAR imagery by a neural network (paper 01)."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingContext
from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from ..plugin.texts import tr
from .box_texts import SHARED_TEXTS
from .boxes import BoxAlgorithm
from .networks import BATCH, LARGEST_BATCH, NETWORK_TEXTS, WEIGHTS, NetworkChecks

CONFIDENCE = "CONFIDENCE"
NMS_IOU = "NMS_IOU"
TILE = "TILE"
OVERLAP = "OVERLAP"

#: The network halves the image six times, so a tile must be a multiple of 2 to the 6.
STRIDE = 64
#: Above this one tile alone needs several gigabytes.
LARGEST_TILE = 8192


class DetectShips(NetworkChecks, BoxAlgorithm):
    """Detection by YOLOv5 with shuffle attention, context decoupled head and Wise-IoU."""

    NAME = "detectships"
    MODEL = "sar_ships"
    DEFAULT_WEIGHTS = "sar_ships"
    ICON = "ships.svg"
    TEXTS = {  # noqa: RUF012 (never changed)
        **SHARED_TEXTS,
        **NETWORK_TEXTS,
        CONFIDENCE: (
            QT_TRANSLATE_NOOP("Kestrel", "Confidence"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Smallest score (0 to 1) that is kept. Lower finds more ships and more false alarms.",
            ),
        ),
        NMS_IOU: (
            QT_TRANSLATE_NOOP("Kestrel", "Overlap of boxes (IoU)"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Of two boxes that overlap more than this (intersection over union, 0 to 1) only the better "
                "one is kept.",
            ),
        ),
        TILE: (
            QT_TRANSLATE_NOOP("Kestrel", "Tile (pixels)"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Side of the squares that are looked at one by one, a multiple of 64. Smaller needs less "
                "memory.",
            ),
        ),
        OVERLAP: (
            QT_TRANSLATE_NOOP("Kestrel", "Overlap of tiles (pixels)"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "0 = automatic: 400 m, at least 128 pixels and at most half a tile. A ship longer than the "
                "overlap is joined from its pieces.",
            ),
        ),
    }

    def displayName(self) -> str:
        """Return the name in the toolbox."""
        return tr("Detect ships in SAR imagery")

    def tags(self) -> list[str]:
        """Return what people type to find it."""
        return tr("ship,vessel,boat,sar,radar,sentinel-1,maritime,object detection,deep learning,yolo").split(
            ","
        )

    def shortDescription(self) -> str:
        """Return one line for lists."""
        return tr("Finds ships in a SAR raster of any size with a neural network, as polygons with scores.")

    def sections(self) -> list[tuple[str, list[str]]]:
        """Return the help."""
        return [
            ("", [self.shortDescription(), *_what()]),
            (tr("Output"), self.output_help()),
            (tr("Limits"), [*_limits(), self.weights_note()]),
            (tr("Licence of the weights"), _licence()),
            (
                tr("Citation"),
                [
                    "Tang, Zhang, Xiao, Cao, Yu: An Enhanced Shuffle Attention with Context Decoupling Head "
                    "with Wise IoU Loss for SAR Ship Detection. Remote Sensing (MDPI)."
                ],
            ),
        ]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Add the parameters in the order of the dialog."""
        self.add_inputs()
        self.add_weights(WEIGHTS, self.DEFAULT_WEIGHTS)
        self.add_number(CONFIDENCE, 0.25, 0.0, 1.0, decimals=3)
        self.add_number(NMS_IOU, 0.45, 0.0, 1.0, decimals=3, advanced=True)
        self.add_number(TILE, 640, STRIDE, LARGEST_TILE, advanced=True)
        self.add_number(OVERLAP, 0, 0, advanced=True)
        self.add_lengths()
        self.add_batch_and_device()
        self.add_outputs()

    def own_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Check thresholds, tiles and weights."""
        for name, low, high in (
            (CONFIDENCE, 0, 1),
            (NMS_IOU, 0, 1),
            (TILE, STRIDE, LARGEST_TILE),
            (BATCH, 0, LARGEST_BATCH),
        ):
            problem = self.out_of_range(parameters, name, low, high, context)
            if problem:
                return problem
        tile = self.parameterAsInt(parameters, TILE, context)
        overlap = self.parameterAsInt(parameters, OVERLAP, context)
        if tile % STRIDE:
            lower = tile // STRIDE * STRIDE
            return tr("TILE is {tile}; it must be a multiple of {stride}, such as {low} or {high}.").format(
                tile=tile, stride=STRIDE, low=lower, high=lower + STRIDE
            )
        if not 0 <= overlap < tile:
            return tr("OVERLAP is {overlap}; it must be less than TILE ({tile}), 0 = automatic.").format(
                overlap=overlap, tile=tile
            )
        return self.network_problem(parameters, context)

    def own_params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return the network's params; 0 = automatic is left out."""
        params: dict[str, Any] = {
            **self.network_params(parameters, context),
            "confidence": self.number(parameters, CONFIDENCE, context),
            "nms_iou": self.number(parameters, NMS_IOU, context),
            "tile": self.parameterAsInt(parameters, TILE, context),
        }
        overlap = self.parameterAsInt(parameters, OVERLAP, context)
        return {**params, "overlap": overlap} if overlap else params


def _what() -> list[str]:
    return [
        tr(
            "Input is one band of SAR amplitude, intensity or sigma0 with pixels of about 0.5 to 10 m. The "
            "raster is read in overlapping tiles; ships cut by a tile are joined, and boxes are made unique "
            "over the whole scene."
        )
    ]


def _limits() -> list[str]:
    return [
        tr(
            "Boxes are upright in the picture: for a ship that lies obliquely long_m and short_m are the "
            "box's sides, not the ship's length and beam. Harbours, platforms and rocks cause false alarms: "
            "give a land mask. Complex (SLC) data must be converted to amplitude or intensity first."
        )
    ]


def _licence() -> list[str]:
    return [
        tr(
            "The shipped weights were trained by this project on simulated scenes and on ships of two public "
            "collections: OpenSARShip, which its authors give for research (the copy used states no "
            "licence), and HRSID, whose repository carries GPL-3.0 (the copy used Apache-2.0). The model "
            "card lists every source with its licence as found."
        ),
        tr(
            "What this means for you: the plugin's licence (GPL-2.0-or-later) covers the project's own work, "
            "and nobody has settled whether terms of training data reach the weights. Research and "
            "evaluation are what the data were given for. Before commercial use, or before you pass the "
            "weights on in a product, ask the owners of the data or name weights of your own in WEIGHTS."
        ),
    ]
