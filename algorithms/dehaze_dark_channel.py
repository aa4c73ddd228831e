"""kestrel:dehazedarkchannel - haze removal by the dark channel prior and the guided filter."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingContext
from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from ..plugin.texts import tr
from .raster_texts import SHARED_TEXTS
from .rasters import RasterAlgorithm

PATCH = "PATCH"
OMEGA = "OMEGA"
COG = "COG"

#: A patch of 101 reaches 454 pixels, nearly a whole tile: the model takes no larger one.
LARGEST_PATCH = 101


class DehazeDarkChannel(RasterAlgorithm):
    """The classical method of He, Sun and Tang; needs no weights."""

    NAME = "dehazedarkchannel"
    MODEL = "dark_channel"
    ICON = "dehaze.svg"
    TEXTS = {  # noqa: RUF012 (never changed)
        **SHARED_TEXTS,
        PATCH: (
            QT_TRANSLATE_NOOP("Kestrel", "Patch (pixels)"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Side of the square in which the darkest value of the three bands is looked for, an odd "
                "number. Larger than bright objects such as roofs and fields; smaller follows finer haze.",
            ),
        ),
        OMEGA: (
            QT_TRANSLATE_NOOP("Kestrel", "Share of haze removed (omega)"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "0 removes nothing, 1 all that the dark channel shows. A little haze left keeps distances "
                "and bright ground natural.",
            ),
        ),
        COG: (
            QT_TRANSLATE_NOOP("Kestrel", "Cloud-optimised GeoTIFF"),
            QT_TRANSLATE_NOOP(
                "Kestrel", "Write the output as a COG, in a second pass over the file, for use on a server."
            ),
        ),
    }

    def displayName(self) -> str:
        """Return the name in the toolbox."""
        return tr("Dehaze by the dark channel prior")

    def tags(self) -> list[str]:
        """Return what people type to find it."""
        return tr(
            "haze,dehaze,dehazing,fog,smoke,atmosphere,dark channel,guided filter,restoration,classical"
        ).split(",")

    def shortDescription(self) -> str:
        """Return one line for lists."""
        return tr("Removes thin haze from an RGB or multi-band raster of any size; needs no weights.")

    def sections(self) -> list[tuple[str, list[str]]]:
        """Return the help."""
        return [
            ("", [self.shortDescription(), *_what()]),
            (tr("Output"), self.output_help()),
            (tr("Limits"), _limits()),
            (
                tr("Citation"),
                [
                    "He, Sun, Tang: Single Image Haze Removal Using Dark Channel Prior. CVPR 2009; IEEE "
                    "Transactions on Pattern Analysis and Machine Intelligence 33 (2011).",
                    "He, Sun, Tang: Guided Image Filtering. IEEE Transactions on Pattern Analysis and "
                    "Machine Intelligence 35 (2013).",
                ],
            ),
        ]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Add the parameters in the order of the dialog."""
        self.add_inputs()
        self.add_stretch_and_area()
        self.add_number(PATCH, 15, 1, LARGEST_PATCH, advanced=True)
        self.add_number(OMEGA, 0.95, 0.0, 1.0, decimals=3, advanced=True)
        self.add_strength()
        self.add_tiles(512)
        self.add_flag(COG, advanced=True)
        self.add_outputs()

    def own_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Check patch and omega."""
        problem = self.out_of_range(parameters, PATCH, 1, LARGEST_PATCH, context) or self.out_of_range(
            parameters, OMEGA, 0.0, 1.0, context
        )
        if problem:
            return problem
        patch = self.number(parameters, PATCH, context)
        if patch % 2 != 1:
            return tr("PATCH is {patch:g}; it must be an odd number, such as {low} or {high}.").format(
                patch=patch, low=max(int(patch) - 1, 1) | 1, high=int(patch) + 1 | 1
            )
        return None

    def own_params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return the method's params."""
        return {
            "patch": self.parameterAsInt(parameters, PATCH, context),
            "omega": self.number(parameters, OMEGA, context),
            "cog": self.parameterAsBool(parameters, COG, context),
        }


def _what() -> list[str]:
    return [
        tr(
            "Without haze nearly every small patch of ground holds a pixel that is dark in one of the three "
            "visible bands; how bright the darkest pixel is tells how thick the haze is. The colour of the "
            "haze (airlight) is found once from the whole raster, the transmission is refined by a guided "
            "filter, and haze is taken off tile by tile without seams, so the result of a part equals that "
            "part of the whole."
        ),
        tr(
            "Input is a raster with red, green and blue, as digital numbers, radiance or reflectance; "
            "further bands are copied or dropped."
        ),
    ]


def _limits() -> list[str]:
    return [
        tr(
            "Thin, even haze is what it is for. Dense haze and cloud hide the ground and are not "
            "recoverable. Large bright or grey surfaces without shadow - snow, sand, cloud, roofs larger "
            "than the patch - are taken for haze and become too dark."
        ),
        tr(
            "Use OMEGA 0.3 to 0.5 where the haze is slight or the ground bright. Against 78 real pairs of "
            "hazy and clear Landsat scenes, mostly in false colour, the default went too far (2.0 and 5.6 dB "
            "lost in the two halves) and 0.3 helped (0.5 and 1.0 dB gained); over simulated haze that covers "
            "whole scenes the default gained 4 to 9 dB."
        ),
        tr(
            "The colour of the haze is one for the whole raster; a mosaic of scenes with different haze is "
            "better dehazed scene by scene."
        ),
    ]
