"""What can be known of weight files without a runtime: names, places, and whether a file is one.

The worker checks hash, header and tensors; here only what a person can get wrong is caught early.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from . import paths
from .texts import tr

FOLDER = paths.ROOT / "resources" / "weights"
SUFFIX = ".safetensors"

#: A longer header is refused by the worker as well (ENGINE.md, section 9).
_HEADER_LIMIT = 100_000_000


def shipped() -> dict[str, dict[str, Any]]:
    """Return resources/weights/manifest.json; a missing or damaged one is empty."""
    try:
        entries = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {name: entry for name, entry in entries.items() if isinstance(entry, dict)}


def weights_problem(typed: str, default: str, label: str) -> str | None:
    """Say why the parameter ``label`` names no weights, or return None.

    ``typed``: "" for the shipped default of the model ``default``, a name, or a path.
    """
    typed = typed.strip()
    entries = shipped()
    if typed in ("", default):
        family = [name for name in entries if name == default or name.startswith(f"{default}_")]
        if any(_installed(entries[name]) for name in family):
            return None
        return tr(
            "{label}: the shipped weights {name} are not installed; install the plugin again "
            "or choose a {suffix} file."
        ).format(label=label, name=default, suffix=SUFFIX)
    if typed in entries:
        if _installed(entries[typed]):
            return None
        return tr("{label}: the weights {name} are not installed; install {pack} first.").format(
            label=label, name=typed, pack=entries[typed].get("pack") or tr("the plugin again")
        )
    if re.fullmatch(r"[\w.-]+", typed) and (paths.home() / "weights" / f"{typed}{SUFFIX}").is_file():
        return None
    return _file_problem(typed, entries, label)


def for_worker(typed: str) -> str:
    """Return WEIGHTS for the worker, whose folder is another one: names stay, paths become whole."""
    typed = typed.strip()
    if not typed.lower().endswith(SUFFIX) or typed in shipped():
        return typed
    return os.path.abspath(os.path.expanduser(typed))


def _installed(entry: dict[str, Any]) -> bool:
    name = os.path.basename(str(entry.get("file", "")))
    return bool(name) and any((folder / name).is_file() for folder in (FOLDER, paths.home() / "weights"))


def _file_problem(typed: str, entries: dict[str, dict[str, Any]], label: str) -> str | None:
    path = os.path.expanduser(typed)
    if not path.lower().endswith(SUFFIX):
        return tr(
            "{label}: {typed} is neither a {suffix} file nor a known name; "
            "leave it empty for the default, or use one of: {names}."
        ).format(label=label, typed=typed, suffix=SUFFIX, names=", ".join(sorted(entries)) or tr("none"))
    if not os.path.isfile(path):
        return tr("{label}: {path} does not exist; choose an existing {suffix} file.").format(
            label=label, path=path, suffix=SUFFIX
        )
    if not _looks_right(path):
        return tr(
            "{label}: {path} is not a safetensors file, whatever its name says; nothing in it is run."
        ).format(label=label, path=path)
    return None


def _looks_right(path: str) -> bool:
    """Whether the file starts like one: the header's length, then a JSON object of that length."""
    try:
        with open(path, "rb") as file:
            start = file.read(9)
        size = os.path.getsize(path)
    except OSError:
        return False
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and length <= min(_HEADER_LIMIT, size - 8)
