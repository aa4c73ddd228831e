"""kestrel:installruntime - build the Python that runs the models, apart from QGIS's own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingFeedback
from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from ..plugin import paths, settings
from ..plugin.errors import WorkerCancelled, WorkerError
from ..plugin.installing.errors import InstallError
from ..plugin.installing.from_qgis import Network, network
from ..plugin.installing.options import ACCELERATORS, Options
from ..plugin.installing.steps import Request, install_runtime
from ..plugin.runtime import find_runtime
from ..plugin.texts import tr
from .setup_algorithm import DEVICE, FOLDER, VERSIONS, SetupAlgorithm, events_for, failed

PYTHON = "PYTHON"
PYTHON_ARCHIVE = "PYTHON_ARCHIVE"
ARCHIVE_SHA256 = "ARCHIVE_SHA256"
ACCELERATOR = "ACCELERATOR"
WHEELS = "WHEELS"
REBUILD = "REBUILD"


class InstallRuntime(SetupAlgorithm):
    """Finds a Python on the machine and builds a runtime from it below KESTREL_HOME."""

    NAME = "installruntime"
    ICON = "install_runtime.svg"
    TEXTS = {  # noqa: RUF012 (never changed)
        PYTHON: (
            QT_TRANSLATE_NOOP("Kestrel", "Python"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "The interpreter to build on: Python 3.11 to 3.13, 64 bit. Empty: the setting "
                "kestrel/python, the variable KESTREL_PYTHON, then what is found on this machine.",
            ),
        ),
        PYTHON_ARCHIVE: (
            QT_TRANSLATE_NOOP("Kestrel", "Python archive"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "Instead of an installed Python: a .tar.gz of one that runs from any folder. It is unpacked "
                "below KESTREL_HOME.",
            ),
        ),
        ARCHIVE_SHA256: (
            QT_TRANSLATE_NOOP("Kestrel", "SHA-256 of the archive"),
            QT_TRANSLATE_NOOP("Kestrel", "The sum that the archive's maker states; needed with an archive."),
        ),
        ACCELERATOR: (
            QT_TRANSLATE_NOOP("Kestrel", "Accelerator"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "cpu, or cuda for NVIDIA GPUs, which is far larger. auto: cuda where the driver answers.",
            ),
        ),
        WHEELS: (
            QT_TRANSLATE_NOOP("Kestrel", "Folder of wheels"),
            QT_TRANSLATE_NOOP(
                "Kestrel",
                "For machines without a network: a folder filled by `pip download` on a machine with the "
                "same system and Python. Nothing else is asked then.",
            ),
        ),
        REBUILD: (
            QT_TRANSLATE_NOOP("Kestrel", "Build anew"),
            QT_TRANSLATE_NOOP(
                "Kestrel", "Build a new runtime also where a complete one of the same packages exists."
            ),
        ),
    }

    def __init__(self) -> None:
        super().__init__()
        self._network = Network()

    def displayName(self) -> str:
        """Return the name in the toolbox."""
        return tr("Install runtime")

    def tags(self) -> list[str]:
        """Return what people type to find it."""
        return tr("install,setup,python,torch,cuda,gpu,dependencies,pip,offline,proxy").split(",")

    def shortDescription(self) -> str:
        """Return one line for lists."""
        return tr("Installs the Python environment that runs the models; nothing enters QGIS itself.")

    def sections(self) -> list[tuple[str, list[str]]]:
        """Return the help."""
        return [
            (
                "",
                [
                    self.shortDescription(),
                    tr(
                        "Everything goes into a folder of its own below KESTREL_HOME, outside the plugin and "
                        "the profile, so updates of QGIS or Kestrel leave it alone. Sizes are stated before "
                        "the download begins. It can be cancelled at any time: a runtime that was there "
                        "before stays, and the next attempt goes on with what was downloaded."
                    ),
                    tr(
                        "pip's own configuration, proxy and certificates are used, and QGIS's where they "
                        "name none. When something fails, the last sentence says what and what to do; the "
                        "log lies in KESTREL_HOME/logs."
                    ),
                ],
            ),
            (
                tr("Output"),
                [
                    tr(
                        "FOLDER: the runtime's folder. VERSIONS: JSON text, package to version. DEVICE: cpu, "
                        "cuda or mps, what torch can use."
                    )
                ],
            ),
        ]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Add the parameters and declare the outputs."""
        self.add_file(PYTHON, tr("All files (*)"), optional=True, advanced=True)
        self.add_file(PYTHON_ARCHIVE, tr("Archives (*.tar.gz *.tgz)"), optional=True, advanced=True)
        self.add_text(ARCHIVE_SHA256, advanced=True)
        self.add_choice(ACCELERATOR, ACCELERATORS, "auto")
        self.add_folder(WHEELS, optional=True, advanced=True)
        self.add_flag(REBUILD, advanced=True)
        self.add_outputs(device=True)

    def problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Say which path does not exist, or that a sum is missing."""
        python = self._path(parameters, PYTHON, context)
        if python and not python.is_file():
            return tr("PYTHON: {path} does not exist; choose the interpreter's file.").format(path=python)
        archive = self._path(parameters, PYTHON_ARCHIVE, context)
        sha256 = self.parameterAsString(parameters, ARCHIVE_SHA256, context).strip()
        if archive and not archive.is_file():
            return tr("PYTHON_ARCHIVE: {path} does not exist; choose a .tar.gz file.").format(path=archive)
        if archive and not sha256:
            return tr("ARCHIVE_SHA256 is empty; give the sum that the archive's maker states.")
        if sha256 and not archive:
            return tr("ARCHIVE_SHA256 is given without PYTHON_ARCHIVE; choose the archive too.")
        if sha256 and (len(sha256) != 64 or set(sha256.lower()) - set("0123456789abcdef")):
            return tr("ARCHIVE_SHA256 is no sum; it has 64 digits of 0-9 and a-f.")
        wheels = self._path(parameters, WHEELS, context)
        if wheels and not wheels.is_dir():
            return tr("WHEELS: {path} is no folder; choose the one that holds the .whl files.").format(
                path=wheels
            )
        return None

    def prepareAlgorithm(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> bool:
        """Ask QGIS for its proxy and certificates, in the main thread."""
        self._network = network()
        return True

    def processAlgorithm(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> dict[str, Any]:
        """Install and say what is there now; raises when it does not end well."""
        self.refuse(parameters, context)
        if self._network.warning:
            feedback.pushWarning(tr(self._network.warning))
        python = self._path(parameters, PYTHON, context)
        archive = self._path(parameters, PYTHON_ARCHIVE, context)
        # an archive that was chosen now goes before an old setting
        setting = "" if archive else settings.python()
        request = Request(
            python=os.fspath(python) if python else setting,
            archive=archive,
            archive_sha256=self.parameterAsString(parameters, ARCHIVE_SHA256, context).strip().lower(),
        )
        options = Options(
            home=paths.home(),
            accelerator=self.parameterAsEnumString(parameters, ACCELERATOR, context) or "auto",
            wheels=self._path(parameters, WHEELS, context),
            rebuild=self.parameterAsBoolean(parameters, REBUILD, context),
            proxy=self._network.proxy,
            no_proxy=self._network.no_proxy,
            certificates=self._network.certificates,
            qgis_folders=self._network.folders,
        )
        try:
            info = install_runtime(request, options, events_for(feedback), feedback.isCanceled)
        except InstallError as error:
            raise failed(error) from None
        _say_when_another_is_used(os.fspath(info.python), feedback)
        return {
            FOLDER: os.fspath(info.folder),
            VERSIONS: json.dumps(dict(info.versions), sort_keys=True, ensure_ascii=False),
            DEVICE: info.device,
        }

    def _path(self, parameters: dict[str, Any], name: str, context: QgsProcessingContext) -> Path | None:
        text = self.parameterAsString(parameters, name, context).strip()
        return Path(os.path.abspath(os.path.expanduser(text))) if text else None


def _say_when_another_is_used(python: str, feedback: QgsProcessingFeedback) -> None:
    """Warn where a setting or variable names another Python: it goes before every managed runtime."""
    try:
        used = find_runtime(feedback.isCanceled)
    except (WorkerError, WorkerCancelled):
        return
    if os.path.normcase(used.python) != os.path.normcase(python):
        feedback.pushWarning(
            tr(
                "The models go on running with {used}, {reason}; clear that name to use the new runtime."
            ).format(used=used.python, reason=used.reason)
        )
