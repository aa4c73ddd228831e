"""What raster-to-raster algorithms take in, and everything that can be said against it before the run."""

from __future__ import annotations

from typing import Any, ClassVar

from qgis.core import QgsProcessingContext, QgsRasterLayer

from ..plugin import layers
from ..plugin.layers import RasterFacts
from ..plugin.raster_output import outputs_problem
from ..plugin.texts import tr
from .base import REPORT
from .checks import given
from .raster_readings import RasterReadings
from .raster_texts import (
    AOI,
    BANDS,
    COPY,
    DROP,
    EXTENT,
    INPUT,
    OTHER_BANDS,
    OUTPUT,
    OUTPUT_HAZE,
    OVERLAP,
    REFERENCE,
    STRENGTH,
    STRETCH_MAX,
    STRETCH_MIN,
    TILE,
)


class RasterChecks(RasterReadings):
    """Parameters and refusals; the run is in :mod:`.rasters`."""

    #: A tile is a multiple of this, which a network's layers may ask for.
    STRIDE: ClassVar[int] = 1
    #: Below, nearly all of a tile is overlap; above, one tile alone needs several gigabytes.
    TILES: ClassVar[tuple[int, int]] = (64, 16384)
    #: A smaller overlap that was typed is refused; 0 is automatic and always allowed.
    LEAST_OVERLAP: ClassVar[int] = 0
    #: A raster with a shorter side is refused.
    LEAST_SIDE: ClassVar[int] = 1

    def group(self) -> str:
        """Return the toolbox group."""
        return tr("Restoration")

    def groupId(self) -> str:
        """Return the group's constant id."""
        return "restoration"

    def output_help(self) -> list[str]:
        """Return the help about the outputs."""
        return [
            tr(
                "The output has the input's grid, CRS, data type, nodata, band names and scale and offset "
                "tags; alpha passes through. A pixel that is nodata in any of the three bands stays as it is "
                "in all of them, and every band keeps its own nodata. The change is added to the original "
                "values, so values above the stretch keep their headroom."
            ),
            tr(
                "QGIS shows the result as it shows the input layer, so that before and after compare; if "
                "that is too dark, load the style that lies beside the file, which spans the whole stretch."
            ),
            tr(
                "Dehazed values are not reflectance and must not be used for indices. Bands that are copied "
                "still hold their haze, so indices across dehazed and copied bands are not comparable."
            ),
        ]

    # --- parameters ------------------------------------------------------------------------------

    def add_inputs(self) -> None:
        """Add what is read."""
        self.add_raster(INPUT)
        self.add_bands(BANDS, INPUT)
        self.add_choice(OTHER_BANDS, (COPY, DROP), COPY)

    def add_stretch_and_area(self) -> None:
        """Add how values are stretched, and where."""
        self.add_text(STRETCH_MIN, advanced=True)
        self.add_text(STRETCH_MAX, advanced=True)
        self.add_extent(EXTENT)
        self.add_polygons(AOI)

    def add_strength(self) -> None:
        """Add how much of the change is applied."""
        self.add_number(STRENGTH, 1.0, 0.0, 1.0, decimals=3)

    def add_tiles(self, tile: int, overlap: int = 0) -> None:
        """Add the tiles with their defaults in pixels; an overlap of 0 is automatic."""
        self.add_number(TILE, tile, *self.TILES, advanced=True)
        self.add_number(OVERLAP, overlap, 0, advanced=True)

    def add_outputs(self) -> None:
        """Add the reference and all outputs."""
        self.add_raster(REFERENCE, optional=True, advanced=True)
        self.add_raster_output(OUTPUT)
        self.add_raster_output(OUTPUT_HAZE, optional=True)
        self.add_report()

    # --- checks ----------------------------------------------------------------------------------

    def find_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Look at rasters, numbers, areas and outputs in turn."""
        layer, facts = self.open_raster(parameters, INPUT, context)
        return (
            self._bands_problem(layer, facts, parameters, context)
            or georeference_problem(INPUT, layer, facts)
            or self._size_problem(layer, facts)
            or self._number_problem(parameters, context)
            or self._stretch_problem(parameters, context)
            or self.extent_problem(parameters, context)
            or self.polygon_problem(parameters, context)
            or self.own_problem(parameters, context)
            or self._reference_problem(facts, parameters, context)
            or self._output_problem(layer, parameters, context)
        )

    def _bands_problem(
        self,
        layer: QgsRasterLayer,
        facts: RasterFacts,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
    ) -> str | None:
        return kind_problem(INPUT, layer, facts) or bands_problem(
            self.bands(parameters, context), layer, facts
        )

    def _size_problem(self, layer: QgsRasterLayer, facts: RasterFacts) -> str | None:
        if min(facts.size) >= self.LEAST_SIDE:
            return None
        return tr(
            "INPUT: {name} has {width} x {height} pixels, but at least {side} x {side} are needed."
        ).format(name=layer.name(), width=facts.size[0], height=facts.size[1], side=self.LEAST_SIDE)

    def _number_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        low, high = self.TILES
        problem = self.out_of_range(parameters, STRENGTH, 0.0, 1.0, context) or self.out_of_range(
            parameters, TILE, low, high, context
        )
        if problem:
            return problem
        tile = self.parameterAsInt(parameters, TILE, context)
        if tile % self.STRIDE:
            lower = tile // self.STRIDE * self.STRIDE
            return tr("TILE is {tile}; it must be a multiple of {stride}, such as {low} or {high}.").format(
                tile=tile, stride=self.STRIDE, low=lower, high=lower + self.STRIDE
            )
        overlap = self.number(parameters, OVERLAP, context)
        if not 0 <= overlap < tile:
            return tr("OVERLAP is {overlap:g}; it must be less than TILE ({tile}), 0 = automatic.").format(
                overlap=overlap, tile=tile
            )
        if 0 < overlap < self.LEAST_OVERLAP:
            return tr("OVERLAP is {overlap:g}; it must be at least {least}, or 0 = automatic.").format(
                overlap=overlap, least=self.LEAST_OVERLAP
            )
        return None

    def _stretch_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        return stretch_problem(*self.stretch(parameters, context))

    def _reference_problem(
        self, facts: RasterFacts, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> str | None:
        if not given(parameters, REFERENCE):
            return None
        layer, reference = self.open_raster(parameters, REFERENCE, context)
        problem = kind_problem(REFERENCE, layer, reference) or georeference_problem(
            REFERENCE, layer, reference
        )
        bare = "none" in (facts.georeference, reference.georeference)
        if problem or not bare or reference.size == facts.size:
            return problem
        return tr(
            "REFERENCE: {name} has {width} x {height} pixels, INPUT {input_width} x {input_height}, and "
            "without georeference they cannot be laid on each other; choose one of the same size."
        ).format(
            name=layer.name(),
            width=reference.size[0],
            height=reference.size[1],
            input_width=facts.size[0],
            input_height=facts.size[1],
        )

    def _output_problem(
        self, layer: QgsRasterLayer, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> str | None:
        if not self.typed_output(parameters, OUTPUT, context).strip():
            return tr("OUTPUT: choose a file for the result.")
        return outputs_problem(
            self.destinations(parameters, context),
            (REPORT, self.report_path(parameters, context)),
            self.all_files(layer, parameters, context),
            layers.loaded_files(context.project()),
        )


def bands_problem(
    chosen: list[int], layer: QgsRasterLayer, facts: RasterFacts, label: str = BANDS, why: str = ""
) -> str | None:
    """Say why typed bands are not three visible bands of a raster, or return None; [] is automatic."""
    if not chosen:
        return None
    for band in chosen:
        if not 1 <= band <= facts.bands:
            return tr("{label} names band {band}, but {name} has {count} bands, counted from 1.").format(
                label=label, band=band, name=layer.name(), count=facts.bands
            )
    if len(chosen) != 3 or len(set(chosen)) != 3:
        return tr(
            "{label} is {typed}; choose three different bands in the order red, green, blue, "
            "or none for automatic."
        ).format(label=label, typed=",".join(map(str, chosen)))
    for band, reason in _unusable(facts, why).items():
        if band in chosen:
            return tr("{label}: band {band} of {name} {reason}.").format(
                label=label, band=band, name=layer.name(), reason=reason
            )
    return None


def stretch_problem(lows: list[float], highs: list[float]) -> str | None:
    """Say why typed limits are no stretch, or return None; both [] is automatic."""
    if bool(lows) != bool(highs):
        there, missing = (STRETCH_MIN, STRETCH_MAX) if lows else (STRETCH_MAX, STRETCH_MIN)
        return tr("{there} is given without {missing}; give both, or neither for automatic.").format(
            there=there, missing=missing
        )
    for number, (low, high) in enumerate(zip(_three(lows), _three(highs)), 1):
        if low >= high:
            return tr(
                "STRETCH_MIN ({low:g}) must be less than STRETCH_MAX ({high:g}) in every band; "
                "look at value {number}."
            ).format(low=low, high=high, number=number)
    return None


def kind_problem(label: str, layer: QgsRasterLayer, facts: RasterFacts, why: str = "") -> str | None:
    """Say why a raster has no three visible bands of plain numbers, or return None.

    ``why``: what is done with visible bands only, as the end of a sentence; haze removal without.
    """
    if facts.complex_bands:
        return tr("{label}: band {band} of {name} is complex, which is SAR data; {why}.").format(
            label=label, name=layer.name(), band=facts.complex_bands[0], why=why or _why()
        )
    unusable = _unusable(facts, why)
    if facts.bands - len(unusable) >= 3:
        return None
    for band, reason in unusable.items():
        if band not in facts.alpha_bands:
            return tr("{label}: band {band} of {name} {reason}.").format(
                label=label, band=band, name=layer.name(), reason=reason
            )
    besides = tr(" besides alpha") if facts.alpha_bands else ""
    return tr("{label}: {name} has {count} band(s){besides}, but three visible bands are needed.").format(
        label=label, name=layer.name(), count=facts.bands - len(unusable), besides=besides
    )


def _why() -> str:
    return tr("haze is removed from visible bands only")


def _unusable(facts: RasterFacts, why: str = "") -> dict[int, str]:
    """Return the bands that are no visible light, each with the reason as the end of a sentence."""
    reasons = (
        (facts.alpha_bands, tr("is its alpha band, not a colour")),
        (facts.radar_bands, tr("is SAR by its name; {why}").format(why=why or _why())),
        (
            facts.palette_bands,
            tr("has a palette, its values are numbers of colours; convert it to RGB first (gdal:pcttorgb)"),
        ),
    )
    return {band: reason for bands, reason in reasons for band in bands}


def georeference_problem(label: str, layer: QgsRasterLayer, facts: RasterFacts) -> str | None:
    """Say why a raster has no place that others can be laid on, or return None."""
    if facts.georeference not in ("gcp", "rpc"):
        return None
    by = {"gcp": tr("ground control points"), "rpc": tr("rational polynomials (RPC)")}
    return tr(
        "{label}: {name} is placed by {way} only, which a raster on its grid cannot keep; warp it first "
        "(gdal:warpreproject)."
    ).format(label=label, name=layer.name(), way=by[facts.georeference])


def _three(numbers: list[float]) -> list[float]:
    return numbers * 3 if len(numbers) == 1 else numbers
