"""What a result was made from and with: the figures that the sidecar keeps."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import rasterio

from ..models.task import Task
from .scene import Scene, Stamp
from .versions import kestrel_version, package_versions


def versions() -> dict[str, str]:
    """Return the versions of everything that may change a number."""
    found = {name: version for name, version in package_versions().items() if version}
    return {
        "kestrel": kestrel_version(),
        "python": platform.python_version(),
        "gdal": rasterio.__gdal_version__,
        **found,
    }


def inputs(scene: Scene) -> list[dict[str, Any]]:
    """Return path, size in bytes and time stamp (UTC) of every file of a scene."""
    return files(scene.stamps)


def files(stamps: Iterable[Stamp]) -> list[dict[str, Any]]:
    """Return path, size in bytes and time stamp (UTC) of every file that was read."""
    return [
        {
            "path": str(stamp.path),
            "size": stamp.size,
            "modified": datetime.fromtimestamp(stamp.modified_ns / 1e9, UTC).isoformat(),
        }
        for stamp in stamps
    ]


def model(task: Task, fallback: str) -> dict[str, Any]:
    """Return name, version, sha256 and id of a model; the last is what features carry."""
    told = ("version", "sha256", "warnings", "log")  # the last two stand in the result and the log
    notes = {name: value for name, value in task.notes.items() if name not in told}
    return {
        "name": task.name,
        "version": task.notes.get("version", ""),
        "sha256": task.notes.get("sha256", ""),
        "id": task.model_id or fallback,
        "notes": notes,
    }
