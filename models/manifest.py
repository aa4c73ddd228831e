"""Which weight files there are: resources/weights/manifest.json, and what WEIGHTS may name.

The manifest holds what a file cannot say of itself, above all its own sha256. It is one object:
``name -> {"file", "sha256", "size", "status", "pack", "card"}``; ``pack`` is the download that
brings the file when the plugin itself does not ("" = it does), ``card`` the card's summary. No torch
here: what is installed can be told without it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from .card import STATUSES
from .task import ModelError

#: Where the shipped weights lie, and the manifest's name in that folder.
FOLDER = Path(__file__).resolve().parent.parent / "resources" / "weights"
MANIFEST = "manifest.json"
SUFFIX = ".safetensors"


def read_manifest(path: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return the manifest (ours by default), every entry checked; an absent file is an empty one."""
    path = path or FOLDER / MANIFEST
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}.", "Install the plugin again.") from None
    if not isinstance(entries, dict):
        raise ModelError(f"{path} must hold one JSON object.", "Install the plugin again.")
    for name, entry in entries.items():
        if not isinstance(entry, dict) or not _valid(entry):
            raise ModelError(f"{path} has a damaged entry {name!r}.", "Install the plugin again.")
    return entries


def _valid(entry: dict[str, Any]) -> bool:
    """Say whether an entry is whole; the file must be a bare name, never a way out of its folder."""
    file, sha256 = entry.get("file"), entry.get("sha256")
    return (
        isinstance(file, str)
        and re.fullmatch(r"[\w.-]+\.safetensors", file) is not None
        and isinstance(sha256, str)
        and re.fullmatch(r"[0-9a-f]{64}", sha256) is not None
        and isinstance(entry.get("size"), int)
        and entry.get("status") in STATUSES
        and isinstance(entry.get("pack"), str)
        and isinstance(entry.get("card"), dict)
    )


def find_weights(typed: str, default_key: str) -> tuple[Path, str | None]:
    """Resolve the parameter WEIGHTS to a file and the sha256 it must have (None: a user's own).

    ``typed``: "" = the default of ``default_key``, a name in the manifest, the name of a file in
    KESTREL_HOME/weights without its ending, or a path. Raises ModelError when nothing is there.
    """
    typed = typed.strip()
    entries = read_manifest()
    name = default_name(default_key, entries) if typed in ("", default_key) else typed
    if name in entries:
        return _installed(name, entries[name]), entries[name]["sha256"]
    if not typed:
        raise ModelError(
            f"No weights are shipped for {default_key}.", "Choose a .safetensors file in WEIGHTS."
        )
    own = home() / "weights" / f"{typed}{SUFFIX}"
    if re.fullmatch(r"[\w.-]+", typed) and own.is_file():
        return own, None
    path = Path(typed).expanduser()
    if path.suffix.lower() != SUFFIX:
        known = f"known names: {', '.join(sorted(entries))}" if entries else "no names are known yet"
        raise ModelError(
            f"WEIGHTS {typed!r} is neither a {SUFFIX} file nor a known name.",
            f"Choose a {SUFFIX} file, or leave WEIGHTS empty for the default ({known}).",
        )
    return path, _shipped_sha256(path, entries)


def default_name(key: str, entries: dict[str, dict[str, Any]]) -> str:
    """Return the name of a model's default: ``key``, unless only a relative of it is released.

    Relatives are the entries named ``<key>_...``. Preliminary weights are the default only where
    nothing released exists (CONTRACTS.md, section 7).
    """
    family = [name for name in sorted(entries) if name == key or name.startswith(f"{key}_")]
    released = [name for name in family if entries[name]["status"] == "released"]
    if key in released or not (released or family):
        return key
    return (released or ([key] if key in family else family))[0]


def _installed(name: str, entry: dict[str, Any]) -> Path:
    """Return where a manifest entry's file lies: with the plugin or in KESTREL_HOME/weights."""
    for folder in (FOLDER, home() / "weights"):
        path = folder / entry["file"]
        if path.is_file():
            return path
    source = f"the pack {entry['pack']!r}" if entry["pack"] else "the plugin"
    raise ModelError(f"The weights {name!r} are not installed.", f"Install {source} again.")


def _shipped_sha256(path: Path, entries: dict[str, dict[str, Any]]) -> str | None:
    """Return the manifest's hash when ``path`` is a shipped file by its place, else None."""
    for entry in entries.values():
        if path.resolve() == (FOLDER / entry["file"]).resolve():
            return entry["sha256"]
    return None


def write_manifest(entries: dict[str, dict[str, Any]], path: Path) -> None:
    """Write the manifest atomically, names sorted, so that a diff shows only what changed."""
    text = json.dumps(entries, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode("utf-8"))


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path``, flush it to the disk, then rename: all of it or nothing."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def home() -> Path:
    """Return KESTREL_HOME, else the platform's data folder + ``kestrel`` (CONTRACTS.md, section 1)."""
    if os.environ.get("KESTREL_HOME"):
        return Path(os.environ["KESTREL_HOME"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "kestrel"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "kestrel"
    return Path.home() / ".local" / "share" / "kestrel"
