"""Refusals before anything is written: places that cannot take an output, disks that are too full."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from .errors import EngineError

#: Characters of a name that is too long for the file system which a message repeats.
_SHOWN = 60


def check_output(output: Path, inputs: Iterable[Path]) -> None:
    """Raise EngineError when ``output`` is a folder, an input, write-protected or in no folder."""
    try:
        os.lstat(output)
    except (FileNotFoundError, NotADirectoryError):
        pass  # said more plainly below
    except OSError as error:
        name = output.name if len(output.name) <= _SHOWN else f"{output.name[:_SHOWN]}..."
        raise EngineError(
            "output",
            f"{output.with_name(name)} cannot be written: {(error.strerror or str(error)).lower()}.",
            "Choose another file name or folder.",
        ) from None
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
            f"{name} may need {_readable(bytes_needed)}, but {folder} has {_readable(free)} free.",
            "Free some space, write to another disk, or set EXTENT or AOI to process a part.",
        )


def _readable(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
