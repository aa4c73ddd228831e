"""Check a weight file with the standard library alone: what it is, its card, its tensors' places.

What a header can show is checked here, before a file reaches KESTREL_HOME/weights: that it is
safetensors, that its tensors fill the file exactly, that the card names a model of this version and
as many parameters as the file holds, and that tensors are those of the same model's weights that lie
here already. Values, and a network nobody has here yet, are the worker's to check when it loads the
file. Nothing in a file is ever executed, and of its tensors nothing is read.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InstallError

SUFFIX = ".safetensors"
#: A network of ten thousand tensors fills 2 MB; QGIS parses no more than this of a stranger's file.
HEADER_LIMIT = 4_000_000
#: The worker reads no larger file either.
FILE_LIMIT = 2 << 30

_BYTES = {"F16": 2, "BF16": 2, "F32": 4, "I64": 8}
_FOREIGN = {b"PK": "a zip archive, as torch.save writes it", b"\x80": "a Python pickle"}
#: What a network remembers beside its parameters.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_CHOOSE = "Choose a .safetensors file with a Kestrel card, or a Kestrel pack."


@dataclass(frozen=True)
class Header:
    """What a weight file says of itself: the card, and each tensor's (dtype, shape)."""

    card: Mapping[str, Any]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]


def read_header(path: Path, name: str) -> Header:
    """Return the checked header of the file at ``path``, called ``name`` in sentences.

    Raises InstallError (``weights``), OSError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if start[8:] != b"{":
            for magic, words in _FOREIGN.items():
                if start.startswith(magic):
                    raise _refused(f"{name} is {words}, not safetensors; nothing in it was run.")
            raise _refused(f"{name} is not a safetensors file, whatever its name says.")
        if size > FILE_LIMIT:
            raise _refused(f"{name} has {size / 2**30:.1f} GiB; weights have at most 2 GiB.")
        if length > size - 8:
            raise _refused(f"{name} is cut off: its header is longer than the file.", "Get the file again.")
        if length > HEADER_LIMIT:
            raise _refused(f"{name} declares a header of {length / 1e6:.0f} MB; at most 4 MB are allowed.")
        text = start[8:] + file.read(length - 1)
    try:
        told = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError):
        raise _refused(f"{name} has a damaged header.") from None
    return Header(_card(told.pop("__metadata__", {}), name), _tensors(told, size - 8 - length, name))


def model_of(card: Mapping[str, Any], shipped: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the model whose weights ``card`` describes, by its paper, else by its name; "" = none.

    ``shipped``: the manifest's entries, whose shortest name of a family is the model's.
    """
    paper = _paper(card)
    names = sorted(shipped, key=len)
    for name in names:
        if paper and paper == _paper(shipped[name].get("card")):
            return name
    own = str(card.get("name") or "")
    # a paper that is not the namesake's belongs to another model
    same = (name for name in names if own == name or own.startswith(f"{name}_"))
    return next((name for name in same if not (paper and _paper(shipped[name].get("card")))), "")


def check_shapes(header: Header, others: Sequence[Header], name: str) -> None:
    """Refuse tensors that are not those of the network that the card names; raises InstallError.

    ``others``: headers of weights of the same model that lie here.
    """
    tensors = header.tensors
    sides = {
        key: (kind, math.prod(shape)) for key, (kind, shape) in tensors.items() if not key.endswith(_BUFFERS)
    }
    most = sum(count for kind, count in sides.values() if kind != "I64")
    # Kestrel stores parameters in half precision, buffers never
    least = sum(count for kind, count in sides.values() if kind in ("F16", "BF16"))
    parameters = header.card["parameters"]
    if not least <= parameters <= most:
        raise _refused(f"{name} holds {most} numbers, its card says {parameters} parameters.")
    for other in others:
        if _network(other.card) != _network(header.card):
            continue
        for key in sorted(set(tensors) | set(other.tensors)):
            mine, theirs = tensors.get(key), other.tensors.get(key)
            if mine is None or theirs is None or mine[1] != theirs[1]:
                raise _refused(
                    f"{name} does not fit the network {header.card['preset']} of {other.card['name']}: "
                    f"{key[:80]} is {_shape(mine)}, the network needs {_shape(theirs)}.",
                    "Choose weights trained with this version of Kestrel.",
                )


def _card(metadata: Any, name: str) -> dict[str, Any]:
    text = metadata.get("kestrel") if isinstance(metadata, dict) else None
    try:
        card = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        card = None
    if not isinstance(card, dict):
        raise _refused(f"{name} has no Kestrel card.")
    for field, kind in (("name", str), ("paper", str), ("preset", str), ("parameters", int), ("status", str)):
        if not isinstance(card.get(field), kind) or isinstance(card[field], bool):
            raise _refused(f"{name} has a damaged card: its {field} is {str(card.get(field))[:80]!r}.")
    return card


def _tensors(told: Mapping[str, Any], size: int, name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtype and shape by name; the tensors must fill the ``size`` bytes behind exactly."""
    tensors, places = {}, []
    for key, entry in told.items():
        try:
            kind, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
            whole = all(type(number) is int and number >= 0 for number in (*shape, start, stop))
            fits = whole and len(shape) <= 8 and _BYTES[kind] * math.prod(shape) == stop - start
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            raise _refused(f"{name} describes {key[:80]!r} in a way that weights of Kestrel never have.")
        tensors[key] = (kind, tuple(shape))
        places.append((start, stop))
    end = 0
    for start, stop in sorted(places):
        if start != end:
            raise _refused(f"{name} has tensors that overlap or leave gaps.")
        end = stop
    if end != size or not places:
        raise _refused(f"{name} holds {size} bytes of data but describes {end}.", "Get the file again.")
    return tensors


def _network(card: Mapping[str, Any]) -> tuple[Any, ...]:
    extra = card.get("extra")
    return card["preset"], extra.get("network") if isinstance(extra, dict) else None


def _paper(card: Any) -> str:
    """Return the number that a card's paper begins with, "" where there is none."""
    text = card.get("paper") if isinstance(card, Mapping) else None
    found = re.match(r"\d+", text) if isinstance(text, str) else None
    return found.group() if found else ""


def _shape(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    if tensor is None:
        return "nothing"
    return " x ".join(map(str, tensor[1])) or "one number"


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


def _refused(message: str, hint: str = _CHOOSE) -> InstallError:
    return InstallError("weights", message, hint)


def file_name_problem(name: str) -> str:
    """Say why ``name`` cannot be a weight file's in KESTREL_HOME/weights, or return ""."""
    if re.fullmatch(r"[A-Za-z0-9_][\w.-]*\.safetensors", name, re.ASCII) and os.path.basename(name) == name:
        return ""
    return f"{name[:80]!r} is no name for weights: letters, digits, dots, - and _ and the ending {SUFFIX}."
