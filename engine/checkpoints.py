"""Where interrupted trainings wait (CONTRACTS.md, section 7): KESTREL_HOME/cache/training/<hash>/."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..models.manifest import home
from ..models.trainable import Crops
from .errors import EngineError
from .events import Track
from .job import Job
from .versions import kestrel_version

#: A checkpoint that nobody came back to for so long is swept.
KEPT_DAYS = 30


def checkpoint_folder(job: Job) -> Path:
    """Return where a Job's checkpoint lies: under the hash of the Job without its scratch folder.

    A layer that QGIS exported for the run lies in that folder too.
    """
    fields = dataclasses.asdict(job)
    if job.scratch:
        for entry in fields["inputs"].values():
            path = Path(entry["path"])
            if path.is_relative_to(job.scratch):
                entry["path"] = str(path.relative_to(job.scratch))
    fields["scratch"] = ""
    text = json.dumps(fields, sort_keys=True, allow_nan=False)
    return home() / "cache" / "training" / hashlib.sha256(text.encode()).hexdigest()[:32]


def prepare_folder(job: Job, crops: Crops, key: str, track: Track) -> Path:
    """Return the folder, made, and emptied where it is of other pixels, another start or another version.

    ``key``: of what the training starts from. Raises EngineError where nothing can be written.
    """
    folder = checkpoint_folder(job)
    digest = hashlib.blake2b(f"{kestrel_version()} {key}".encode(), digest_size=16)
    for role, images in crops.images.items():
        digest.update(role.encode())
        digest.update(np.ascontiguousarray(images).data)
    mark = folder / "made_from"
    try:
        _sweep(folder.parent)
        if folder.exists() and (not mark.exists() or mark.read_text() != digest.hexdigest()):
            shutil.rmtree(folder)
            track.info("The layers or the base weights have changed, so the training starts anew.")
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(digest.hexdigest())
    except OSError as error:
        raise EngineError(
            "output",
            f"The folder {folder} for the checkpoint cannot be written: {str(error.strerror).lower()}.",
            "Make it writable, free some space, or name another folder in KESTREL_HOME.",
        ) from error
    return folder


def _sweep(root: Path) -> None:
    """Remove what was abandoned long ago."""
    if not root.is_dir():
        return
    for folder in root.iterdir():
        with suppress(OSError):
            newest = max((file.stat().st_mtime for file in folder.iterdir()), default=folder.stat().st_mtime)
            if time.time() - newest > KEPT_DAYS * 24 * 3600:
                shutil.rmtree(folder, ignore_errors=True)
