"""A card as JSON and back, checked field by field: what a weight file says of itself.

A card comes out of a file that anybody may have made, so nothing in it is believed before its
type is known. Fields: models/task.py; contract: CONTRACTS.md, section 7.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from .task import Card, ModelError

STATUSES = ("released", "preliminary")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_classes(value: Any) -> bool:
    names = isinstance(value, list | tuple) and value and all(_is_text(v) and v for v in value)
    return bool(names) and len(set(value)) == len(value)


def _is_range(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))
    return bool(pair) and 0 <= value[0] <= value[1]


def _is_data(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_object, value))


#: field -> (what it must be, in words; the check)
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("text", lambda value: _is_text(value) and bool(value)),
    "version": ("text", _is_text),
    "paper": ("text", _is_text),
    "preset": ("text", _is_text),
    "parameters": ("a whole number", _is_count),
    "classes": ("a list of different names", _is_classes),
    "bands": ("a whole number from 1", lambda value: _is_count(value) and value >= 1),
    "gsd": ("two numbers, smallest first", _is_range),
    "scaling": ("text", _is_text),
    "tile": ("a whole number from 1", lambda value: _is_count(value) and value >= 1),
    "data": ("a list of objects", _is_data),
    "seed": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "command": ("text", _is_text),
    "figures": ("an object", _is_object),
    "limits": ("text", _is_text),
    "status": (f"one of {', '.join(STATUSES)}", lambda value: value in STATUSES),
    "extra": ("an object", _is_object),
}


def card_to_json(card: Card) -> str:
    """Return the card as one line of JSON; raises ModelError when a field has the wrong type."""
    fields = dataclasses.asdict(card)
    _check(fields)
    try:
        return json.dumps(fields, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ModelError(f"The card of {card.name} cannot be written as JSON: {error}.") from None


def card_from_json(text: str) -> Card:
    """Read a card; raises ModelError naming the field that is unknown, missing or of a wrong type."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise ModelError("The card is not JSON.") from None
    if not isinstance(fields, dict):
        raise ModelError(f"The card must be a JSON object, not {type(fields).__name__}.")
    fields.setdefault("extra", {})
    _check(fields)
    for name in ("classes", "gsd", "data"):
        fields[name] = tuple(fields[name])
    return Card(**fields)


def _check(fields: Mapping[str, Any]) -> None:
    """Refuse fields that the card does not have, lacks, or holds with another type."""
    unknown = sorted(set(fields) - set(_FIELDS))
    if unknown:
        raise ModelError(f"The card has unknown fields: {', '.join(map(repr, unknown[:5]))}.")
    missing = sorted(set(_FIELDS) - set(fields))
    if missing:
        raise ModelError(f"The card lacks the fields {', '.join(missing)}.")
    for name, (words, check) in _FIELDS.items():
        if not check(fields[name]):
            raise ModelError(f"The card's {name} must be {words}, not {str(fields[name])[:80]!r}.")


def card_summary(card: Card) -> dict[str, Any]:
    """Return what manifest.json shows of a card: enough to choose a file without opening it."""
    names = ("name", "version", "paper", "preset", "parameters", "classes", "gsd", "limits", "figures")
    fields = dataclasses.asdict(card)
    return {name: list(fields[name]) if name in ("classes", "gsd") else fields[name] for name in names}
