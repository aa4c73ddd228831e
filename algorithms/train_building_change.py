"""kestrel:trainbuildingchange - SSA-Net learns on two dates and changes of the user's own (paper 08)."""

from __future__ import annotations

import os
import re
from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingFeedback
from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from ..plugin.texts import tr
from .change_texts import AFTER, BANDS_AFTER, BANDS_BEFORE, BEFORE, SHARED_TEXTS, STRETCH_MAX, STRETCH_MIN
from .checks import given
from .networks import NetworkChecks
from .training import TrainingAlgorithm
from .training_texts import BASE_WEIGHTS, CROP, TRAINING_TEXTS

CHANGES = "CHANGES"
FOLDER = "FOLDER"

#: Role for the worker -> sub-folder of FOLDER.
TILES = {"before": "A", "after": "B", "changes": "label"}


class TrainBuildingChange(NetworkChecks, TrainingAlgorithm):
    """Trains or fine-tunes the network that kestrel:detectbuildingchange runs."""

    NAME = "trainbuildingchange"
    MODEL = "building_change"
    DEFAULT_WEIGHTS = "building_change"
    ROLES = {BEFORE: "before", AFTER: "after"}  # noqa: RUF012 (never changed)
    BANDS_OF = {BEFORE: BANDS_BEFORE, AFTER: BANDS_AFTER}  # noqa: RUF012 (never changed)
    POLYGONS = (CHANGES,)
    #: Four halvings of the image.
    STRIDE = 16
    ICON = "train_building_change.svg"
    TEXTS = {  # noqa: RUF012 (never changed)
        **TRAINING_TEXTS,
        BEFORE: (
            SHARED_TEXTS[BEFORE][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "A raster with at least three visible bands. Crops are cut on its grid, where both dates "
                "show the ground. Needed unless FOLDER is given, with AFTER and CHANGES.",
            ),
        ),
        AFTER: SHARED_TEXTS[AFTER],
        BANDS_BEFORE: SHARED_TEXTS[BANDS_BEFORE],
        BANDS_AFTER: SHARED_TEXTS[BANDS_AFTER],
        STRETCH_MIN: (
            SHARED_TEXTS[STRETCH_MIN][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Pixel value that counts as black at both dates: one number for all three bands, or three "
                "as a,b,c in the order of the bands. Empty = automatic, from both dates together, of FOLDER "
                "from all its images: 0 for 8-bit data, else the 2nd percentile in each band.",
            ),
        ),
        STRETCH_MAX: (
            SHARED_TEXTS[STRETCH_MAX][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Pixel value that counts as white at both dates, written like the minimum. Empty = "
                "automatic: 255 for 8-bit data, else the 98th percentile. Give both or neither, and the "
                "same to kestrel:detectbuildingchange.",
            ),
        ),
        CHANGES: (
            QT_TRANSLATE_NOOP("Kestrel", "Outlined changes"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Polygons of all buildings that came or went, in any CRS. They must be complete over the "
                "ground that both dates show: what lies outside of them is learned as unchanged. Ground "
                "that was not looked through belongs cut off, or masked as nodata in one date.",
            ),
        ),
        FOLDER: (
            QT_TRANSLATE_NOOP("Kestrel", "Tile folder"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Instead of BEFORE, AFTER and CHANGES: a folder with A/ (earlier date), B/ (later date) and "
                "label/ (0 = unchanged, anything else = changed), whose files of equal names and sizes "
                "belong together, in any raster format that Kestrel reads. They are laid pixel on pixel; a "
                "CRS is not needed. BANDS_BEFORE, BANDS_AFTER and the stretch hold for all of them.",
            ),
        ),
        CROP: (
            TRAINING_TEXTS[CROP][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Side of the squares that are cut, a multiple of 16. At least 8 of them must be free of "
                "nodata, and changes must lie in several. On a CPU 128 learns more in an hour than 256, "
                "which the paper uses.",
            ),
        ),
        BASE_WEIGHTS: (
            QT_TRANSLATE_NOOP("Kestrel", "Start from weights"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Weights that are trained further (fine-tuning): an installed name, or a .safetensors file. "
                "The network is theirs. Empty = the paper's network from random numbers, which takes "
                "hundreds of crops with changes and many epochs.",
            ),
        ),
    }

    def displayName(self) -> str:
        """Return the name in the toolbox."""
        return tr("Train building change on own layers")

    def group(self) -> str:
        """Return the toolbox group."""
        return tr("Change")

    def groupId(self) -> str:
        """Return the group's constant id."""
        return "change"

    def tags(self) -> list[str]:
        """Return what people type to find it."""
        return tr(
            "train,training,fine-tune,learn,change,change detection,building,construction,two dates,"
            "LEVIR,deep learning,neural network,siamese,SSA-Net"
        ).split(",")

    def shortDescription(self) -> str:
        """Return one line for lists."""
        return tr(
            "Trains or fine-tunes the network of kestrel:detectbuildingchange on rasters of two dates and "
            "polygons of what changed, or on a folder of labelled tiles."
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
                    "Fu, Zhang, Zhao, Zhang, Li, Shang, Shen: Remote Sensing Image-Based Building Change "
                    "Detection: A Case Study of the Qinling Mountains in China. MDPI."
                ],
            ),
        ]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Add the parameters in the order of the dialog."""
        for name in self.ROLES:
            self.add_raster(name, optional=True)
        for name, bands in self.BANDS_OF.items():
            self.add_bands(bands, name)
        self.add_text(STRETCH_MIN, advanced=True)
        self.add_text(STRETCH_MAX, advanced=True)
        self.add_polygons(CHANGES)
        self.add_folder(FOLDER, optional=True)
        self.add_training(128)

    def why(self) -> str:
        """Return what is done with visible bands only."""
        return tr("change is looked for in visible bands only")

    def missing_layer(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Return which layer is needed and not there, or what is wrong with the folder."""
        names = (*self.ROLES, CHANGES)
        there = [name for name in names if given(parameters, name)]
        if given(parameters, FOLDER):
            if there:
                return tr("FOLDER stands instead of layers: leave {names} empty, or FOLDER.").format(
                    names=", ".join(there)
                )
            return _folder_problem(self.parameterAsString(parameters, FOLDER, context))
        if not there:
            return tr("Choose BEFORE, AFTER and CHANGES, or a tile folder in FOLDER.")
        wanted = {
            BEFORE: tr("BEFORE: choose a raster of the earlier date."),
            AFTER: tr("AFTER: choose a raster of the later date of the same ground."),
            CHANGES: tr("CHANGES: choose polygons of what changed between the dates."),
        }
        return next((text for name, text in wanted.items() if name not in there), None)

    def polygon_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Return what is wrong with CHANGES."""
        problem = super().polygon_problem(parameters, context)
        if problem or not given(parameters, CHANGES):
            return problem
        source = self.parameterAsSource(parameters, CHANGES, context)
        if source.featureCount() == 0:
            return tr("CHANGES: {source} holds no polygons; choose a layer or a selection with some.").format(
                source=source.sourceName()
            )
        return None

    def input_files(
        self, layer: Any, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> dict[str, str]:
        """Return parameter -> real path of what is read, the folder too."""
        found = super().input_files(layer, parameters, context)
        if given(parameters, FOLDER):
            found[FOLDER] = os.path.realpath(self.parameterAsString(parameters, FOLDER, context))
        return found

    def other_inputs(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, dict[str, Any]]:
        """Return the polygons, copied to scratch, or the sub-folders of FOLDER in place of all layers."""
        if given(parameters, FOLDER):
            folder = os.path.realpath(self.parameterAsString(parameters, FOLDER, context))
            bands = {role: self.layer_bands(parameters, name, context) for name, role in self.ROLES.items()}
            return {
                role: {"path": os.path.join(folder, sub), "bands": bands.get(role, [])}
                for role, sub in TILES.items()
            }
        source = self.parameterAsSource(parameters, CHANGES, context)
        place = os.path.join(self._scratch, "changes")
        os.makedirs(place)
        # the card names the layer
        name = re.sub(r"[^\w.-]+", "_", source.sourceName())[:80] or "changes"
        path = os.path.join(place, f"{name}.fgb")
        self.copy_polygons(source, path, CHANGES, context, feedback)
        return {"changes": {"path": path, "bands": []}}

    def own_params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return what building change alone asks for: nothing."""
        return {}


def _folder_problem(path: str) -> str | None:
    if not os.path.isdir(path):
        return tr("FOLDER: {path} is no folder.").format(path=path)
    for sub in TILES.values():
        if not os.path.isdir(os.path.join(path, sub)):
            return tr(
                "FOLDER: {path} has no sub-folder {sub}; it must hold {all} with files of equal names."
            ).format(path=path, sub=sub, all=", ".join(TILES.values()))
    return None


def _what() -> list[str]:
    return [
        tr(
            "The dates are laid on each other and stretched as kestrel:detectbuildingchange does it, crops "
            "are cut on a fixed lattice without overlap, and those with nodata at either date are left out. "
            "Crops without a change are all kept; the log and the report tell how many they are and how "
            "much of the ground changed. More than half a gigabyte of crops is thinned evenly."
        ),
        tr(
            "About a fifth is kept for validation and never learned from: whole blocks of the ground, or "
            "whole images of FOLDER that follow each other by name, blocks of them where one image holds all "
            "changes. Where the changes allow, both parts hold some. The epoch with the best F1 there "
            "is kept, and the threshold that does best."
        ),
        tr(
            "In training crops are turned and mirrored, get another light at each date, lie a little apart, "
            "and buildings of other crops are set into them. 300 labelled crops or more are advised; far "
            "fewer do for fine-tuning."
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
            "The file is given to kestrel:detectbuildingchange as WEIGHTS, with the same bands and stretch, "
            "which its log tells. Its card names the layers (not their folders), bands, stretch, seed, "
            "parameters and threshold, and what validation found over all its pixels: precision, recall, "
            "F1, IoU and kappa. Such weights are marked as preliminary and stand in no list."
        ),
    ]


def _limits() -> list[str]:
    return [
        tr(
            "The network learns what the outlines mean: where they miss changes, hold other ones, or lie "
            "beside the buildings, so will its answers. The log warns where the dates lie more than two "
            "pixels beside each other. The order of dates matters, and so does their season: more kinds of "
            "ground and light help more than more epochs."
        ),
        tr(
            "Epoch and threshold are chosen on the validation crops, which lie beside what was learned from: "
            "another place may come out worse. What the licences of your layers say of weights learned from "
            "them is for you to know."
        ),
    ]
