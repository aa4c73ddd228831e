"""What algorithms with a neural network share: weights, tiles at a time, device, and what is said of them."""

from __future__ import annotations

from typing import Any, ClassVar

from qgis.core import QgsProcessingContext
from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from ..plugin import settings
from ..plugin.texts import tr
from ..plugin.weight_files import family, for_worker, shipped, weights_problem
from .checks import SceneChecks

WEIGHTS = "WEIGHTS"
BATCH = "BATCH"
DEVICE = "DEVICE"

#: More tiles at a time fit no GPU; the worker refuses them as well.
LARGEST_BATCH = 4096

NETWORK_TEXTS: dict[str, tuple[str, str]] = {
    WEIGHTS: (
        QT_TRANSLATE_NOOP("Kestrel", "Weights"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Empty for the shipped ones, the name of installed ones, or a .safetensors file of your own.",
        ),
    ),
    BATCH: (
        QT_TRANSLATE_NOOP("Kestrel", "Tiles at a time"),
        QT_TRANSLATE_NOOP("Kestrel", "0 = automatic: one on a CPU, by free memory on a GPU."),
    ),
    DEVICE: (
        QT_TRANSLATE_NOOP("Kestrel", "Device"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "auto takes what the QGIS setting kestrel/device names, else a GPU that works, else the CPU.",
        ),
    ),
}


class NetworkChecks(SceneChecks):
    """Parameters of a network and what can be said against them; stands before the algorithm's base."""

    #: The key of the shipped default in resources/weights/manifest.json; its relatives begin with it.
    DEFAULT_WEIGHTS: ClassVar[str] = ""

    def add_batch_and_device(self) -> None:
        """Add how many tiles run at a time, and where."""
        self.add_number(BATCH, 0, 0, advanced=True)
        self.add_choice(DEVICE, settings.DEVICES, "auto", advanced=True)

    def network_problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Return what is wrong with batch and weights."""
        return self.out_of_range(parameters, BATCH, 0, LARGEST_BATCH, context) or weights_problem(
            self.parameterAsString(parameters, WEIGHTS, context), self.DEFAULT_WEIGHTS, WEIGHTS
        )

    def network_params(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return the weights as the worker finds them, and the batch unless it is automatic."""
        batch = self.parameterAsInt(parameters, BATCH, context)
        weights = for_worker(self.parameterAsString(parameters, WEIGHTS, context))
        return {"weights": weights, **({"batch": batch} if batch else {})}

    def device(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        """Return the device as chosen; ``auto`` is what the setting kestrel/device says."""
        chosen = self.parameterAsString(parameters, DEVICE, context)
        return settings.device() if chosen == "auto" else chosen

    def weights_note(self) -> str:
        """Return what the shipped weights' card says of its limits."""
        entries = shipped()
        names = family(entries, self.DEFAULT_WEIGHTS)
        if entries and not names:
            return tr("No weights come with this version: name a file of your own in WEIGHTS.")
        card = entries.get(self.DEFAULT_WEIGHTS, {}).get("card", {})
        limits = card.get("limits", "") if isinstance(card, dict) else ""
        return tr("Shipped weights: {limits}").format(limits=limits or tr("see their model card."))
