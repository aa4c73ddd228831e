"""What a training takes in, and everything that can be said against it before the run."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from qgis.core import QgsProcessingContext, QgsProcessingParameterFileDestination, QgsRasterLayer

from ..plugin import layers
from ..plugin.destination import file_problem
from ..plugin.layers import RasterFacts
from ..plugin.texts import tr
from ..plugin.weight_files import FOLDER, SUFFIX, read_card, shipped, weights_problem
from .base import REPORT
from .checks import existing, given
from .networks import BATCH
from .raster_checks import bands_problem, georeference_problem, kind_problem, stretch_problem
from .raster_readings import TEMPORARY, RasterReadings
from .raster_texts import BANDS
from .training_texts import BASE_WEIGHTS, CROP, EPOCHS, LEARNING_RATE, OUTPUT_WEIGHTS, PRESET, SEED

#: Limits that the worker holds too (models/dehazing/user_training.py).
RANGES: dict[str, tuple[float, float]] = {
    EPOCHS: (1, 10000),
    BATCH: (1, 256),
    CROP: (32, 1024),
    LEARNING_RATE: (1e-7, 0.1),
    SEED: (0, 2**31 - 1),
}


class TrainingChecks(RasterReadings):
    """Parameters and refusals; the run is in :mod:`.training`."""

    #: Layers by their ids, with the roles the worker knows them by; the first one's grid counts.
    ROLES: ClassVar[dict[str, str]] = {}
    #: The parameter that chooses a layer's bands, where each has its own; BANDS serves all without.
    BANDS_OF: ClassVar[dict[str, str]] = {}
    #: The key of the shipped weights that BASE_WEIGHTS may name.
    DEFAULT_WEIGHTS: ClassVar[str] = ""
    #: A crop is a multiple of this.
    STRIDE: ClassVar[int] = 8
    #: No area of interest: a part of a layer is cut out first. A subclass may want labels.
    POLYGONS = ()

    def why(self) -> str:
        """Return what is done with visible bands only, as the end of a sentence; "" is haze removal."""
        return ""

    def missing_layer(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Return which layer is needed and not there."""
        raise NotImplementedError

    def add_output_weights(self) -> None:
        """Add the weight file."""
        kind = tr("Kestrel weights (*{suffix})").format(suffix=SUFFIX)
        self.add(QgsProcessingParameterFileDestination(OUTPUT_WEIGHTS, self.label(OUTPUT_WEIGHTS), kind))

    # --- readings --------------------------------------------------------------------------------

    def layer_bands(self, parameters: dict[str, Any], name: str, context: QgsProcessingContext) -> list[int]:
        """Return the bands chosen for the layer ``name``, [] for automatic."""
        return self.bands(parameters, context, self.BANDS_OF.get(name, BANDS))

    def output_path(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        """Return where the weights go, with the ending; "" where nothing was typed."""
        typed = self.typed_output(parameters, OUTPUT_WEIGHTS, context).strip()
        if not typed:
            return ""
        path = self.parameterAsFileOutput(parameters, OUTPUT_WEIGHTS, context)
        return path if os.path.splitext(os.path.basename(path))[1] or os.path.isdir(path) else path + SUFFIX

    def input_files(
        self, layer: QgsRasterLayer | None, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> dict[str, str]:
        """Return parameter -> real path of the files behind the layers, and of the base weights."""
        found = {
            name: layers.layer_file(self.parameterAsRasterLayer(parameters, name, context))
            for name in self.ROLES
            if given(parameters, name)
        }
        found.update(self.polygon_files(parameters, self.POLYGONS, context))
        base = self.parameterAsString(parameters, BASE_WEIGHTS, context).strip()
        if base.lower().endswith(SUFFIX):
            found[BASE_WEIGHTS] = os.path.expanduser(base)
        return existing(found)

    # --- checks ----------------------------------------------------------------------------------

    def find_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Look at layers, numbers, base weights and outputs in turn."""
        return (
            self.missing_layer(parameters, context)
            or self._layers_problem(parameters, context)
            or self.polygon_problem(parameters, context)
            or self._number_problem(parameters, context)
            or stretch_problem(*self.stretch(parameters, context))
            or self._base_problem(parameters, context)
            or self._output_problem(parameters, context)
        )

    def _layers_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        found: dict[str, tuple[QgsRasterLayer, RasterFacts]] = {}
        for name in self.ROLES:
            if not given(parameters, name):
                continue
            layer, facts = found[name] = self.open_raster(parameters, name, context)
            chosen = self.layer_bands(parameters, name, context)
            problem = (
                kind_problem(name, layer, facts, self.why())
                or bands_problem(chosen, layer, facts, self.BANDS_OF.get(name, BANDS), self.why())
                or georeference_problem(name, layer, facts)
            )
            if problem:
                return problem
        if not found:
            return None
        first, *others = found
        for other in others:
            bands = [self.layer_bands(parameters, name, context) for name in (first, other)]
            # layers that share one parameter must show the same by the same numbers
            sure = bool(bands[0]) or bool(self.BANDS_OF)
            problem = _pair_problem(first, *found[first], other, *found[other], sure, bands[0] == bands[1])
            if problem:
                return problem
        return None

    def _number_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        for name, (low, high) in RANGES.items():
            problem = self.out_of_range(parameters, name, low, high, context)
            if problem:
                return problem
        crop = self.parameterAsInt(parameters, CROP, context)
        if crop % self.STRIDE:
            lower = crop // self.STRIDE * self.STRIDE
            return tr("CROP is {crop}; it must be a multiple of {stride}, such as {low} or {high}.").format(
                crop=crop, stride=self.STRIDE, low=lower, high=lower + self.STRIDE
            )
        return None

    def _base_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        typed = self.parameterAsString(parameters, BASE_WEIGHTS, context).strip()
        if not typed:
            return None
        problem = weights_problem(typed, self.DEFAULT_WEIGHTS, BASE_WEIGHTS)
        if problem:
            return problem
        entry = shipped().get(typed)
        card = entry.get("card", {}) if entry else read_card(os.path.expanduser(typed))
        theirs = card.get("preset") if isinstance(card, dict) else None
        if self.parameterDefinition(PRESET) is None:  # the network is that of the weights
            return None
        preset = self.parameterAsString(parameters, PRESET, context)
        if theirs in self.parameterDefinition(PRESET).options() and theirs != preset:
            return tr(
                "BASE_WEIGHTS {name} are of the preset {theirs}, but PRESET is {preset}; choose the same."
            ).format(name=os.path.basename(typed), theirs=theirs, preset=preset)
        return None

    def _output_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        path = self.output_path(parameters, context)
        if not path:
            return tr("OUTPUT_WEIGHTS: choose a file for the trained weights.")
        if not path.lower().endswith(SUFFIX):
            return tr("OUTPUT_WEIGHTS: {name} must end with {suffix}.").format(
                name=os.path.basename(path), suffix=SUFFIX
            )
        if os.path.realpath(os.path.dirname(path)) == os.path.realpath(FOLDER):
            return tr("OUTPUT_WEIGHTS: {folder} holds the shipped weights; choose another folder.").format(
                folder=os.path.dirname(path)
            )
        files = self.input_files(None, parameters, context)
        problem = file_problem(path, OUTPUT_WEIGHTS, files)
        report = self.report_path(parameters, context)
        if problem or not report:
            return problem
        return file_problem(report, REPORT, {**files, OUTPUT_WEIGHTS: path})

    def is_temporary(self, parameters: dict[str, Any], context: QgsProcessingContext) -> bool:
        """Whether the weights go to a file whose name nobody chose."""
        return self.typed_output(parameters, OUTPUT_WEIGHTS, context).strip() == TEMPORARY


def _pair_problem(
    first: str,
    layer: QgsRasterLayer,
    facts: RasterFacts,
    name: str,
    other: QgsRasterLayer,
    theirs: RasterFacts,
    sure: bool,
    alike: bool,
) -> str | None:
    """Say why two layers do not belong together, as far as their headers tell.

    ``sure``: which bands are meant in each is known. ``alike``: the same ones are chosen in both.
    """
    if alike and os.path.realpath(layers.gdal_source(layer)) == os.path.realpath(layers.gdal_source(other)):
        return tr("{first} and {name} are the same raster ({layer}); nothing could be learned.").format(
            first=first, name=name, layer=layer.name()
        )
    counts = [each.bands - len(each.alpha_bands) for each in (facts, theirs)]
    if counts[0] != counts[1] and not sure:
        return tr(
            "{first} {layer} has {count} bands and {name} {other} has {others}; write in BANDS which bands "
            "show red, green and blue in both, or choose layers alike."
        ).format(
            first=first, layer=layer.name(), count=counts[0], name=name, other=other.name(), others=counts[1]
        )
    if "none" in (facts.georeference, theirs.georeference) and facts.size != theirs.size:
        return tr(
            "{name}: {other} has {width} x {height} pixels, {first} {first_width} x {first_height}, and "
            "without georeference they cannot be laid on each other; choose layers of the same size."
        ).format(
            name=name,
            other=other.name(),
            width=theirs.size[0],
            height=theirs.size[1],
            first=first,
            first_width=facts.size[0],
            first_height=facts.size[1],
        )
    return None
