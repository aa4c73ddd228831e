"""kestrel:detectshipscfar - ships in SAR imagery by a constant false-alarm rate, without a network."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingContext
from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from ..plugin.texts import tr
from .box_texts import SCALE_MAX, SCALE_MIN, SCALE_MODE, SHARED_TEXTS
from .boxes import BoxAlgorithm

PFA = "PFA"
GUARD = "GUARD"
BACKGROUND = "BACKGROUND"


class DetectShipsCfar(BoxAlgorithm):
    """The classical cell-averaging detector."""

    NAME = "detectshipscfar"
    MODEL = "cfar"
    ICON = "cfar.svg"
    #: Above, a ship of 200 m covers fewer than ten pixels by two (specification, section 10).
    COARSE_M = 20.0
    TEXTS = {  # noqa: RUF012 (never changed)
        **SHARED_TEXTS,
        SCALE_MODE: (
            SHARED_TEXTS[SCALE_MODE][0],
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "What the pixel values are, because the detector compares powers. auto: decibels where dark "
                "values are negative, else amplitudes. uint8, percentile: amplitudes. db: decibels. linear: "
                "power (intensity, linear sigma0).",
            ),
        ),
        SCALE_MIN: (
            SHARED_TEXTS[SCALE_MIN][0],
            QT_TRANSLATE_NOOP(
                "Kestrel", "Darker values count as this. Used with the scalings db and linear only."
            ),
        ),
        SCALE_MAX: (
            SHARED_TEXTS[SCALE_MAX][0],
            QT_TRANSLATE_NOOP(
                "Kestrel", "Brighter values count as this. Used with the scalings db and linear only."
            ),
        ),
        PFA: (
            QT_TRANSLATE_NOOP("Kestrel", "False-alarm probability"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "How likely a pixel of plain sea may be taken for a ship, such as 1e-6. Smaller finds fewer "
                "false alarms and fewer faint ships.",
            ),
        ),
        GUARD: (
            QT_TRANSLATE_NOOP("Kestrel", "Guard window (m)"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Side of the square around a pixel that is left out of the background, so that a ship does "
                "not hide itself: longer than the ships that are looked for.",
            ),
        ),
        BACKGROUND: (
            QT_TRANSLATE_NOOP("Kestrel", "Background window (m)"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Side of the square around a pixel whose sea, without the guard window, is the background.",
            ),
        ),
    }

    def displayName(self) -> str:
        """Return the name in the toolbox."""
        return tr("Detect ships by CFAR")

    def tags(self) -> list[str]:
        """Return what people type to find it."""
        return tr("ship,vessel,sar,radar,sentinel-1,maritime,cfar,constant false alarm rate,classical").split(
            ","
        )

    def shortDescription(self) -> str:
        """Return one line for lists."""
        return tr("Finds ships as pixels that are too bright for the sea around them; needs no weights.")

    def sections(self) -> list[tuple[str, list[str]]]:
        """Return the help."""
        return [
            (
                "",
                [
                    self.shortDescription(),
                    tr(
                        "The cell-averaging constant false-alarm rate detector: every pixel is compared with "
                        "the mean power of a ring of sea around it. It is the honest baseline of the "
                        "network, and the way where no weights fit a sensor."
                    ),
                ],
            ),
            (tr("Output"), self.output_help()),
            (
                tr("Limits"),
                [
                    tr(
                        "Anything bright on dark water is found: ships, platforms, buoys, rocks. Without a "
                        "land mask coasts and towns give many false alarms. Sea clutter is heavier than the "
                        "model assumes, so more false alarms than the chosen probability are normal."
                    )
                ],
            ),
            (
                tr("Citation"),
                [
                    "Finn, Johnson: Adaptive detection mode with threshold control as a function of "
                    "spatially sampled clutter-level estimates. RCA Review 29 (1968)."
                ],
            ),
        ]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Add the parameters in the order of the dialog."""
        self.add_inputs()
        self.add_number(PFA, 1e-6, 1e-15, 0.1, decimals=15)
        self.add_number(GUARD, 300.0, 1.0, decimals=1)
        self.add_number(BACKGROUND, 600.0, 1.0, decimals=1)
        self.add_lengths()
        self.add_outputs()

    def own_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Check probability and windows."""
        for name, low, high in ((PFA, 1e-15, 0.1), (GUARD, 1, 1e5), (BACKGROUND, 1, 1e5)):
            problem = self.out_of_range(parameters, name, low, high, context)
            if problem:
                return problem
        guard, background = (self.number(parameters, name, context) for name in (GUARD, BACKGROUND))
        if background <= guard:
            return tr("BACKGROUND ({background:g} m) must be more than GUARD ({guard:g} m).").format(
                background=background, guard=guard
            )
        return None

    def own_params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return the detector's params."""
        return {name.lower(): self.number(parameters, name, context) for name in (PFA, GUARD, BACKGROUND)}
