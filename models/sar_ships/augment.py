"""Training images: mosaics of scaled, turned and re-lit chips, in numpy (specification 4.3).

The paper follows YOLOv5: mosaic, scale 0.5, translate, flips, brightness. Radar images have no
upright side, so quarter turns are added; hue and saturation do not exist on one band.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Grey of empty ground, as at inference.
PAD = 114.0
#: A cut box stays when both sides keep 2 px and a tenth of its area is left.
MIN_SIDE, MIN_AREA = 2.0, 0.1


def turn(chip: np.ndarray, boxes: np.ndarray, code: int) -> tuple[np.ndarray, np.ndarray]:
    """One of the eight symmetries of the square: ``code`` & 3 quarter turns, then a flip if & 4.

    ``chip`` (H, W), ``boxes`` (N, 4) corners; both are copied.
    """
    boxes = boxes.astype(np.float64)
    for _ in range(code & 3):  # np.rot90 turns counter-clockwise: (x, y) -> (y, W - x)
        width = chip.shape[1]
        chip = np.rot90(chip)
        boxes = np.stack((boxes[:, 1], width - boxes[:, 2], boxes[:, 3], width - boxes[:, 0]), axis=1)
    if code & 4:
        width = chip.shape[1]
        chip = chip[:, ::-1]
        boxes = np.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), axis=1)
    return np.ascontiguousarray(chip), boxes


def resampling(n_in: int, n_out: int, offset: float, scale: float) -> np.ndarray:
    """Matrix (n_out, n_in) that enlarges by ``scale`` from input edge ``offset``; rows sum to one.

    Linear interpolation, widened to the footprint when shrinking, edges repeated.
    """
    centre = (np.arange(n_out) + 0.5) / scale + offset - 0.5
    reach = max(1.0, 1 / scale)
    weight = np.clip(
        1 - np.abs(np.arange(n_in)[None] - np.clip(centre, 0, n_in - 1)[:, None]) / reach, 0, None
    )
    return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)


def window(
    chip: np.ndarray, boxes: np.ndarray, shape: tuple[int, int], scale: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a random window that fills ``shape`` at ``scale``, padded where the chip is too small.

    Returns float32 (H, W) and the boxes (N, 4), cut at the window, those with too little left removed.
    """
    out = np.full(shape, PAD, dtype=np.float32)
    axes = []
    for n_in, n_out in zip(chip.shape, shape, strict=True):
        size = min(n_out, int(n_in * scale))
        room = n_in - size / scale
        axes.append((size, float(rng.uniform(0, max(room, 0.0))), int(rng.integers(0, n_out - size + 1))))
    (h, top, y0), (w, left, x0) = axes
    r0, r1 = int(top), min(chip.shape[0], int(top + h / scale) + 2)
    c0, c1 = int(left), min(chip.shape[1], int(left + w / scale) + 2)
    part = chip[r0:r1, c0:c1].astype(np.float32)
    rows, cols = resampling(r1 - r0, h, top - r0, scale), resampling(c1 - c0, w, left - c0, scale)
    out[y0 : y0 + h, x0 : x0 + w] = rows @ part @ cols.T
    moved = (boxes - np.array([left, top, left, top])) * scale
    cut = np.clip(moved, 0, np.array([w, h, w, h], dtype=np.float64))
    sides, full = cut[:, 2:] - cut[:, :2], (moved[:, 2:] - moved[:, :2]).prod(axis=1)
    keep = (sides >= MIN_SIDE).all(axis=1) & (sides.prod(axis=1) > MIN_AREA * full)
    return out, cut[keep] + np.array([x0, y0, x0, y0])


def relight(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random gamma 0.7..1.4 and gain 0.6..1.4 on 0..255: how scenes are stretched differs that much."""
    gamma, gain = np.exp(rng.uniform(np.log(0.7), np.log(1.4))), rng.uniform(0.6, 1.4)
    return np.clip(255 * gain * (np.clip(image, 0, 255) / 255) ** gamma, 0, 255).astype(np.float32)


def compose(
    chips: Sequence[tuple[np.ndarray, np.ndarray]], size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One training image from one chip, or a mosaic from four: float32 (size, size), boxes (N, 4).

    Each chip is turned and scaled by 0.5..1.5 on its own; the mosaic's centre is anywhere in the
    middle half. Brightness changes once for the whole image.
    """
    if len(chips) == 4:
        cy, cx = (int(v) for v in rng.integers(size // 4, size - size // 4 + 1, 2))
    else:
        cy = cx = size
    places = [(0, 0, cy, cx), (0, cx, cy, size), (cy, 0, size, cx), (cy, cx, size, size)][: len(chips)]
    image, boxes = np.empty((size, size), dtype=np.float32), []
    for (chip, chip_boxes), (y0, x0, y1, x1) in zip(chips, places, strict=True):
        chip, chip_boxes = turn(chip, chip_boxes, int(rng.integers(8)))
        scale = float(rng.uniform(0.5, 1.5))
        part, moved = window(chip, chip_boxes, (y1 - y0, x1 - x0), scale, rng)
        image[y0:y1, x0:x1] = part
        boxes.append(moved + np.array([x0, y0, x0, y0]))
    return relight(image, rng), np.concatenate(boxes).astype(np.float32)
