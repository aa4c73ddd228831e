"""Weight files: the only door through which learned numbers enter, and the only way they are written.

A file is safetensors with one card in its metadata (key ``kestrel``). It is read into memory once;
hash, header, card, shapes and values are checked on those same bytes, so that what was checked is
what is used. Nothing in a weight file is ever executed. Rules: ENGINE.md, section 9;
CONTRACTS.md, section 7.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as to_safetensors

from .card import card_from_json, card_summary, card_to_json
from .manifest import MANIFEST, find_weights, read_manifest, write_atomically, write_manifest
from .task import Card, ModelError

__all__ = [
    "Weights",
    "check_keys",
    "find_weights",
    "load_into",
    "load_weights",
    "save_weights",
    "update_manifest",
]

#: The metadata key that holds the card.
CARD_KEY = "kestrel"
#: safetensors' own limit; a header above it is an attack on the JSON parser's memory.
MAX_HEADER_BYTES = 100_000_000
#: A file is read into memory as a whole; no model of ours comes near this.
MAX_FILE_BYTES = 2 << 30

#: dtypes a network's state may have -> bytes. int64 is BatchNorm's num_batches_tracked.
DTYPES = {"F16": 2, "BF16": 2, "F32": 4, "I64": 8}

#: How foreign checkpoints begin: a zip (torch.save since 1.6) and pickle's protocol opcodes 2 to 5.
_FOREIGN = {b"PK": "a zip archive, as torch.save writes it", b"\x80": "a Python pickle"}
_CONVERT = "Kestrel loads only safetensors with a Kestrel card; choose such a file in WEIGHTS."

#: Buffers that lose too much in half precision, wherever they stand in a network.
_FLOAT32_SUFFIXES = ("running_mean", "running_var")


@dataclass(frozen=True)
class Weights:
    """A checked weight file: its card, its tensors as stored (half or float32), hash and place."""

    card: Card
    tensors: dict[str, torch.Tensor]
    sha256: str
    path: Path

    @property
    def model_id(self) -> str:
        """The field ``model`` of every feature: ``<name>@<first 12 of sha256>``."""
        return f"{self.card.name}@{self.sha256[:12]}"


def load_weights(path: str | Path, expected_sha256: str | None) -> Weights:
    """Read and check a weight file; raises ModelError with one sentence on the first thing wrong.

    ``expected_sha256`` comes from manifest.json and is compared before anything is parsed; None
    for weights a user trained, which stand in no manifest: every other check still holds.
    """
    path = Path(path)
    data = _read(path)
    sha256 = hashlib.sha256(data).hexdigest()
    if expected_sha256 is not None and sha256 != expected_sha256.lower():
        raise ModelError(
            f"{path.name} is not the file Kestrel shipped: its sha256 is {sha256[:12]}..., "
            f"manifest.json says {expected_sha256[:12].lower()}...",
            "Restore the file (git checkout, or install the weights again), "
            "or load your own weights under another name.",
        )
    card, tensors = _parse(data, path.name)
    return Weights(card, tensors, sha256, path)


def save_weights(
    path: str | Path, tensors: Mapping[str, torch.Tensor], card: Card, buffers: Collection[str] = ()
) -> str:
    """Write a weight file atomically and return its sha256.

    Parameters are stored in half precision; BatchNorm's running statistics and the names in
    ``buffers`` (pass ``dict(module.named_buffers())``) in float32; whole numbers as int64. The bytes
    are checked as :func:`load_weights` would before they reach the disk. Raises ModelError when a
    value is not finite or does not fit half precision, OSError when the disk refuses.
    """
    path = Path(path)
    stored = {name: _stored(tensor, name, buffers) for name, tensor in tensors.items()}
    data = to_safetensors(stored, metadata={CARD_KEY: card_to_json(card)})
    _parse(data, path.name)
    write_atomically(path, data)
    return hashlib.sha256(data).hexdigest()


def check_keys(tensors: Mapping[str, torch.Tensor], module: torch.nn.Module, name: str) -> None:
    """Refuse tensors that are not exactly the network's: names and shapes; ``name`` is the file's.

    ``module`` may live on torch's meta device: nothing of its size is allocated by this check.
    """
    wanted = module.state_dict()
    missing = sorted(set(wanted) - set(tensors))
    extra = sorted(set(tensors) - set(wanted))
    if missing or extra:
        parts = [f"lacks {_listed(missing)}"] if missing else []
        parts += [f"has {_listed(extra)} which the network does not know"] if extra else []
        raise ModelError(
            f"{name} does not fit the network: it {' and '.join(parts)}.",
            "Choose weights trained with this version and these settings.",
        )
    for key, tensor in wanted.items():
        if tensor.shape != tensors[key].shape:
            raise ModelError(
                f"{name} does not fit the network: {key} is {_shape(tensors[key].shape)}, "
                f"the network needs {_shape(tensor.shape)}.",
                "Choose weights trained with this version and these settings.",
            )


def load_into(module: torch.nn.Module, weights: Weights) -> None:
    """Copy checked weights into ``module`` (float32), names and shapes exactly; raises ModelError."""
    check_keys(weights.tensors, module, weights.path.name)
    module.load_state_dict(weights.tensors, strict=True)


def update_manifest(path: str | Path, name: str, pack: str = "") -> None:
    """Enter the weight file at ``path`` as ``name`` into the manifest beside it.

    Hash, size, status and the card's summary are the file's, which must pass every check of
    :func:`load_weights`.
    """
    path = Path(path)
    manifest = path.parent / MANIFEST
    weights = load_weights(path, None)
    entries = read_manifest(manifest)
    entries[name] = {
        "file": path.name,
        "sha256": weights.sha256,
        "size": path.stat().st_size,
        "status": weights.card.status,
        "pack": pack,
        "card": card_summary(weights.card),
    }
    write_manifest(entries, manifest)


def _read(path: Path) -> bytes:
    """Return the file's bytes; the size is looked at first, so a huge file costs nothing."""
    if not path.exists():
        raise ModelError(f"Weights not found: {path}.", "Check WEIGHTS, or leave it empty for the default.")
    if not path.is_file():
        raise ModelError(f"Weights must be a .safetensors file; {path} is not a file.")
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ModelError(f"{path.name} has {size / 2**30:.1f} GiB; weights have at most 2 GiB.")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}.", "Check the file's permissions."
        ) from None


def _parse(data: bytes, name: str) -> tuple[Card, dict[str, torch.Tensor]]:
    """Return card and tensors of a file's bytes, everything checked but the hash."""
    header = _header(data, name)
    card = _card(header, name)
    try:
        tensors = parse_safetensors(data)
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{name} is not a valid safetensors file: {error}.", _CONVERT) from None
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                f"{name} holds NaN or infinite values in {key}.",
                "The training failed or the file is damaged; choose another file.",
            )
    return card, tensors


def _header(data: bytes, name: str) -> dict[str, Any]:
    """Return the header as checked JSON: every tensor's dtype, shape and place in the file agree."""
    for magic, words in _FOREIGN.items():
        # a genuine file could begin with these bytes only if its header were absurdly long or
        # exactly that long: the brace of the JSON behind the eight length bytes decides
        if data.startswith(magic) and data[8:9] != b"{":
            raise ModelError(f"{name} is {words}, not safetensors; it was not opened.", _CONVERT)
    length = int.from_bytes(data[:8], "little")
    if data[8:9] != b"{":
        raise ModelError(f"{name} is not a safetensors file.", _CONVERT)
    if length > MAX_HEADER_BYTES:
        raise ModelError(
            f"{name} declares a header of {length / 1e6:.0f} MB; at most 100 MB are allowed.", _CONVERT
        )
    if length > len(data) - 8:
        raise ModelError(f"{name} is cut off: its header is longer than the file.", "Copy the file again.")
    try:
        header = json.loads(data[8 : 8 + length], object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError):
        raise ModelError(f"{name} has a damaged header.", _CONVERT) from None
    _check_layout(header, len(data) - 8 - length, name)
    return header


def _check_layout(header: dict[str, Any], size: int, name: str) -> None:
    """Refuse a header whose tensors do not fill the ``size`` bytes behind it exactly, in order."""
    places = []
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise ModelError(f"{name} describes {_short(key)} in a way that is not safetensors.", _CONVERT)
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise ModelError(f"{name} stores {_short(key)} as {_short(dtype)}; allowed: {', '.join(DTYPES)}.")
        if not (_whole(shape) and _whole(offsets) and len(offsets) == 2 and len(shape) <= 8):
            raise ModelError(f"{name} gives {_short(key)} an impossible shape or place.", _CONVERT)
        needed = DTYPES[dtype]
        for side in shape:
            needed *= side
        if needed != offsets[1] - offsets[0] or offsets[1] > size:
            raise ModelError(
                f"{name} declares {_short(key)} as {_shape(shape)} {dtype}, but holds less data.",
                _CONVERT,
            )
        places.append((offsets[0], offsets[1]))
    end = 0
    for start, stop in sorted(places):
        if start != end:
            raise ModelError(f"{name} has tensors that overlap or leave gaps.", _CONVERT)
        end = stop
    if end != size or not places:
        raise ModelError(f"{name} holds {size} bytes of data but describes {end}.", _CONVERT)


def _card(header: dict[str, Any], name: str) -> Card:
    """Return the card in the header's metadata; raises ModelError when it is missing or wrong."""
    metadata = header.get("__metadata__", {})
    text = metadata.get(CARD_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ModelError(f"{name} has no Kestrel card.", _CONVERT)
    try:
        return card_from_json(text)
    except ModelError as error:
        raise ModelError(f"{name}: {error.message}", _CONVERT) from None


def _stored(tensor: torch.Tensor, name: str, buffers: Collection[str]) -> torch.Tensor:
    """Return the tensor as the file holds it: a contiguous copy of its own, in the stored dtype."""
    tensor = tensor.detach().to("cpu", copy=True).contiguous()
    if not tensor.is_floating_point():
        return tensor.to(torch.int64)
    if name in buffers or name.endswith(_FLOAT32_SUFFIXES):
        return tensor.float()
    half = tensor.half()
    if bool(torch.isinf(half).any()) and not bool(torch.isinf(tensor).any()):
        raise ModelError(f"{name} holds {float(tensor.abs().max()):.3g}, too large for half precision.")
    return half


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object; a key twice is refused, since two readers could choose differently."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


def _whole(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _shape(sides: Collection[int]) -> str:
    return " x ".join(map(str, sides))[:80] or "a single number"


def _short(value: Any) -> str:
    return repr(value)[:80]


def _listed(names: list[str]) -> str:
    """Name up to three tensors, count the rest."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({', '.join(n[:80] for n in names[:3])}{more})"
    )
