"""Image pairs of any size to a change probability: fixed tiles, blended where they overlap.

The network takes means over the whole tile (specification 08, section 3.3), so that a prediction belongs
to a tile size; the engine cuts its tiles likewise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .data import unit

#: The side of a tile in pixels, and from one tile to the next: 64 pixels of every two overlap.
TILE, STRIDE = 256, 192


def normalised(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (B, 3, H, W) in 0..1 as the network takes it: the training set's mean 0, deviation 1."""
    shift, scale = (image.new_tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return ((image - shift) / scale).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def change_map(
    net: nn.Module,
    before: np.ndarray,
    after: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    tile: int = TILE,
    stride: int = STRIDE,
    batch: int = 4,
) -> np.ndarray:
    """Return the probability of change, float32 (H, W); ``net`` must be in eval mode.

    ``before``, ``after``: (3, H, W), uint8 or float32 in 0..1, of one size. A smaller picture is filled
    up to a tile by reflection.
    """
    h, w = before.shape[1:]
    fill = ((0, 0), (0, max(tile - h, 0)), (0, max(tile - w, 0)))
    dates = [np.pad(unit(image), fill, "symmetric") for image in (before, after)]
    height, width = dates[0].shape[1:]
    places = [(row, col) for row in starts(height, tile, stride) for col in starts(width, tile, stride)]
    ramp = _ramp(tile, tile - stride)
    weight = ramp[:, None] * ramp
    total, weights = np.zeros((2, height, width), np.float32)
    device = next(net.parameters()).device
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        tiles = [
            torch.from_numpy(np.stack([image[:, r : r + tile, c : c + tile] for r, c in some])).to(device)
            for image in dates
        ]
        scores = torch.sigmoid(net(*(normalised(t, mean, std) for t in tiles)))[:, 0].float().cpu().numpy()
        for (r, c), score in zip(some, scores, strict=True):
            total[r : r + tile, c : c + tile] += weight * score
            weights[r : r + tile, c : c + tile] += weight
    return (total / weights)[:h, :w]


def starts(size: int, tile: int, stride: int) -> list[int]:
    """Return where tiles begin along an axis of at least ``tile`` pixels; the last ends at its end."""
    return [*range(0, size - tile, stride), size - tile]


def _ramp(tile: int, overlap: int) -> np.ndarray:
    """Return weights along a tile, float32 (tile,): rising over the overlap, 1 in between, never 0."""
    edge = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 0.5
    return np.minimum(edge / max(overlap, 0.5), 1).astype(np.float32)
