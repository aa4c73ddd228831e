"""Ids, labels and help of the parameters that trainings share."""

from __future__ import annotations

from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from .base import REPORT
from .networks import BATCH, DEVICE, NETWORK_TEXTS

PRESET = "PRESET"
EPOCHS = "EPOCHS"
CROP = "CROP"
LEARNING_RATE = "LEARNING_RATE"
BASE_WEIGHTS = "BASE_WEIGHTS"
SEED = "SEED"
OUTPUT_WEIGHTS = "OUTPUT_WEIGHTS"

TRAINING_TEXTS: dict[str, tuple[str, str]] = {
    EPOCHS: (
        QT_TRANSLATE_NOOP("Kestrel", "Epochs"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "How often every crop is learned from, on average. The learning rate falls to 0 over all of "
            "them, so a training of 40 epochs is not one of 20 gone on with: start it from BASE_WEIGHTS "
            "instead.",
        ),
    ),
    BATCH: (
        QT_TRANSLATE_NOOP("Kestrel", "Crops at a time"),
        QT_TRANSLATE_NOOP("Kestrel", "Crops in one step. More need more memory."),
    ),
    CROP: (
        QT_TRANSLATE_NOOP("Kestrel", "Crop (pixels)"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Side of the squares that are cut from the layers, a multiple of 8. At least 8 of them must be "
            "free of nodata.",
        ),
    ),
    LEARNING_RATE: (
        QT_TRANSLATE_NOOP("Kestrel", "Learning rate"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "The largest one. Half of it or less for fine-tuning; lower it where a training diverges.",
        ),
    ),
    SEED: (
        QT_TRANSLATE_NOOP("Kestrel", "Seed"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "A whole number that all random choices follow from: the same call with the same seed on the "
            "same computer gives the same weights.",
        ),
    ),
    DEVICE: NETWORK_TEXTS[DEVICE],
    OUTPUT_WEIGHTS: (
        QT_TRANSLATE_NOOP("Kestrel", "Trained weights"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "A .safetensors file with its model card inside, written when the training is complete; beside "
            "it lies its history (.kestrel.json). A training that is to be gone on with after a cancel needs "
            "a file of your own here: a temporary one has another name each time.",
        ),
    ),
    REPORT: (
        QT_TRANSLATE_NOOP("Kestrel", "Report"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "HTML page with the curves of loss and validation, pictures of validation crops, all figures, "
            "parameters and the time taken; made when a file is given.",
        ),
    ),
}
