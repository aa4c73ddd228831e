"""kestrel:traindehazing - DWTMA-Net learns on layers of the user's own (paper 07)."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingContext
from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from ..plugin.texts import tr
from .checks import given
from .networks import NetworkChecks
from .raster_texts import BANDS, STRETCH_MAX, STRETCH_MIN
from .training import TrainingAlgorithm
from .training_texts import BASE_WEIGHTS, PRESET, TRAINING_TEXTS

HAZY = "HAZY"
CLEAR = "CLEAR"
SIMULATE = "SIMULATE"

PRESETS = ("small", "paper")


class TrainDehazing(NetworkChecks, TrainingAlgorithm):
    """Trains or fine-tunes the network that kestrel:dehaze runs."""

    NAME = "traindehazing"
    MODEL = "dehazing"
    DEFAULT_WEIGHTS = "dehazing"
    ROLES = {HAZY: "hazy", CLEAR: "clear"}  # noqa: RUF012 (never changed)
    ICON = "train_dehazing.svg"
    TEXTS = {  # noqa: RUF012 (never changed)
        **TRAINING_TEXTS,
        HAZY: (
            QT_TRANSLATE_NOOP("Kestrel", "Hazy layer"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Optical raster with haze. Needed unless haze is simulated. Its grid is the one that crops "
                "are cut on, and its values give the stretch, as in a later run of kestrel:dehaze.",
            ),
        ),
        CLEAR: (
            QT_TRANSLATE_NOOP("Kestrel", "Clear layer"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "The same ground without haze, in the same units, of a date close by, so that the ground has "
                "not changed. On another grid or in another CRS it is resampled (bilinear) to the hazy one.",
            ),
        ),
        BANDS: (
            QT_TRANSLATE_NOOP("Kestrel", "Red, green and blue band"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Three band numbers from 1, such as 3,2,1, for both layers; also false colour, when "
                "kestrel:dehaze is then run with the same bands. Empty = automatic in each layer: by colour "
                "interpretation, by description (B4 or Red) or by wavelength, else 1, 2, 3.",
            ),
        ),
        STRETCH_MIN: (
            QT_TRANSLATE_NOOP("Kestrel", "Stretch minimum"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Pixel value that counts as black in both layers: one number, or three as a,b,c in the order "
                "of the bands. Empty = automatic: 0 for 8-bit data, else the 2nd percentile of the hazy "
                "layer in each band; the clear one is often darker, so limits that hold both are better.",
            ),
        ),
        STRETCH_MAX: (
            QT_TRANSLATE_NOOP("Kestrel", "Stretch maximum"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Pixel value that counts as white, written like the minimum. Empty = automatic: 255 for "
                "8-bit data, else the 98th percentile. Give both or neither, and the same to kestrel:dehaze.",
            ),
        ),
        SIMULATE: (
            QT_TRANSLATE_NOOP("Kestrel", "Simulate haze over the clear layer"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Lays haze over crops of the clear layer by a model of scattered light, thin to thick, new "
                "each time. Without a hazy layer all crops are made so, with one about half of them. "
                "Simulated haze is not real haze: look at results on real layers.",
            ),
        ),
        PRESET: (
            QT_TRANSLATE_NOOP("Kestrel", "Network"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "small: a third of the widths, ours, trains on a CPU. paper: as printed, 8.4 million "
                "parameters; a step takes most of a minute on two CPU cores, so it wants a GPU.",
            ),
        ),
        BASE_WEIGHTS: (
            QT_TRANSLATE_NOOP("Kestrel", "Start from weights"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Weights that are trained further (fine-tuning), of the same PRESET: dehazing for the "
                "shipped ones, another installed name, or a .safetensors file. Empty = from random numbers, "
                "which takes many more crops and epochs.",
            ),
        ),
    }

    def displayName(self) -> str:
        """Return the name in the toolbox."""
        return tr("Train dehazing on own layers")

    def group(self) -> str:
        """Return the toolbox group."""
        return tr("Restoration")

    def groupId(self) -> str:
        """Return the group's constant id."""
        return "restoration"

    def tags(self) -> list[str]:
        """Return what people type to find it."""
        return tr(
            "train,training,fine-tune,learn,haze,dehaze,dehazing,thin cloud,restoration,deep learning,"
            "neural network,DWTMA-Net"
        ).split(",")

    def shortDescription(self) -> str:
        """Return one line for lists."""
        return tr(
            "Trains or fine-tunes the network of kestrel:dehaze on a hazy and a clear layer, or on a clear "
            "one under simulated haze."
        )

    def sections(self) -> list[tuple[str, list[str]]]:
        """Return the help."""
        return [
            ("", [self.shortDescription(), *_what()]),
            (tr("Output"), _output()),
            (tr("Limits"), _limits()),
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
        self.add_raster(HAZY, optional=True)
        self.add_raster(CLEAR)
        self.add_bands(BANDS, CLEAR)
        self.add_text(STRETCH_MIN, advanced=True)
        self.add_text(STRETCH_MAX, advanced=True)
        self.add_flag(SIMULATE)
        self.add_choice(PRESET, PRESETS, PRESETS[0])
        self.add_training(96)

    def missing_layer(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Return which layer is needed and not there."""
        if not given(parameters, CLEAR):
            return tr("CLEAR: choose a raster layer or file without haze.")
        if not given(parameters, HAZY) and not self.parameterAsBool(parameters, SIMULATE, context):
            return tr(
                "HAZY: choose a hazy layer of the same ground, or set SIMULATE to lay haze over the clear "
                "one."
            )
        return None

    def own_params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return what dehazing alone asks for."""
        return {"simulate": self.parameterAsBool(parameters, SIMULATE, context)}


def _what() -> list[str]:
    return [
        tr(
            "Crops are cut from the layers on a fixed lattice, those with nodata are left out, and all "
            "are scaled by one stretch. Whole blocks of the ground, about a fifth of it, are kept for "
            "validation and never learned from. The averaged weights of the last step are kept: no epoch is "
            "chosen by its validation."
        ),
        tr(
            "The log tells the loss and the validation of each epoch and the time left. Cancel whenever you "
            "like: the same call again goes on from the checkpoint, with the same end as a training without "
            "a break. Checkpoints lie in Kestrel's folder and go when the training is complete, or after 30 "
            "days."
        ),
    ]


def _output() -> list[str]:
    return [
        tr(
            "The file is given to kestrel:dehaze as WEIGHTS, with the same BANDS and STRETCH_MIN and "
            "STRETCH_MAX. Its card names the layers (not their folders), bands, stretch, seed and "
            "parameters, and what validation found: PSNR and SSIM, the gain over the input, and over a "
            "gain and offset of each band, which plain colour correction reaches as well. Such weights are "
            "marked as preliminary and stand in no list."
        ),
    ]


def _limits() -> list[str]:
    return [
        tr(
            "The network learns every difference between the two layers, not haze alone: another season, "
            "other shadows, clouds and a shift by a pixel are learned too. Mask them as nodata, and compare "
            "with plain colour correction in the report before you trust a gain."
        ),
        tr(
            "Validation blocks lie beside blocks that were learned from, in the same scene; another scene "
            "may come out worse. What the licences of your layers say of weights learned from them is for "
            "you to know."
        ),
    ]
