"""Packed chips (``.npz``) and the batches training draws from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..task import ModelError
from .augment import compose

#: Share of training images that are mosaics of four chips (the rest show one).
MOSAIC = 0.8


@dataclass(frozen=True)
class Packed:
    """Chips uint8 (N, S, S); boxes float32 (M, 4) corners; chip i owns boxes offsets[i]:offsets[i+1].

    ``source`` (N,) indexes ``sources``; ``pixel_m`` (N,) is the pixel size in metres, 0 if unknown.
    """

    chips: np.ndarray
    boxes: np.ndarray
    offsets: np.ndarray
    source: np.ndarray
    sources: tuple[str, ...]
    pixel_m: np.ndarray

    def __len__(self) -> int:
        """How many chips there are."""
        return len(self.chips)

    def boxes_of(self, index: int) -> np.ndarray:
        """Boxes (n, 4) of chip ``index``."""
        return self.boxes[self.offsets[index] : self.offsets[index + 1]]


def load_packed(path: Path) -> Packed:
    """Read a packed data set; raises ModelError where it is not one."""
    try:
        with np.load(path, allow_pickle=False) as data:
            packed = Packed(
                data["chips"],
                data["boxes"].astype(np.float32),
                data["offsets"].astype(np.int64),
                data["source"].astype(np.int64),
                tuple(str(s) for s in data["sources"]),
                data["pixel_m"].astype(np.float32),
            )
    except (OSError, KeyError, ValueError) as error:
        raise ModelError(
            f"{path} is not a packed data set: {error}.", "Make it with scripts/pack_*.py."
        ) from error
    n = len(packed.chips)
    ok = packed.chips.ndim == 3 and packed.chips.dtype == np.uint8 and n > 0
    ok = ok and packed.offsets.shape == (n + 1,) and packed.offsets[-1] == len(packed.boxes)
    if not ok or packed.source.shape != (n,) or packed.boxes.shape[1:] != (4,):
        raise ModelError(f"{path} is not a packed data set: its arrays do not fit together.")
    return packed


def join(parts: Sequence[Packed]) -> Packed:
    """One data set out of several with chips of equal size; sources of one name become one."""
    names = tuple(dict.fromkeys(name for part in parts for name in part.sources))
    offsets, boxes_before = [np.zeros(1, np.int64)], 0
    for part in parts:
        offsets.append(part.offsets[1:] + boxes_before)
        boxes_before += len(part.boxes)
    source = [np.array([names.index(n) for n in p.sources], dtype=np.int64)[p.source] for p in parts]
    return Packed(
        np.concatenate([p.chips for p in parts]),
        np.concatenate([p.boxes for p in parts]),
        np.concatenate(offsets),
        np.concatenate(source),
        names,
        np.concatenate([p.pixel_m for p in parts]),
    )


def spread(data: Packed, count: int) -> Packed:
    """At most ``count`` chips of ``data``, evenly spaced."""
    n = min(count, len(data))
    picks = np.arange(n) * len(data) // n
    boxes = [data.boxes_of(int(i)) for i in picks]
    offsets = np.cumsum([0, *(len(b) for b in boxes)])
    return Packed(
        data.chips[picks],
        np.concatenate(boxes),
        offsets,
        data.source[picks],
        data.sources,
        data.pixel_m[picks],
    )


def draw_weights(data: Packed, shares: Mapping[str, float]) -> np.ndarray:
    """Probability of each chip: sources named in ``shares`` get that share of all draws.

    The rest is spread evenly over the chips of the sources not named; raises ModelError for an
    unknown source or shares above 1.
    """
    unknown, rest = set(shares) - set(data.sources), 1 - sum(shares.values())
    if unknown or rest < -1e-9:
        raise ModelError(
            f"The shares {dict(shares)} do not fit the data.",
            f"Name sources among {', '.join(data.sources)}, with a sum of at most 1.",
        )
    weight = np.zeros(len(data))
    named = np.isin(data.source, [data.sources.index(name) for name in shares])
    if not named.all():
        weight[~named] = max(rest, 0.0) / (~named).sum()
    for name, share in shares.items():
        mine = data.source == data.sources.index(name)
        weight[mine] = share / max(mine.sum(), 1)
    return weight / weight.sum()


def to_tensor(images: np.ndarray) -> Tensor:
    """Grey images (B, H, W) 0..255 -> float32 (B, 3, H, W) 0..1 with equal channels, channels last."""
    grey = torch.from_numpy(images.astype(np.float32) / 255)[:, None]
    return grey.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def training_batch(
    data: Packed, weights: np.ndarray, size: int, batch: int, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Batch number ``step``: images (B, 3, size, size), targets (N, 6: image, class, x, y, w, h).

    The generator is seeded by (seed, step) alone, so a resumed run draws what it would have drawn.
    """
    rng = np.random.default_rng([seed, step])
    images, targets = np.empty((batch, size, size), dtype=np.float32), []
    for i in range(batch):
        picks = rng.choice(len(data), size=4 if rng.random() < MOSAIC else 1, p=weights)
        images[i], boxes = compose([(data.chips[j], data.boxes_of(j)) for j in picks], size, rng)
        row = np.zeros((len(boxes), 6), dtype=np.float32)
        row[:, 0] = i
        row[:, 2:4], row[:, 4:6] = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        targets.append(row)
    return to_tensor(images), torch.from_numpy(np.concatenate(targets))


def batches(
    data: Packed, weights: np.ndarray, size: int, batch: int, seed: int, first: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless training batches from number ``first`` on, made one ahead in a thread."""
    with ThreadPoolExecutor(1) as pool:
        step = first
        ready = pool.submit(training_batch, data, weights, size, batch, seed, step)
        while True:
            step += 1
            following = pool.submit(training_batch, data, weights, size, batch, seed, step)
            yield ready.result()
            ready = following


def padded(chip: np.ndarray, multiple: int) -> np.ndarray:
    """Chip (H, W) uint8, filled with 114 at right and bottom to multiples of ``multiple``."""
    h, w = chip.shape
    return np.pad(chip, ((0, -h % multiple), (0, -w % multiple)), constant_values=114)
