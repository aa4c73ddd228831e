"""DWTMA-Net as a Task: checked weights become a network, hazy tiles become clear ones.

Specification 07, sections 5 and 10. The network sees a tile as a whole (channel means, Fourier
transform), so a pixel's result depends on the tile's size: one TILE for the raster, no margin, the
engine blends over the overlap. The means are taken over the scene instead (pooling.py), so that
neighbouring tiles get one tone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..device import torch_device, use_threads
from ..from_card import card_warnings, fill_network, other_tile, weights_notes
from ..scaling import stretch_from
from ..task import Block, Card, Input, ModelError, SceneInfo, Task, Tiles
from ..weights import Weights, find_weights, load_weights
from .dense import DenseCount
from .network import DWTMANet
from .pooling import Samples, pooled_means, with_means

#: The manifest's key of the shipped default.
DEFAULT_WEIGHTS = "dehazing"
OVERLAP = 64
#: H and W are multiples of this (network.py).
MULTIPLE = 8
#: Above this one tile alone needs several gigabytes.
LARGEST_TILE = 1024
#: A raster below has too little around each pixel for statistics over it to mean anything.
SMALLEST_SIDE = 64
#: From this share of a scene on a user hears of what cannot be restored.
DENSE_SHARE = 0.01
HINT = "Choose weights made for dehazing."
NOT_REFLECTANCE = (
    "Dehazed values are for the eye: they are not reflectance, do not compute indices from them."
)

#: Limits of what a card may ask for, each several times the paper's: they decide how much is built
#: before any comparison with the file is possible. The network checks everything else itself.
_LARGEST = {
    "widths": 256,
    "depths": 16,
    "dw_kernel": 31,
    "wdm_kernel": 7,
    "fam_layers": 4,
    "expansion": 8,
    "ca_reduction": 64,
}


def build(params: Mapping[str, Any], weights: str, device: str, scene: SceneInfo) -> Task:
    """Load the weights and return the Task; raises ModelError in one sentence.

    ``params``: ``stretch_min``, ``stretch_max``, ``tile``; missing = default. ``weights``: the
    parameter WEIGHTS as typed. ``device``: ``cpu``, ``cuda`` or ``mps``.
    """
    if min(scene.width, scene.height) < SMALLEST_SIDE:
        raise ModelError(
            f"The raster is {scene.width} x {scene.height} pixels; "
            f"dehazing needs at least {SMALLEST_SIDE} along each side."
        )
    scale = stretch_from(params)
    loaded = load_weights(*find_weights(weights, DEFAULT_WEIGHTS))
    net = build_network(loaded)
    card = loaded.card
    warnings = [NOT_REFLECTANCE, *_tile_warnings(params.get("tile"), card), *card_warnings(card)]
    use_threads()
    target = torch_device(device)
    net = net.eval().requires_grad_(False).to(target)
    task = Task(
        name="dehazing",
        inputs=(Input("image", bands=3, gsd=card.gsd, scale=scale, fill="nearest", pad="reflect"),),
        kind="raster",
        tile=card.tile,
        multiple=MULTIPLE,
        margin=0,
        shrinkable=False,
        outputs=("red (stretched, 0 to 1)", "green (stretched, 0 to 1)", "blue (stretched, 0 to 1)"),
        prepare=functools.partial(prepare, device=target),
        predict=functools.partial(predict, net=net),
        overlap=lambda tile: OVERLAP,
        change=True,
        model_id=loaded.model_id,
        notes={
            **weights_notes(loaded),
            "warnings": warnings,
        },
    )
    # one tile sees the whole scene: its own means are the scene's, as in the paper
    pooled = max(scene.width, scene.height) > int(params.get("tile") or card.tile)
    return replace(task, survey=functools.partial(_survey, task, net, pooled))


def build_network(weights: Weights) -> DWTMANet:
    """Return the network the card describes, filled with the file's tensors; raises ModelError."""
    config = network_config(weights.card, weights.path.name)
    return fill_network(DWTMANet, config, weights, HINT)


def network_config(card: Card, name: str) -> dict[str, Any]:
    """Return the card's network arguments, checked as far as their size goes; raises ModelError."""
    config = card.extra.get("config")
    if not isinstance(config, Mapping):
        raise ModelError(f"{name} ({card.name}) removes no haze: its card has no network settings.", HINT)
    for key, largest in _LARGEST.items():
        value = config.get(key, 1)
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, bool) or not isinstance(each, int) or not 0 <= each <= largest:
                raise ModelError(
                    f"{name} asks for a network of {key} {str(value)[:40]}; at most {largest}.", HINT
                )
    if card.bands != 3:
        raise ModelError(f"{name} wants {card.bands} bands; dehazing reads three.", HINT)
    if card.tile % MULTIPLE or not SMALLEST_SIDE <= card.tile <= LARGEST_TILE:
        raise ModelError(
            f"{name} was made for tiles of {card.tile} pixels; "
            f"dehazing takes multiples of {MULTIPLE} from {SMALLEST_SIDE} to {LARGEST_TILE}.",
            HINT,
        )
    return dict(config)


def prepare(tiles: Tiles, *, device: torch.device) -> Tensor:
    """Return (B, 3, T, T) float32 in 0..1 on the device."""
    return torch.from_numpy(np.ascontiguousarray(tiles.images["image"], dtype=np.float32)).to(device)


def predict(images: Tensor, *, net: DWTMANet) -> list[np.ndarray]:
    """Return each tile without haze, float32 (3, T, T) in 0..1.

    The network works in -1..1 and its answer is cut to that. What it adds is added to the tile as it
    came, so that a pixel that is left alone stays exact.
    """
    return list(restore(images, net).cpu().numpy())


@torch.inference_mode()
def restore(images: Tensor, net: DWTMANet) -> Tensor:
    """(B, 3, H, W) in 0..1 -> the same without haze; H and W multiples of 8, the network in eval mode.

    Not in channels_last: convolutions would gain what Fourier transforms lose (0.67 and 0.70 s of
    processor time for a tile of 512, preset ``small``).
    """
    hazy = 2 * images - 1
    change = net(hazy).clamp_(-1, 1).sub_(hazy)
    return change.mul_(0.5).add_(images).contiguous()


def _survey(task: Task, net: DWTMANet, pooled: bool, blocks: Iterator[Block]) -> Task:
    """Return the task for this scene: pooled statistics where asked for, a warning of dense haze."""
    count, kept = DenseCount(), Samples(MULTIPLE)
    for block in blocks:
        count.add(block)
        if pooled:
            kept.add(block)
    notes = dict(task.notes)
    if len(kept):
        scene_net = with_means(net, pooled_means(net, kept))
        task = replace(task, predict=functools.partial(predict, net=scene_net))
        told = f"Means that the network takes over a picture come from {len(kept)} blocks of the scene."
        notes["log"] = [*notes.get("log", ()), told]
    if count.share >= DENSE_SHARE:
        warning = (
            f"About {100 * count.share:.0f} % of the scene is bright and without detail, as dense haze, "
            "cloud and bright even ground are: nothing can be brought back there."
        )
        notes["warnings"] = [*notes["warnings"], warning]
    return replace(task, notes=notes)


def _tile_warnings(typed: Any, card: Card) -> list[str]:
    """Refuse a TILE that the network cannot take, warn of one that it was not measured with."""
    if not other_tile(typed, card, MULTIPLE, SMALLEST_SIDE, LARGEST_TILE):
        return []
    return [
        f"The weights {card.name} were measured with tiles of {card.tile} pixels, not {typed:g}: "
        "the network takes statistics over a tile, so tones can differ."
    ]
