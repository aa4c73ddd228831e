"""Boxes of whole 8-bit chips, for validation while training and for the benchmarks.

The engine's tiles go through task.py; here a chip is one tile.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .boxes import select
from .dataset import Packed, padded, to_tensor
from .metrics import Scores, evaluate
from .network import SarShipNet


@torch.inference_mode()
def propose(net: SarShipNet, chip: np.ndarray, device: str = "cpu") -> Tensor:
    """Candidates (1, M, 5: x, y, w, h, score) of one uint8 chip (H, W), padded as at inference."""
    return net.candidates(net(to_tensor(padded(chip, net.multiple)[None]).to(device)))


def choose(
    candidates: Tensor, shape: tuple[int, int], *, confidence: float, nms_iou: float, limit: int
) -> np.ndarray:
    """Boxes (n, 5: corners, score) of one chip: selected, centred in the chip, cut at its edges."""
    found = select(candidates, confidence=confidence, nms_iou=nms_iou, limit=limit)[0]
    height, width = shape
    centre = (found[:, :2] + found[:, 2:4]) / 2
    found = found[(centre < [width, height]).all(axis=1)]
    found[:, [0, 2]] = found[:, [0, 2]].clip(0, width)
    found[:, [1, 3]] = found[:, [1, 3]].clip(0, height)
    return found


def detect(
    net: SarShipNet,
    chips: Sequence[np.ndarray],
    *,
    confidence: float,
    nms_iou: float,
    limit: int,
    device: str = "cpu",
) -> list[np.ndarray]:
    """Boxes (n, 5: corners, score) of every uint8 chip (H, W), one forward pass each."""
    return [
        choose(
            propose(net, chip, device),
            (chip.shape[0], chip.shape[1]),
            confidence=confidence,
            nms_iou=nms_iou,
            limit=limit,
        )
        for chip in chips
    ]


def validate(net: SarShipNet, data: Packed, device: str) -> Scores:
    """COCO scores of ``data`` with YOLOv5's evaluation settings (score 0.001, IoU 0.6, 300 boxes)."""
    found = detect(net, list(data.chips), confidence=0.001, nms_iou=0.6, limit=300, device=device)
    return evaluate(found, [data.boxes_of(i) for i in range(len(data))])
