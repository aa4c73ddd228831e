"""What can be known of weight files without a runtime: names, places, and whether a file is one.

The worker checks hash, header and tensors; here only what a person can get wrong is caught early.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import paths
from .installing.weight_check import SUFFIX, model_of
from .texts import tr

FOLDER = paths.ROOT / "resources" / "weights"

#: A longer header is refused by the worker as well (ENGINE.md, section 9).
_HEADER_LIMIT = 100_000_000
#: What is read of a header to see whose weights they are; a network of ten thousand tensors fills 2 MB.
_CARD_LIMIT = 4_000_000


def shipped() -> dict[str, dict[str, Any]]:
    """Return resources/weights/manifest.json; a missing or damaged one is empty."""
    try:
        entries = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {name: entry for name, entry in entries.items() if isinstance(entry, dict)}


def family(entries: Mapping[str, Any], model: str) -> list[str]:
    """Return the names of a model's weights in the manifest: the default's key and its relatives."""
    return [name for name in entries if name == model or name.startswith(f"{model}_")]


def offered(model: str) -> list[str]:
    """Return the names that a dialog lists for a model (CONTRACTS.md, section 7).

    Those released that came with the plugin, and whatever somebody installed that fits.
    """
    entries = shipped()
    released = {
        name
        for name in family(entries, model)
        if entries[name].get("status") == "released" and _installed(entries[name])
    }
    return sorted(released | {file["name"] for file in added() if file["model"] == model})


def added() -> list[dict[str, str]]:
    """Return the weights in KESTREL_HOME/weights: ``name`` as WEIGHTS takes it, ``model`` ("" = unknown).

    A file of the manifest has its name there, any other its own without the ending.
    """
    entries = shipped()
    keys = {str(entry.get("file")): name for name, entry in entries.items()}
    return [
        {
            "name": keys.get(path.name, path.stem),
            "model": model_of(read_card(os.fspath(path)), entries),
        }
        for path in sorted((paths.home() / "weights").glob(f"*{SUFFIX}"))
        if re.fullmatch(r"\w[\w.-]*", path.stem)
    ]


def read_card(path: str) -> dict[str, Any]:
    """Return the card in a weight file as it stands there, unchecked; {} where none can be read."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= _CARD_LIMIT else {}
        card = json.loads(header["__metadata__"]["kestrel"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return card if isinstance(card, dict) else {}


def weights_problem(typed: str, default: str, label: str) -> str | None:
    """Say why the parameter ``label`` names no weights, or return None.

    ``typed``: "" for the shipped default of the model ``default``, a name, or a path.
    """
    typed = typed.strip()
    entries = shipped()
    names = family(entries, default)
    if typed in ("", default):
        return _default_problem(entries, names, default, label)
    if typed in entries:
        if typed not in names:
            return tr(
                "{label}: {name} are weights of another model; choose weights made for {model}."
            ).format(label=label, name=typed, model=default)
        if _installed(entries[typed]):
            return None
        return tr("{label}: the weights {name} are not installed; install {pack} first.").format(
            label=label, name=typed, pack=entries[typed].get("pack") or tr("the plugin again")
        )
    own = paths.home() / "weights" / f"{typed}{SUFFIX}"
    if re.fullmatch(r"[\w.-]+", typed) and own.is_file():
        return _stranger_problem(os.fspath(own), entries, names, label)
    path = os.path.expanduser(typed)
    return _file_problem(path, names, label) or _stranger_problem(path, entries, names, label)


def for_worker(typed: str) -> str:
    """Return WEIGHTS for the worker, whose folder is another one: names stay, paths become whole."""
    typed = typed.strip()
    if not typed.lower().endswith(SUFFIX) or typed in shipped():
        return typed
    return os.path.abspath(os.path.expanduser(typed))


def _installed(entry: dict[str, Any]) -> bool:
    name = os.path.basename(str(entry.get("file", "")))
    return bool(name) and any((folder / name).is_file() for folder in (FOLDER, paths.home() / "weights"))


def _default_problem(
    entries: Mapping[str, dict[str, Any]], names: Sequence[str], default: str, label: str
) -> str | None:
    """Say why the default of a model cannot be had; ``names``: its family in the manifest."""
    if any(_installed(entries[name]) for name in names):
        return None
    if entries and not names:
        return tr("{label}: no weights for {name} come with this version; choose a {suffix} file.").format(
            label=label, name=default, suffix=SUFFIX
        )
    return tr(
        "{label}: the shipped weights {name} are not installed; install {pack} or choose a {suffix} file."
    ).format(
        label=label,
        name=default,
        pack=next((pack for name in names if (pack := entries[name].get("pack"))), tr("the plugin again")),
        suffix=SUFFIX,
    )


def _stranger_problem(
    path: str, entries: Mapping[str, dict[str, Any]], names: Sequence[str], label: str
) -> str | None:
    """Say so when the card names the paper of another model's shipped weights; the worker sees the rest."""
    paper = _paper(read_card(path))
    for name, entry in entries.items():
        if paper and name not in names and paper == _paper(entry.get("card")):
            return tr("{label}: {path} holds weights of another model ({name}); choose others.").format(
                label=label, path=path, name=name
            )
    return None


def _paper(card: Any) -> str:
    """Return the number that a card's paper begins with, "" where there is none."""
    text = card.get("paper") if isinstance(card, dict) else None
    found = re.match(r"\d+", text) if isinstance(text, str) else None
    return found.group() if found else ""


def _file_problem(path: str, names: Iterable[str], label: str) -> str | None:
    if not path.lower().endswith(SUFFIX):
        return tr(
            "{label}: {typed} is neither a {suffix} file nor a known name; "
            "leave it empty, or use one of: {names}."
        ).format(label=label, typed=path, suffix=SUFFIX, names=", ".join(sorted(names)) or tr("none"))
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
