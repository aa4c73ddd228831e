"""kestrel:detectchangevector - change-vector analysis, the classical way without weights."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingContext
from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from ..plugin.texts import tr
from .change import ChangeAlgorithm
from .change_texts import MIN_AREA, OUTPUT_PROBABILITY, SHARED_TEXTS, THRESHOLD


class DetectChangeVector(ChangeAlgorithm):
    """Length of the difference between two dates, cut by Otsu's threshold."""

    NAME = "detectchangevector"
    MODEL = "change_vector"
    ICON = "change_vector.svg"
    TEXTS = {  # noqa: RUF012 (never changed)
        **SHARED_TEXTS,
        THRESHOLD: (
            SHARED_TEXTS[THRESHOLD][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Share (0 to 1) of the scene's largest difference from which a pixel counts as changed. "
                "0 = automatic: Otsu's threshold over the whole scene, also where EXTENT or AOI let a part "
                "of it through; it parts the scene into two groups whether something has changed or not.",
            ),
        ),
        MIN_AREA: (
            SHARED_TEXTS[MIN_AREA][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Polygons with less area are left out; -1 = 50, 0 = "
                "all are kept. The mask is never sieved, so it can show specks that no polygon has. Without "
                "a CRS in the layer's own units.",
            ),
        ),
        OUTPUT_PROBABILITY: (
            QT_TRANSLATE_NOOP("Kestrel", "Strength of change"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "GeoTIFF with one float band: the difference over the scene's largest, 0 to 1, nodata "
                "-9999. It is no probability; made when a file is given.",
            ),
        ),
    }

    def displayName(self) -> str:
        """Return the name in the toolbox."""
        return tr("Detect change by change-vector analysis")

    def tags(self) -> list[str]:
        """Return what people type to find it."""
        return tr("change,change detection,CVA,change vector,difference,Otsu,threshold,two dates").split(",")

    def shortDescription(self) -> str:
        """Return one line for lists."""
        return tr("Finds where two rasters of different dates differ most, as polygons; needs no weights.")

    def sections(self) -> list[tuple[str, list[str]]]:
        """Return the help."""
        return [
            ("", [self.shortDescription(), *_what()]),
            (tr("Output"), self.output_help()),
            (tr("Limits"), _limits()),
            (
                tr("Citation"),
                [
                    "Malila: Change Vector Analysis: An Approach for Detecting Forest Changes with Landsat. "
                    "LARS Symposia, 1980.",
                    "Otsu: A Threshold Selection Method from Gray-Level Histograms. IEEE Transactions on "
                    "Systems, Man, and Cybernetics 9, 1979.",
                ],
            ),
        ]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Add the parameters in the order of the dialog."""
        self.add_dates()
        self.add_radiometry()
        self.add_shapes_and_area()
        self.add_tiles()
        self.add_outputs()

    def own_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Nothing more can be wrong."""
        return None

    def own_params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return nothing more than all have."""
        return {}


def _what() -> list[str]:
    return [
        tr(
            "Red, green and blue of both dates are stretched alike; the length of the difference, over the "
            "largest one of the scene, is how strongly a pixel has changed. On large scenes the largest is "
            "read off a lattice of blocks, and what lies above counts as 1."
        ),
    ]


def _limits() -> list[str]:
    return [
        tr(
            "It finds changes of colour, whatever the cause: seasons, shadows, crops, cars and light count "
            "as much as buildings, and where nothing has changed the automatic threshold still parts the "
            "scene in two. Use it as a baseline and for pairs of one season and light; "
            "kestrel:detectbuildingchange looks for buildings."
        ),
    ]
