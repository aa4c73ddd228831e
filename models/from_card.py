"""What every task with a network takes from its weight file: the network itself, notes and warnings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from .task import Card, ModelError
from .weights import Weights, check_keys, load_into

Net = TypeVar("Net", bound=torch.nn.Module)


def fill_network(make: Callable[..., Net], config: Mapping[str, Any], weights: Weights, hint: str) -> Net:
    """Return the network of these arguments, filled with the file's tensors; raises ModelError.

    Names and shapes are compared on torch's meta device first, so that a card asking for a huge
    network allocates nothing.
    """
    name = weights.path.name
    try:
        with torch.device("meta"):
            sketch = make(**config)
    except (TypeError, ValueError, IndexError) as error:
        raise ModelError(f"{name} describes a network that cannot be built: {error}.", hint) from None
    check_keys(weights.tensors, sketch, name)
    net = make(**config)
    load_into(net, weights)
    return net


def weights_notes(weights: Weights) -> dict[str, Any]:
    """Return what a Task's notes say of its weights."""
    return {
        "weights": weights.card.name,
        "version": weights.card.version,
        "sha256": weights.sha256,
        "status": weights.card.status,
        "file": str(weights.path),
    }


def card_warnings(card: Card) -> list[str]:
    """Return what a user should know of these weights before trusting the result."""
    if card.status == "preliminary":
        return [f"The weights {card.name} {card.version} are preliminary: {card.limits}".rstrip(": ")]
    return []


def other_tile(typed: Any, card: Card, multiple: int, smallest: int, largest: int) -> bool:
    """Say whether TILE is typed and not the card's; raises ModelError where the network cannot take it."""
    if not typed:
        return False
    if isinstance(typed, bool) or not isinstance(typed, int | float) or typed % multiple:
        raise ModelError(f"TILE is {typed!r}, it must be a multiple of {multiple}, such as {card.tile}.")
    if not smallest <= typed <= largest:
        raise ModelError(f"TILE is {typed:g}, it must be from {smallest} to {largest} pixels.")
    return bool(typed != card.tile)
