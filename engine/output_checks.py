"""Refusals before anything is written: places that cannot take an output, disks that are too full."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from .errors import EngineError


def check_output(output: Path, inputs: Iterable[Path]) -> None:
    """Raise EngineError when ``output`` is a folder, an input, write-protected or in no folder."""
    if output.is_dir():
        raise EngineError("output", f"{output} is a folder, not a file.", "Choose a file name inside it.")
    if not output.parent.is_dir():
        raise EngineError(
            "output", f"The folder {output.parent} does not exist.", "Create it or choose another folder."
        )
    if not output.exists():
        return
    if not output.is_file():
        raise EngineError("output", f"{output} is not a plain file.", "Choose another file.")
    for path in inputs:
        if path.exists() and os.path.samefile(path, output):
            raise EngineError(
                "output",
                f"The output {output} is also an input, which would be lost.",
                "Choose another file for the output.",
            )
    if not os.access(output, os.W_OK):
        raise EngineError(
            "output", f"{output} exists and is write-protected.", "Choose another file or unprotect it."
        )


def check_space(folder: Path, bytes_needed: int, name: str) -> None:
    """Raise EngineError when ``folder`` has less free space than ``name`` may need, in bytes."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise EngineError(
            "output", f"The folder {folder} cannot be used: {error.strerror}.", "Choose another folder."
        ) from None
    if bytes_needed > free:
        raise EngineError(
            "output",
            f"{name} may need {_gigabytes(bytes_needed)}, but {folder} has {_gigabytes(free)} free.",
            "Free some space, write to another disk, or set EXTENT or AOI to process a part.",
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e9:.3f} GB"
