"""The ship detector as a Task: checked weights become a network, tiles become boxes.

Specification 01, section 5. What concerns the whole scene - statistics, NMS, lengths, land - is the
engine's; here a tile is seen alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..device import torch_device, use_threads
from ..from_card import card_warnings, fill_network, weights_notes
from ..scaling import scale_from
from ..task import Card, Input, ModelError, SceneInfo, Task, Tiles
from ..weights import Weights, find_weights, load_weights
from .network import SarShipNet, decode

TILE = 640
#: The manifest's key of the shipped default.
DEFAULT_WEIGHTS = "sar_ships"
HINT = "Choose weights made for ship detection."
CONFIDENCE = 0.25
#: Grey of the padding around rasters smaller than a tile (specification, section 5).
PAD = 114 / 255
#: The longest ship afloat is 400 m: an overlap of that length holds every ship whole in one tile.
OVERLAP_M = 400.0
MIN_OVERLAP = 128
#: Candidates kept of a 640 px tile before the scene's NMS, by score; more for larger tiles. It only
#: bounds memory at confidences near 0, where all 25 200 would pass: a ship is seen by at most
#: 3 cells x 3 anchors x 3 levels, so 3000 hold every candidate of 111 ships in one tile, and of
#: more ships the best ones.
MAX_CANDIDATES = 3000

#: Limits of what a card may ask for. The network checks its other arguments itself; these two decide
#: how many layers are built before any comparison with the file is possible.
_LARGEST = {"width": 2.0, "depth": 2.0}


def build(params: Mapping[str, Any], weights: str, device: str, scene: SceneInfo) -> Task:
    """Load the weights and return the Task; raises ModelError in one sentence.

    ``params``: ``scale_mode``, ``scale_min``, ``scale_max``, ``confidence``; missing = default.
    ``weights``: the parameter WEIGHTS as typed. ``device``: ``cpu``, ``cuda`` or ``mps``.
    """
    loaded = load_weights(*find_weights(weights, DEFAULT_WEIGHTS))
    net = build_network(loaded)
    use_threads()
    net = net.eval().requires_grad_(False).fuse().to(torch_device(device))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    typed = params.get("confidence")
    confidence = CONFIDENCE if typed is None else typed
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
        raise ModelError(f"CONFIDENCE is {confidence!r}, it must be a number from 0 to 1.")
    card = loaded.card
    image = Input("image", bands=1, gsd=card.gsd, scale=scale_from(params), fill="median", pad=PAD)
    return Task(
        name="sar_ships",
        inputs=(image,),
        kind="boxes",
        tile=TILE,
        multiple=net.multiple,
        margin=0,
        shrinkable=False,
        outputs=card.classes,
        prepare=functools.partial(prepare, device=torch_device(device)),
        predict=functools.partial(predict, net=net, confidence=confidence),
        overlap=functools.partial(overlap_px, pixel_m=scene.pixel_m),
        model_id=loaded.model_id,
        notes={
            **weights_notes(loaded),
            "warnings": card_warnings(card),
        },
    )


def build_network(weights: Weights) -> SarShipNet:
    """Return the network the card describes, filled with the file's tensors; raises ModelError."""
    config = network_config(weights.card, weights.path.name)
    return fill_network(SarShipNet, config, weights, HINT)


def network_config(card: Card, name: str) -> dict[str, Any]:
    """Return the card's network arguments, checked as far as their size goes; raises ModelError."""
    config = card.extra.get("config")
    if not isinstance(config, Mapping):
        raise ModelError(f"{name} ({card.name}) is no ship detector: its card has no network settings.", HINT)
    for key, largest in _LARGEST.items():
        value = config.get(key, largest)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= largest:
            raise ModelError(
                f"{name} asks for a network of {key} {str(value)[:40]}; at most {largest:g}.", HINT
            )
    if config.get("nc", 1) != len(card.classes):
        raise ModelError(
            f"{name} names {len(card.classes)} classes ({', '.join(card.classes)[:80]}), "
            f"but its network has {str(config.get('nc', 1))[:40]}.",
            HINT,
        )
    if card.bands != 1:
        raise ModelError(f"{name} wants {card.bands} bands; ship detection reads one.", HINT)
    return dict(config)


def overlap_px(tile: int, pixel_m: tuple[float, float] | None) -> int:
    """Return the automatic overlap: 400 m in pixels, clipped to 128..tile/2; 128 without a CRS."""
    wanted = MIN_OVERLAP if pixel_m is None else math.ceil(OVERLAP_M / min(pixel_m))
    return min(max(wanted, MIN_OVERLAP), tile // 2)


def prepare(tiles: Tiles, *, device: torch.device) -> torch.Tensor:
    """Return (B, 3, T, T) float32 on the device: the one band three times, as the network wants it."""
    image = torch.from_numpy(np.ascontiguousarray(tiles.images["image"], dtype=np.float32))
    return image.to(device).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def predict(images: torch.Tensor, *, net: SarShipNet, confidence: float) -> list[np.ndarray]:
    """Return per tile (N, 6) float32: x1, y1, x2, y2 clipped to the tile, score, class index.

    Score = objectness, times the best class where classes are trained (section 5.2). No suppression
    here: thresholds of overlap apply to the scene, never to a tile (ENGINE.md, section 2).
    """
    with torch.inference_mode():
        decoded = decode(net(images), net.anchors, net.strides).cpu()
    height, width = images.shape[-2:]
    return [_keep(candidates, width, height, confidence, by_class=net.class_loss) for candidates in decoded]


def _keep(
    candidates: torch.Tensor, width: int, height: int, confidence: float, *, by_class: bool
) -> np.ndarray:
    """Return the candidates (M, 5 + nc) of one tile that reach the confidence, best first."""
    classes, labels = candidates[:, 5:].max(dim=1)
    score = candidates[:, 4] * classes if by_class else candidates[:, 4]
    kept = torch.nonzero(score >= confidence).flatten()
    order = torch.argsort(score[kept], descending=True, stable=True)
    kept = kept[order[: round(MAX_CANDIDATES * width * height / TILE**2)]]
    xy, half = candidates[kept, :2], candidates[kept, 2:4] / 2
    limit = torch.tensor([width, height], dtype=torch.float32)
    low, high = torch.minimum((xy - half).clamp(min=0), limit), torch.minimum((xy + half).clamp(min=0), limit)
    boxes = torch.cat((low, high, score[kept, None], labels[kept, None].float()), dim=1)
    return boxes[(high > low).all(dim=1)].numpy()
