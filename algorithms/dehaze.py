"""kestrel:dehaze - haze removal by a neural network, DWTMA-Net (paper 07)."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingContext
from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from ..plugin.texts import tr
from .checks import given
from .networks import NETWORK_TEXTS, WEIGHTS, NetworkChecks
from .raster_texts import BANDS, OVERLAP, SHARED_TEXTS, STRETCH_MAX, STRETCH_MIN, TILE
from .rasters import RasterAlgorithm

#: The tile on the card of the shipped weights, which the dialog shows.
CARD_TILE = 512
#: Neighbouring tiles are blended over all of it (specification, section 10).
OVERLAP_PX = 64


class Dehaze(NetworkChecks, RasterAlgorithm):
    """Restoration by wavelets and attention over pixels, channels and frequencies."""

    NAME = "dehaze"
    MODEL = "dehazing"
    DEFAULT_WEIGHTS = "dehazing"
    ICON = "dehaze_network.svg"
    #: Two halvings, and a wavelet transform inside the deepest blocks.
    STRIDE = 8
    #: A tile of 1024 pixels takes the printed network several gigabytes.
    TILES = (64, 1024)
    LEAST_OVERLAP = 32
    #: Below, the network sees less of a scene than the smallest crops that it was trained on.
    LEAST_SIDE = 64
    TEXTS = {  # noqa: RUF012 (never changed)
        **SHARED_TEXTS,
        **NETWORK_TEXTS,
        BANDS: (
            SHARED_TEXTS[BANDS][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Three band numbers from 1 in the order red, green, blue, such as 3,2,1. Empty = automatic: "
                "by colour interpretation, by description (B4 or Red) or by wavelength, else 1, 2, 3. For "
                "false colour name the bands in the order of the weights' card: shortwave infrared, near "
                "infrared, green.",
            ),
        ),
        WEIGHTS: (
            NETWORK_TEXTS[WEIGHTS][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Empty for the shipped ones. The list offers the released ones, which beat the dark channel "
                "and a fitted colour correction on validation; any other installed name, or a .safetensors "
                "file of your own, may be typed.",
            ),
        ),
        STRETCH_MIN: (
            SHARED_TEXTS[STRETCH_MIN][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Pixel value that counts as black: one number for all three bands, or three as a,b,c in the "
                "order of the bands. Empty = automatic: 0 for 8-bit data, else the 2nd percentile of the "
                "whole raster in each band. Values outside the stretch are kept, with the change of the "
                "nearest end.",
            ),
        ),
        STRETCH_MAX: (
            SHARED_TEXTS[STRETCH_MAX][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Pixel value that counts as white, written like the minimum. Empty = automatic: 255 for "
                "8-bit data, else the 98th percentile. Give both or neither.",
            ),
        ),
        TILE: (
            SHARED_TEXTS[TILE][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Side of the squares that the network looks at one by one, a multiple of 8 up to 1024. 512 "
                "is the tile on the card of the shipped weights. The network sees the frequencies of a whole "
                "tile, so another size than the card's changes the result, and a warning says so. Left out "
                "of a script or model it is the card's.",
            ),
        ),
        OVERLAP: (
            SHARED_TEXTS[OVERLAP][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "At least 32 and less than the tile; neighbouring tiles are blended over all of it. "
                "0 = automatic, which is 64, or half of a tile smaller than 128.",
            ),
        ),
    }

    def displayName(self) -> str:
        """Return the name in the toolbox."""
        return tr("Dehaze by a neural network")

    def tags(self) -> list[str]:
        """Return what people type to find it."""
        return tr(
            "haze,dehaze,dehazing,fog,smoke,thin cloud,atmosphere,restoration,deep learning,neural network,"
            "wavelet,attention,DWTMA-Net"
        ).split(",")

    def shortDescription(self) -> str:
        """Return one line for lists."""
        return tr("Removes haze and thin cloud from an optical raster of any size with a neural network.")

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
                    "Guan, He, Wang, Zhou, Liu, Xiong: DWTMA-Net: Discrete Wavelet Transform and "
                    "Multi-Dimensional Attention Network for Remote Sensing Image Dehazing. MDPI."
                ],
            ),
        ]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Add the parameters in the order of the dialog."""
        self.add_inputs()
        self.add_weights(WEIGHTS, self.DEFAULT_WEIGHTS, advanced=False)
        self.add_stretch_and_area()
        self.add_tiles(CARD_TILE, OVERLAP_PX)
        self.add_strength()
        self.add_batch_and_device()
        self.add_outputs()

    def own_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Check batch and weights."""
        return self.network_problem(parameters, context)

    def own_params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return the network's params; without a TILE of its own a run takes the card's."""
        params = self.network_params(parameters, context)
        return params if given(parameters, TILE) else {**params, "tile": 0}


def _what() -> list[str]:
    return [
        tr(
            "DWTMA-Net splits the picture into wavelet bands, corrects the coarse one with a small learned "
            "model of scattered light and sharpens the fine ones, and weighs pixels, channels and "
            "frequencies by attention. The raster is read in overlapping tiles that are blended into "
            "each other."
        ),
        tr(
            "Input is a raster with three visible bands, or with the false-colour bands that the weights "
            "were made for, as digital numbers, radiance or reflectance; further bands are copied or "
            "dropped. A side must have at least 64 pixels."
        ),
    ]


def _limits() -> list[str]:
    return [
        tr(
            "It is a restoration for the eye, for digitising and for mosaics. Dense haze and cloud - bright, "
            "even areas - hide the ground and are not recoverable; what stands there afterwards is invented."
        ),
        tr(
            "Weights know the haze, the sensor and the bands that they were trained on; colours of another "
            "sensor can shift. Compare with kestrel:dehazedarkchannel, which needs no weights. Where a clear "
            "raster of the same ground exists, give it as REFERENCE: the report then tells whether the "
            "result is nearer to it."
        ),
        tr(
            "Part of the scene outside the stretch is seen as its nearest end. Where a scene has more than "
            "one tile, the means that the network takes over a picture come from blocks of the whole scene, "
            "so that neighbouring tiles get one tone; its frequencies are a tile's own, so under thick haze "
            "brightness can still drift by 2 to 3 counts of 255 between tiles."
        ),
    ]


def _licence() -> list[str]:
    return [
        tr(
            "Shipped weights are trained by this project on 78 real pairs of hazy and clear Landsat 8 scenes "
            "(Landsat imagery is in the public domain; the copy used states no licence of its own) and on "
            "simulated haze over clear pictures of RSSCN7 (taken from Google Earth; no licence stated). The "
            "model card lists every source with its licence as found."
        ),
        tr(
            "What this means for you: the plugin's licence (GPL-2.0-or-later) covers the project's own work, "
            "and nobody has settled whether terms of training data reach the weights. Before commercial use, "
            "or before you pass the weights on in a product, ask the owners of the data or name weights of "
            "your own in WEIGHTS."
        ),
    ]
