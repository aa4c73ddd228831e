"""What all Kestrel algorithms share: names, help, parameters with one line each, refusals.

An algorithm lists its parameters' labels and help texts once, in ``TEXTS``; dialog, help panel and
docs/algorithms are made from them. Texts are plain: HTML and Markdown are made here and in
scripts/make_docs.py.
"""

from __future__ import annotations

import html
import os
from typing import Any, ClassVar

from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingParameterBand,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)
from qgis.PyQt.QtGui import QIcon

from ..plugin import paths
from ..plugin.errors import WorkerCancelled, WorkerError
from ..plugin.runtime import find_runtime
from ..plugin.texts import tr

REPORT = "REPORT"


class BandWithDefault(QgsProcessingParameterBand):
    """A band parameter whose default counts: QGIS 3.22 calls a band that is not given missing."""

    def clone(self) -> BandWithDefault:
        """Return a copy that behaves alike."""
        copy = BandWithDefault(
            self.name(), self.description(), self.defaultValue(), self.parentLayerParameterName()
        )
        copy.setFlags(self.flags())
        copy.setHelp(self.help())
        return copy

    def checkValueIsAcceptable(self, value: Any, context: QgsProcessingContext | None = None) -> bool:
        """Accept a missing value, as for any other parameter with a default."""
        return value is None or super().checkValueIsAcceptable(value, context)


class KestrelAlgorithm(QgsProcessingAlgorithm):
    """Base class; a subclass names itself, adds its parameters and runs."""

    NAME = ""
    ICON = "kestrel.svg"
    TEXTS: ClassVar[dict[str, tuple[str, str]]] = {}

    def createInstance(self) -> KestrelAlgorithm:
        """Return a fresh object; every run has its own."""
        return type(self)()

    def name(self) -> str:
        """Return the id: lowercase letters, never translated, never changed."""
        return self.NAME

    def icon(self) -> QIcon:
        """Return the toolbox icon."""
        return QIcon(self.svgIconPath())

    def svgIconPath(self) -> str:
        """Return the icon's path."""
        return os.fspath(paths.ICONS / self.ICON)

    def helpUrl(self) -> str:
        """Return the address of the algorithm's page."""
        for line in (paths.ROOT / "metadata.txt").read_text(encoding="utf-8").splitlines():
            if line.startswith("repository="):
                return f"{line.partition('=')[2]}/blob/main/docs/algorithms/{self.NAME}.md"
        return ""

    def sections(self) -> list[tuple[str, list[str]]]:
        """Return the help as (heading, paragraphs), plain text; the first heading is ""."""
        raise NotImplementedError

    def shortHelpString(self) -> str:
        """Return the help panel's HTML: sections, with the parameters after the first."""
        parts = [_section(*section) for section in self.sections()]
        lines = []
        for definition in self.parameterDefinitions():
            if definition.help():
                lines.append(
                    f"<p><b>{html.escape(definition.description())}</b>: {html.escape(definition.help())}</p>"
                )
        parameters = f"<h3>{html.escape(tr('Parameters'))}</h3>{''.join(lines)}"
        return "\n".join([parts[0], parameters, *parts[1:]])

    def canExecute(self) -> tuple[bool, str]:
        """Explain a missing runtime in the toolbox; qgis_process does not ask, the run says it again."""
        try:
            find_runtime()
        except WorkerError as error:
            return False, error.text()
        except WorkerCancelled:
            return True, ""
        return True, ""

    def problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Return one sentence saying why these values cannot be run, or None."""
        raise NotImplementedError

    def checkParameterValues(
        self, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> tuple[bool, str]:
        """Refuse bad values with our own sentence first: QGIS's names only the parameter."""
        problem = self.problem(parameters, context)
        if problem:
            return False, problem
        return super().checkParameterValues(parameters, context)

    def refuse(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        """Check again at the start of a run: inside a model nobody calls checkParameterValues."""
        problem = self.problem(parameters, context)
        if problem:
            raise QgsProcessingException(problem)

    # --- adding parameters -----------------------------------------------------------------------

    def add(self, definition: QgsProcessingParameterDefinition, *, advanced: bool = False) -> None:
        """Add a parameter with its help; ``advanced`` folds it away in the dialog."""
        definition.setHelp(tr(self.TEXTS[definition.name()][1]))
        if advanced:
            definition.setFlags(definition.flags() | QgsProcessingParameterDefinition.Flag.FlagAdvanced)
        self.addParameter(definition)

    def label(self, name: str) -> str:
        """Return a parameter's label in the user's language."""
        return tr(self.TEXTS[name][0])

    def add_raster(self, name: str, *, optional: bool = False, advanced: bool = False) -> None:
        """Add a raster layer."""
        definition = QgsProcessingParameterRasterLayer(name, self.label(name), optional=optional)
        self.add(definition, advanced=advanced)

    def add_band(self, name: str, parent: str) -> None:
        """Add one band of the raster ``parent``, the first by default."""
        self.add(BandWithDefault(name, self.label(name), 1, parent))

    def add_bands(self, name: str, parent: str) -> None:
        """Add several bands of the raster ``parent``, none by default."""
        self.add(
            QgsProcessingParameterBand(
                name, self.label(name), None, parent, optional=True, allowMultiple=True
            )
        )

    def add_text(self, name: str, *, advanced: bool = False) -> None:
        """Add an optional text, such as a list of numbers."""
        self.add(QgsProcessingParameterString(name, self.label(name), optional=True), advanced=advanced)

    def add_flag(self, name: str, *, advanced: bool = False) -> None:
        """Add a switch that is off by default."""
        self.add(QgsProcessingParameterBoolean(name, self.label(name), False), advanced=advanced)

    def add_choice(
        self, name: str, options: tuple[str, ...], default: str, *, advanced: bool = False
    ) -> None:
        """Add an enumeration of static strings, readable on a command line."""
        definition = QgsProcessingParameterEnum(
            name, self.label(name), list(options), defaultValue=default, usesStaticStrings=True
        )
        self.add(definition, advanced=advanced)

    def add_number(
        self,
        name: str,
        default: float,
        minimum: float | None = None,
        maximum: float | None = None,
        *,
        decimals: int | None = None,
        advanced: bool = False,
    ) -> None:
        """Add a number; an int as default makes it a whole one."""
        types = QgsProcessingParameterNumber.Type
        definition = QgsProcessingParameterNumber(
            name,
            self.label(name),
            types.Integer if isinstance(default, int) else types.Double,
            default,
        )
        if minimum is not None:
            definition.setMinimum(minimum)
        if maximum is not None:
            definition.setMaximum(maximum)
        if decimals is not None:
            definition.setMetadata({"widget_wrapper": {"decimals": decimals}})
        self.add(definition, advanced=advanced)

    def add_extent(self, name: str) -> None:
        """Add an optional extent in any CRS."""
        self.add(QgsProcessingParameterExtent(name, self.label(name), optional=True))

    def add_polygons(self, name: str) -> None:
        """Add an optional polygon layer in any CRS."""
        kinds = [QgsProcessing.SourceType.TypeVectorPolygon]
        self.add(QgsProcessingParameterFeatureSource(name, self.label(name), kinds, optional=True))

    def add_folder(self, name: str, *, optional: bool = False, advanced: bool = False) -> None:
        """Add an existing folder."""
        behaviour = QgsProcessingParameterFile.Behavior.Folder
        definition = QgsProcessingParameterFile(name, self.label(name), behaviour, optional=optional)
        self.add(definition, advanced=advanced)

    def add_weights(self, name: str, model: str, *, advanced: bool = True) -> None:
        """Add the optional weights: a name or a file; the dialog offers the released ones of ``model``."""
        definition = QgsProcessingParameterFile(name, self.label(name), optional=True)
        # the default filter (*.*) refuses every value without a dot, that is: names
        definition.setFileFilter(tr("All files (*)"))
        # by its path, so that without a dialog nothing of QGIS's GUI is imported
        widget = f"{__package__.rpartition('.')[0]}.plugin.weights_widget.WeightsWidget"
        definition.setMetadata({"widget_wrapper": {"class": widget, "model": model}})
        self.add(definition, advanced=advanced)

    def add_polygon_sink(self, name: str) -> None:
        """Add the polygon output."""
        kind = QgsProcessing.SourceType.TypeVectorPolygon
        self.add(QgsProcessingParameterFeatureSink(name, self.label(name), kind))

    def add_raster_output(self, name: str, *, optional: bool = False) -> None:
        """Add a raster output; an optional one is made only when a file is given."""
        self.add(
            QgsProcessingParameterRasterDestination(
                name, self.label(name), optional=optional, createByDefault=not optional
            )
        )

    def add_report(self) -> None:
        """Add the optional HTML report, which is made only when a file is given."""
        self.add(
            QgsProcessingParameterFileDestination(
                REPORT,
                self.label(REPORT),
                tr("HTML files (*.html)"),
                optional=True,
                createByDefault=False,
            )
        )


def _section(heading: str, paragraphs: list[str]) -> str:
    title = f"<h3>{html.escape(heading)}</h3>" if heading else ""
    return title + "".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in paragraphs)
