"""kestrel:runtimestatus - which Python runs the models, what it has, and what to do about the rest."""

from __future__ import annotations

import html
import json
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

from qgis.core import (
    Qgis,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingUtils,
)
from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from ..engine.job import Job
from ..plugin import paths, sidecar
from ..plugin.destination import file_problem
from ..plugin.errors import WorkerCancelled, WorkerError
from ..plugin.installing import installed
from ..plugin.runtime import HINT, candidates
from ..plugin.texts import tr
from ..plugin.weight_files import added, shipped
from ..plugin.worker import run_job
from .base import REPORT
from .setup_algorithm import DEVICE, FOLDER, VERSIONS, SetupAlgorithm


class RuntimeStatus(SetupAlgorithm):
    """Looks at the runtime and says what it saw; a missing runtime is a finding, not a failure."""

    NAME = "runtimestatus"
    ICON = "status.svg"
    TEXTS = {  # noqa: RUF012 (never changed)
        REPORT: (
            QT_TRANSLATE_NOOP("Kestrel", "Report"),
            QT_TRANSLATE_NOOP("Kestrel", "The same text as an HTML page, made when a file is given."),
        ),
    }

    def displayName(self) -> str:
        """Return the name in the toolbox."""
        return tr("Runtime status")

    def tags(self) -> list[str]:
        """Return what people type to find it."""
        return tr("install,python,torch,gpu,cuda,version,diagnostics,help,weights").split(",")

    def shortDescription(self) -> str:
        """Return one line for lists."""
        return tr("Says which Python runs the models and why, its versions, devices and weights.")

    def sections(self) -> list[tuple[str, list[str]]]:
        """Return the help."""
        return [
            (
                "",
                [
                    self.shortDescription(),
                    tr(
                        "The log shows a text that can be pasted into a report of a problem, and what to do "
                        "when something is missing. Nothing is installed or changed. It succeeds also where "
                        "no runtime exists."
                    ),
                ],
            ),
            (
                tr("Output"),
                [
                    tr(
                        "FOLDER: where logs, caches and runtimes lie. VERSIONS: JSON text with everything "
                        "found. DEVICE: what the device auto means here, cpu, cuda or mps; empty without a "
                        "runtime."
                    )
                ],
            ),
        ]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Add the report and declare the outputs."""
        self.add_report()
        self.add_outputs(device=True)

    def problem(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """Check the report's path."""
        report = self._report(parameters, context)
        return file_problem(report, REPORT, {}) if report else None

    def processAlgorithm(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> dict[str, Any]:
        """Ask the worker, say what it answered; raises only when cancelled or the report fails."""
        self.refuse(parameters, context)
        try:
            found = _look(feedback)
        except WorkerCancelled:
            raise QgsProcessingException(tr("Cancelled.")) from None
        text = _text(found)
        feedback.pushInfo(text)
        for advice in found["advice"]:
            feedback.pushWarning(advice)
        outputs = {
            FOLDER: os.fspath(paths.home()),
            VERSIONS: json.dumps(found, sort_keys=True, ensure_ascii=False),
            DEVICE: _device(found["worker"].get("devices") or []),
        }
        report = self._report(parameters, context)
        if report:
            try:
                sidecar.write_text(report, _page(text, found["advice"]))
            except OSError as error:
                raise QgsProcessingException(
                    tr("REPORT: {path} could not be written ({reason}).").format(path=report, reason=error)
                ) from None
            outputs[REPORT] = report
        return outputs

    def _report(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        if parameters.get(REPORT) in (None, ""):
            return ""
        return self.parameterAsFileOutput(parameters, REPORT, context)


def _look(feedback: QgsProcessingFeedback) -> dict[str, Any]:
    """Return everything found: QGIS's side, the interpreters looked at, the worker's answer, advice."""
    looked = candidates(feedback.isCanceled)
    usable = next((candidate for candidate in looked if candidate.usable), None)
    found: dict[str, Any] = {
        "kestrel": paths.kestrel_version(),
        "qgis": Qgis.QGIS_VERSION,
        "qgis_python": platform.python_version(),
        "system": platform.platform(),
        "home": os.fspath(paths.home()),
        "looked": [
            {"source": c.source, "python": c.python, "usable": c.usable, "reason": c.reason} for c in looked
        ],
        "python": usable.python if usable else "",
        "why": usable.reason if usable else "",
        "runtimes": _runtimes(),
        "added_weights": added(),
        "worker": {},
        "log": "",
        "advice": [],
    }
    if usable is None:
        found["advice"] = [tr("No Python that can run the models was found."), HINT]
    else:
        _ask_worker(found, feedback)
    # one whose base has vanished is worth a word also where another Python takes its place
    now = installed.state(paths.home())
    if now.status not in ("ready", "none"):
        found["advice"].append(f"{now.message} {now.hint}")
    if not shipped():
        found["advice"].append(
            tr("No weights are shipped: use kestrel:detectshipscfar, or name a .safetensors file in WEIGHTS.")
        )
    return found


def _runtimes() -> list[dict[str, Any]]:
    """Return the managed runtimes, newest first, with what is wrong with each ("" = nothing)."""
    return [
        {
            "folder": os.fspath(info.folder),
            "base": os.fspath(info.base),
            "accelerator": info.accelerator,
            "device": info.device,
            "problem": installed.problem(info),
        }
        for info in installed.state(paths.home()).complete
    ]


def _ask_worker(found: dict[str, Any], feedback: QgsProcessingFeedback) -> None:
    scratch = tempfile.mkdtemp(prefix="kestrel-", dir=QgsProcessingUtils.tempFolder())
    try:
        result = run_job(
            Job(kind="status", model="", inputs={}, outputs={}, params={}, scratch=scratch), feedback
        )
        found["worker"] = result.get("figures", {})
        found["log"] = result.get("log", "")
        found["advice"] = list(result.get("warnings", []))
        if found["worker"].get("missing"):
            found["advice"].append(_how_to_complete(found["python"], found["worker"]["missing"]))
    except WorkerError as error:
        found["log"] = error.log
        found["advice"] = [error.text()]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _how_to_complete(python: str, missing: list[str]) -> str:
    """Return how the packages that a runtime lacks get there: ours is rebuilt, others are their owner's."""
    if paths.runtimes_folder() in Path(python).parents:
        return tr("The installed runtime lacks {names}: run kestrel:installruntime with REBUILD.").format(
            names=", ".join(missing)
        )
    return tr("Install what is missing into {python}: {python} -m pip install {names}").format(
        python=python, names=" ".join(missing)
    )


def _device(devices: list[dict[str, str]]) -> str:
    """Return what ``auto`` means: the first accelerator, else the CPU."""
    names = [str(device.get("name")) for device in devices]
    return next((name for name in names if name != "cpu"), names[0] if names else "")


def _text(found: dict[str, Any]) -> str:
    """Return the text a user can paste."""
    worker = found["worker"]
    lines = [
        f"Kestrel {found['kestrel']}, QGIS {found['qgis']} with Python {found['qgis_python']}",
        f"System: {found['system']}",
        f"Folder: {found['home']}",
        f"Runtime: {found['python'] or 'none'}" + (f" ({found['why']})" if found["why"] else ""),
    ]
    for place in found["looked"]:
        mark = "used" if place["usable"] else "no"
        lines.append(f"  looked at {place['source']}: {mark} - {place['reason']}")
    for runtime in found["runtimes"]:
        state = {"": "ready", "base_missing": f"its base {runtime['base']} has vanished"}
        lines.append(
            f"  installed: {runtime['folder']}, {runtime['accelerator']} build, "
            f"{state.get(runtime['problem'], 'damaged')}"
        )
    if worker:
        lines.append(f"Python: {worker['python']['version']}, {worker['python']['path']}")
        packages = [f"{name} {version or 'missing'}" for name, version in worker["packages"].items()]
        lines.append(f"Packages: {', '.join(packages)}")
        devices = [f"{device['name']} ({device['detail']})" for device in worker["devices"]]
        note = f"; {worker['device_note']}" if worker.get("device_note") else ""
        lines.append(f"Devices: {', '.join(devices)}{note}")
        checks = [f"{name}: {state}" for name, state in worker.get("checks", {}).items()]
        lines.append(f"Checks: {', '.join(checks)}")
        for weights in worker.get("weights", []):
            lines.append(
                f"Weights: {weights['name']} ({weights['status']}), {weights['state']}, "
                f"sha256 {str(weights['sha256'])[:12]}"
            )
    if not worker.get("weights"):
        lines += [f"Weights: {name} (not checked)" for name in sorted(shipped())] or ["Weights: none shipped"]
    for weights in found["added_weights"]:
        lines.append(
            f"Weights added: {weights['name']}, for {weights['model'] or 'no model of this version'}"
        )
    if found["log"]:
        lines.append(f"Log: {found['log']}")
    lines += [f"To do: {advice}" for advice in found["advice"]]
    return "\n".join(lines)


def _page(text: str, advice: list[str]) -> str:
    """Return the report: one static page, everything escaped."""
    todo = "".join(f"<li>{html.escape(line)}</li>" for line in advice)
    state = f"<h2>What to do</h2><ul>{todo}</ul>" if todo else "<p>Everything that is needed was found.</p>"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Kestrel runtime status</title>'
        "</head><body><h1>Kestrel runtime status</h1>"
        f"{state}<h2>Text to paste</h2><pre>{html.escape(text)}</pre></body></html>\n"
    )
