"""Image pairs by code: bright rectangles that are new at the later date, on ground that changes its tone."""

import numpy as np
from kestrel.models.building_change.data import Pairs


def made_pairs(count: int, size: int, seed: int, part: int = 0) -> Pairs:
    """Return ``count`` pairs of ``size`` pixels, 8-bit, each an image of its own."""
    rng = np.random.default_rng(seed)
    ground = rng.uniform(60, 120, (count, 3, size // 8, size // 8)).repeat(8, 2).repeat(8, 3)
    before, after = (ground * rng.uniform(0.8, 1.2, (count, 3, 1, 1)) for _ in range(2))
    label = np.zeros((count, size, size), bool)
    for i in range(count):
        for _ in range(2):
            row, col = rng.integers(0, size // 2, 2)
            h, w = rng.integers(size // 8, size // 3, 2)
            label[i, row : row + h, col : col + w] = True
    after = np.where(label[:, None], rng.uniform(170, 230, (count, 3, 1, 1)), after)
    noise = rng.normal(0, 3, (2, *before.shape))
    dates = [
        np.rint(np.clip(date + n, 0, 255)).astype(np.uint8)
        for date, n in zip((before, after), noise, strict=True)
    ]
    return Pairs(*dates, label, np.arange(count), np.full(count, part))
