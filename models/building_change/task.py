"""SSA-Net as a Task: checked weights become a network, two dates of a tile a probability of change.

Specification 08, sections 5 and 10. SSIF takes means and variances over the whole tile, so that a
probability belongs to a tile size: one TILE for the scene, no margin, never halved; the engine blends
over the overlap.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..device import torch_device, use_threads
from ..from_card import card_warnings, fill_network, other_tile, weights_notes
from ..scaling import stretch_from
from ..task import Card, Input, ModelError, Scale, SceneInfo, Task, Tiles
from ..weights import Weights, find_weights, load_weights
from .network import SSANet
from .predict import normalised

#: The manifest's key of the shipped default.
DEFAULT_WEIGHTS = "building_change"
ROLES = ("before", "after")
OVERLAP = 64
#: H and W are multiples of this (network.py).
MULTIPLE = 16
#: Above this one tile of a pair alone needs several gigabytes.
LARGEST_TILE = 1024
#: Below two values in each channel at the bottom a variance over the tile means nothing.
SMALLEST_TILE = 32
#: Side in pixels of the least ground that both dates share (specification, section 10).
SMALLEST_SIDE = 256
#: The paper's, where a card names none; and the least building, where none names its mapping unit.
THRESHOLD = 0.5
MIN_AREA_M2 = 50.0
HINT = "Choose weights made for building change."
MEANING = (
    "The mask says where a building appeared or went, not which of both; the earlier date must be BEFORE, "
    "the network answers otherwise when the dates are swapped."
)

#: Limits of what a card may ask for, four times the paper's: they decide how much is built before any
#: comparison with the file is possible. The network checks everything else itself.
_LARGEST = {"width": 128, "groups": 64}


def build(params: Mapping[str, Any], weights: str, device: str, scene: SceneInfo) -> Task:
    """Load the weights and return the Task; raises ModelError in one sentence.

    ``params``: ``stretch_min``, ``stretch_max``, ``tile``; missing = default. ``weights``: the
    parameter WEIGHTS as typed. ``device``: ``cpu``, ``cuda`` or ``mps``. ``scene`` is not looked at:
    the engine knows the ground that both dates share.
    """
    scale = stretch_from(params)
    loaded = load_weights(*find_weights(weights, DEFAULT_WEIGHTS))
    net = build_network(loaded)
    card, name = loaded.card, loaded.path.name
    mean, std = normalisation(card, name)
    warnings = [
        MEANING,
        *_tile_warnings(params.get("tile"), card),
        *card_warnings(card),
        *_stretch_warnings(card, scale),
    ]
    use_threads()
    target = torch_device(device)
    net = net.eval().requires_grad_(False).to(target)
    # 13 % faster than contiguous, with folded normalisation (specification, section 11)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # no fill may be a difference between the dates
    inputs = tuple(Input(role, 3, card.gsd, scale, fill="other", pad="reflect") for role in ROLES)
    return Task(
        name="building_change",
        inputs=inputs,
        kind="scores",
        tile=card.tile,
        multiple=MULTIPLE,
        margin=0,
        shrinkable=False,
        outputs=("change",),
        prepare=functools.partial(prepare, device=target),
        predict=functools.partial(predict, net=net, mean=mean, std=std),
        overlap=lambda tile: OVERLAP,
        pair=True,
        smallest=SMALLEST_SIDE,
        model_id=loaded.model_id,
        notes={
            **weights_notes(loaded),
            "threshold": card_threshold(card, name),
            "min_area": card_min_area(card, name),
            "warnings": warnings,
        },
    )


def build_network(weights: Weights) -> SSANet:
    """Return the network the card describes, filled with the file's tensors; raises ModelError."""
    config = network_config(weights.card, weights.path.name)
    return fill_network(SSANet, config, weights, HINT)


def network_config(card: Card, name: str) -> dict[str, Any]:
    """Return the card's network arguments, checked as far as their size goes; raises ModelError."""
    config = card.extra.get("config")
    if not isinstance(config, Mapping):
        raise ModelError(f"{name} ({card.name}) finds no change: its card has no network settings.", HINT)
    for key, largest in _LARGEST.items():
        value = config.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
            raise ModelError(
                f"{name} asks for a network of {key} {str(value)[:40]}; it must be from 1 to {largest}.", HINT
            )
    if card.bands != 3 or config.get("in_channels", 3) != 3:
        bands = config.get("in_channels", 3) if card.bands == 3 else card.bands
        raise ModelError(f"{name} wants {str(bands)[:40]} bands; building change reads three.", HINT)
    if card.tile % MULTIPLE or not SMALLEST_TILE <= card.tile <= LARGEST_TILE:
        raise ModelError(
            f"{name} was made for tiles of {card.tile} pixels; building change takes multiples of "
            f"{MULTIPLE} from {SMALLEST_TILE} to {LARGEST_TILE}.",
            HINT,
        )
    return dict(config)


def normalisation(card: Card, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of each band, of values in 0..1, as trained; raises ModelError."""
    found = []
    for key in ("mean", "std"):
        values = card.extra.get(key)
        if not isinstance(values, list | tuple) or len(values) != 3 or not all(map(_finite, values)):
            raise ModelError(f"{name} does not say the {key} of its three bands as numbers.", HINT)
        found.append(tuple(map(float, values)))
    if min(found[1]) <= 0:
        raise ModelError(f"{name} says a std of {min(found[1]):g}; it must be above 0.", HINT)
    return found[0], found[1]


def card_threshold(card: Card, name: str) -> float:
    """Return the probability from which a pixel counts as changed; raises ModelError."""
    value = card.extra.get("threshold", THRESHOLD)
    if not _finite(value) or not 0 < value < 1:
        raise ModelError(f"{name} has the threshold {str(value)[:40]}; it must lie between 0 and 1.", HINT)
    return float(value)


def card_min_area(card: Card, name: str) -> float:
    """Return the area in m2 below which no polygon is made, the minimum mapping unit; raises ModelError."""
    value = card.extra.get("min_area_m2", MIN_AREA_M2)
    if not _finite(value) or value < 0:
        raise ModelError(f"{name} has the least area {str(value)[:40]}; it must be 0 or more m2.", HINT)
    return float(value)


def prepare(tiles: Tiles, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return both dates, each (B, 3, T, T) float32 in 0..1 on the device."""
    before, after = (
        torch.from_numpy(np.ascontiguousarray(tiles.images[role], dtype=np.float32)).to(device)
        for role in ROLES
    )
    return before, after


@torch.inference_mode()
def predict(
    dates: tuple[Tensor, Tensor], *, net: SSANet, mean: tuple[float, ...], std: tuple[float, ...]
) -> list[np.ndarray]:
    """Return each tile's probability of change, float32 (1, T, T); both dates normalised alike."""
    logits = net(*(normalised(date, mean, std) for date in dates))
    return list(torch.sigmoid(logits).float().contiguous().cpu().numpy())


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _tile_warnings(typed: Any, card: Card) -> list[str]:
    """Refuse a TILE that the network cannot take, warn of one that it was not measured with."""
    if not other_tile(typed, card, MULTIPLE, SMALLEST_TILE, LARGEST_TILE):
        return []
    return [
        f"The weights {card.name} are made for tiles of {card.tile} pixels, not {typed:g}: "
        "the network takes statistics over a tile, so probabilities can differ."
    ]


def _stretch_warnings(card: Card, scale: Scale) -> list[str]:
    """Say which stretch a user's weights learned with, unless it is that of bytes or the one typed."""
    pairs = card.extra.get("stretch")
    if not isinstance(pairs, list) or len(pairs) != 3 or not all(map(_is_pair, pairs)):
        return []
    learned = tuple(zip(*pairs, strict=True))
    typed = tuple(values * 3 if len(values) == 1 else values for values in (scale.lows, scale.highs))
    if set(map(tuple, pairs)) == {(0, 255)} or (scale.lows and np.allclose(typed, learned, rtol=1e-4)):
        return []
    low, high = (",".join(f"{value:.6g}" for value in values) for values in learned)
    return [
        f"The weights {card.name} learned with STRETCH_MIN={low} and STRETCH_MAX={high}: give the same for "
        "rasters whose values mean the same."
    ]


def _is_pair(found: Any) -> bool:
    return isinstance(found, list) and len(found) == 2 and all(map(_finite, found))
