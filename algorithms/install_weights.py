"""kestrel:installweights - put a pack of weights, or a single file, where every algorithm finds it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingFeedback
from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from ..plugin import paths
from ..plugin.installing.errors import InstallError
from ..plugin.installing.weight_packs import install_weights, pack_problem
from ..plugin.texts import tr
from ..plugin.weight_files import shipped
from .setup_algorithm import FOLDER, VERSIONS, SetupAlgorithm, failed

PACK = "PACK"
SHA256 = "SHA256"


class InstallWeights(SetupAlgorithm):
    """Checks what it is given and copies it below KESTREL_HOME; all of it or nothing."""

    NAME = "installweights"
    ICON = "install_weights.svg"
    TEXTS = {  # noqa: RUF012 (never changed)
        PACK: (
            QT_TRANSLATE_NOOP("Kestrel", "Pack or file"),
            QT_TRANSLATE_NOOP(
                "Kestrel", "A pack (.zip) as Kestrel's releases offer them, or a single .safetensors file."
            ),
        ),
        SHA256: (
            QT_TRANSLATE_NOOP("Kestrel", "SHA-256"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "The sum that the maker of the pack or file states for it. Not needed for weights that this "
                "version of Kestrel knows.",
            ),
        ),
    }

    def displayName(self) -> str:
        """Return the name in the toolbox."""
        return tr("Install weights")

    def tags(self) -> list[str]:
        """Return what people type to find it."""
        return tr("install,weights,model,pack,download,safetensors,offline").split(",")

    def shortDescription(self) -> str:
        """Return one line for lists."""
        return tr("Installs a pack of weights or a .safetensors file for all algorithms it fits.")

    def sections(self) -> list[tuple[str, list[str]]]:
        """Return the help."""
        return [
            (
                "",
                [
                    self.shortDescription(),
                    tr(
                        "Sum, card and tensors are checked first; what is wrong is refused in one sentence "
                        "and nothing is changed then. Nothing in a weight file is ever run, and no runtime "
                        "and no network are needed. Afterwards the weights stand in the list WEIGHTS of "
                        "every algorithm whose model they belong to, under their file's name."
                    ),
                ],
            ),
            (
                tr("Output"),
                [
                    tr(
                        "FOLDER: where the weights lie. VERSIONS: JSON text with name, model, status and "
                        "sha256 of each file."
                    )
                ],
            ),
        ]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Add the parameters and declare the outputs."""
        self.add_file(PACK, tr("Packs and weights (*.zip *.safetensors)"))
        self.add_text(SHA256)
        self.add_outputs(device=False)

    def problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Say what is wrong with the pack's path or the sum's form."""
        pack, sha256 = self._given(parameters, context)
        if not os.fspath(pack).strip("."):
            return tr("PACK is empty; choose a pack (.zip) or a .safetensors file.")
        problem = pack_problem(pack, sha256)
        return problem.text() if problem else None

    def processAlgorithm(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> dict[str, Any]:
        """Install and say what lies where; raises when something was refused."""
        self.refuse(parameters, context)
        pack, sha256 = self._given(parameters, context)
        try:
            files = install_weights(
                pack,
                sha256,
                shipped(),
                paths.home(),
                progress=lambda fraction: feedback.setProgress(100.0 * fraction),
                cancelled=feedback.isCanceled,
            )
        except InstallError as error:
            raise failed(error) from None
        told = []
        for file in files:
            told.append(
                {"name": file.path.stem, "model": file.model, "status": file.status, "sha256": file.sha256}
            )
            feedback.pushInfo(
                tr("Installed {path}: weights of {model} ({status}), sha256 {sha256}.").format(
                    path=file.path, model=file.model, status=file.status, sha256=file.sha256
                )
            )
            if file.replaced:
                feedback.pushWarning(
                    tr("{name} took the place of another file of that name.").format(name=file.path.name)
                )
        return {
            FOLDER: os.fspath(paths.home() / "weights"),
            VERSIONS: json.dumps(told, sort_keys=True, ensure_ascii=False),
        }

    def _given(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[Path, str]:
        pack = self.parameterAsString(parameters, PACK, context).strip()
        return Path(os.path.expanduser(pack)), self.parameterAsString(parameters, SHA256, context)
