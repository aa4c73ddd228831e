"""The sidecar JSON: what made an output, so that it can be made again (CONTRACTS.md, section 5)."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import shutil
from collections.abc import Mapping
from typing import Any

from qgis.core import (
    QgsMapLayer,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingOutputLayerDefinition,
    QgsProperty,
    QgsReferencedRectangle,
)

from . import paths


def provenance(
    algorithm: str,
    parameters: Mapping[str, Any],
    inputs: list[dict[str, Any]],
    figures: Mapping[str, Any],
    warnings: list[str],
) -> dict[str, Any]:
    """Return the sidecar's content.

    ``parameters``: as typed, already made plain by :func:`plain`. ``inputs``: :func:`all_inputs`.
    ``figures``, ``warnings``: from the worker's result.
    """
    return {
        "kestrel": paths.kestrel_version(),
        "algorithm": algorithm,
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": figures.get("model"),
        "parameters": dict(parameters),
        "parameters_used": figures.get("params_used"),
        "versions": figures.get("versions"),
        "device": figures.get("device"),
        "scaling": figures.get("scaling"),
        "inputs": inputs,
        "tiles": {
            "run": figures.get("tiles_run"),
            "skipped": figures.get("tiles_skipped"),
            "total": figures.get("tiles_total"),
        },
        "seconds": figures.get("seconds"),
        "pixels": {"valid": figures.get("valid_pixels"), "invalid": figures.get("invalid_pixels")},
        "count": figures.get("count"),
        "warnings": list(warnings),
    }


def stamps(files: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return parameter, path, size in bytes and time stamp (UTC) of ``files``, parameter -> path."""
    found = []
    for parameter, path in files.items():
        status = os.stat(path)
        modified = datetime.datetime.fromtimestamp(status.st_mtime_ns / 1e9, datetime.timezone.utc)
        stamp = {"path": path, "size": status.st_size, "modified": modified.isoformat()}
        found.append({"parameter": parameter, **stamp})
    return found


def all_inputs(files: list[dict[str, Any]], seen: list[dict[str, Any]], scratch: str) -> list[dict[str, Any]]:
    """Return ``files`` (:func:`stamps`) and what the worker opened besides, such as a VRT's sources.

    Its copies in ``scratch`` are left out: they are gone when somebody reads this.
    """
    known = {entry["path"] for entry in files}
    own = os.path.join(os.path.realpath(scratch), "")
    return files + [
        entry for entry in seen if entry["path"] not in known and not entry["path"].startswith(own)
    ]


def plain(value: Any) -> Any:
    """Return a parameter's value as JSON can hold it; layers by their source without passwords."""
    if isinstance(value, QgsProcessingOutputLayerDefinition):
        value = value.sink
    if isinstance(value, QgsProcessingFeatureSourceDefinition):
        source = plain(value.source)
        return {"source": source, "selected": True} if value.selectedFeaturesOnly else source
    if isinstance(value, QgsProperty):
        fixed = value.propertyType() == QgsProperty.Type.StaticProperty
        return plain(value.staticValue()) if fixed else value.asExpression()
    if isinstance(value, QgsMapLayer):
        return value.publicSource()
    if isinstance(value, QgsReferencedRectangle):
        return f"{value.toString(12)} [{value.crs().authid()}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return str(value)


def write_sidecar(path: str, content: Mapping[str, Any]) -> None:
    """Write ``content`` to ``path`` in one step; raises OSError and then leaves the old one."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    _replace(path, lambda part: _write_text(part, text + "\n"))


def copy_file(source: str, path: str) -> None:
    """Copy ``source`` to ``path`` in one step; raises OSError and then leaves the old file."""
    _replace(path, lambda part: shutil.copyfile(source, part))


def write_text(path: str, text: str) -> None:
    """Write ``text`` to ``path`` in one step; raises OSError and then leaves the old file."""
    _replace(path, lambda part: _write_text(part, text))


def _write_text(part: str, text: str) -> None:
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)


def _replace(path: str, fill: Any) -> None:
    """Fill a part file beside ``path``, force it to the disk and rename it to ``path``."""
    folder, name = os.path.split(os.path.abspath(path))
    part = os.path.join(folder, f".{name}.{os.getpid()}.part")
    try:
        fill(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
