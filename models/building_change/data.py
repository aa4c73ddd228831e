"""The packed pairs (scripts/pack_building_change.py) and the crops training draws from them.

A batch depends on the seed and its number alone, so that a resumed training sees the same ones. Nothing
is resampled: crops are cut at the images' own pixels.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..task import ModelError
from .augment import SHIFT_PX, misregistered, photometric, turned
from .paste import built, stood, taken_back
from .simulate import draw_buildings, set_buildings

TRAINING, VALIDATION, SCORED = 0, 1, 2

#: A batch: before and after float32 (B, 3, S, S) in 0..1, label bool (B, S, S).
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two dates of one place and what changed between them, all on one grid.

    ``before``, ``after``: (N, 3, H, W), uint8 or float32 in 0..1. ``label``: bool (N, H, W), True where a
    building changed. ``image``: int (N,), the image each belongs to: pairs of one image are neighbours.
    ``part``: int (N,), the part of the split.
    """

    before: np.ndarray
    after: np.ndarray
    label: np.ndarray
    image: np.ndarray
    part: np.ndarray

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.before)

    def only(self, part: int) -> Pairs:
        """Return one part of the split."""
        keep = self.part == part
        return Pairs(*(array[keep] for array in vars(self).values()))


@dataclass(frozen=True, eq=False)
class Site:
    """One pair of its own size: before, after (3, H, W) uint8, label bool (H, W)."""

    name: str
    before: np.ndarray
    after: np.ndarray
    label: np.ndarray


def load_pairs(folder: Path) -> Pairs:
    """Read ``levir.npz``; raises ModelError where it is missing or not as packed."""
    path = folder / "levir.npz"
    before, after, label, image, part = _read(path, ("before", "after", "label", "image", "part"))
    fits = before.ndim == 4 and before.shape[1] == 3 and before.dtype == after.dtype == np.uint8
    if not (fits and len(before)):
        raise ModelError(f"{path} holds {before.dtype} {before.shape}, not 8-bit images (N, 3, H, W).")
    same = after.shape == before.shape and label.shape == (len(before), *before.shape[2:])
    if not same or label.dtype != np.bool_ or len(image) != len(before) or len(part) != len(before):
        raise ModelError(f"{path} holds dates and labels of different number or size.")
    return Pairs(before, after, label, image, part)


def load_sites(path: Path) -> list[Site]:
    """Read pairs of different sizes, such as ``sztaki.npz``; raises ModelError where not as packed."""
    (names,) = _read(path, ("site",))
    sites = []
    for i, name in enumerate(names.tolist()):
        before, after, label = _read(path, (f"before_{i}", f"after_{i}", f"label_{i}"))
        if after.shape != before.shape or label.shape != before.shape[1:]:
            raise ModelError(f"{path} holds dates and label of different size for {name}.")
        sites.append(Site(name, before, after, label))
    return sites


def _read(path: Path, keys: Sequence[str]) -> list[np.ndarray]:
    """Return arrays of a packed file."""
    try:
        with np.load(path, allow_pickle=False) as data:
            return [data[key] for key in keys]
    except (OSError, KeyError, ValueError) as error:
        raise ModelError(
            f"{path} is not a packed data set: {error}.", "Make it with scripts/pack_building_change.py."
        ) from error


def unit(image: np.ndarray) -> np.ndarray:
    """Return 8-bit counts as float32 in 0..1; floats as they are."""
    return image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image


def statistics(pairs: Pairs) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each band in 0..1 over both dates, three numbers each."""
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for stack in (pairs.before, pairs.after):
        for image in stack:
            values = unit(image).reshape(3, -1).astype(np.float64)
            count += values.shape[1]
            total += values.sum(axis=1)
            squares += np.square(values).sum(axis=1)
    mean = total / count
    # a band without contrast is divided by one 8-bit level rather than by 0
    std = np.sqrt(np.maximum(squares / count - mean**2, 1 / 255**2))
    return mean.round(6).tolist(), std.round(6).tolist()


@dataclass(frozen=True)
class Mix:
    """How often a crop is what; each a probability.

    ``centred``: it lies around a changed pixel instead of anywhere. ``unchanged``: one date stands for
    both. ``swapped``: dates of a crop without change trade places. ``taken_back``: changes are undone.
    ``stood``: real buildings are set into both dates. ``built``: real buildings of another place are set
    into the later date, ``simulated``: drawn ones are. ``photometric``: both dates get another light,
    each its own, and may lie up to ``shift`` pixels apart.
    """

    centred: float = 0.5
    unchanged: float = 0.1
    swapped: float = 0.5
    taken_back: float = 0.15
    stood: float = 0.15
    built: float = 0.3
    simulated: float = 0.15
    photometric: float = 0.8
    shift: float = SHIFT_PX


#: Flips and quarter turns only.
PLAIN = Mix(0, 0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class Sampler:
    """Batches of crops: ``sampler(step)`` -> :data:`Batch`. Side ``crop``, ``batch`` of them.

    Raises ModelError where there is nothing to learn from or the images are smaller than a crop.
    """

    pairs: Pairs
    crop: int
    batch: int
    seed: int
    mix: Mix = Mix()

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn from."""
        if not len(self.pairs):
            raise ModelError("There is no image pair to train on.")
        side = min(self.pairs.before.shape[2:])
        if not 0 < self.crop <= side:
            raise ModelError(f"CROP is {self.crop}, the images have {side} pixels.", f"Take {side}.")
        changed = np.flatnonzero(self.pairs.label.any(axis=(1, 2)))
        if not len(changed):
            raise ModelError(
                "No training pair holds a change.", "Outline changed buildings in more than one place."
            )
        object.__setattr__(self, "_changed", changed)

    def __call__(self, step: int) -> Batch:
        """Return batch number ``step``."""
        rng = np.random.default_rng([self.seed, step])
        crops = [self._one(rng) for _ in range(self.batch)]
        before, after, label = zip(*crops, strict=True)
        return np.stack(before), np.stack(after), np.stack(label)

    def _one(self, rng: np.random.Generator) -> Batch:
        """Return one crop: before, after float32 (3, S, S), label bool (S, S)."""
        mix = self.mix
        before, after, label = self._cut(rng, rng.random() < mix.centred)
        if rng.random() < mix.unchanged:
            before, after = (before, before) if rng.random() < 0.5 else (after, after)
            label = np.zeros_like(label)
        elif rng.random() < mix.taken_back:
            after, label = taken_back(before, after, label, rng)
        if not label.any() and rng.random() < mix.swapped:
            before, after = after, before
        if rng.random() < mix.stood:
            _, donor, mask = self._cut(rng, True)
            before, after = stood(before, after, label, donor, mask, rng)
        if rng.random() < mix.built:
            _, donor, mask = self._cut(rng, True)
            after, label = built(after, label, donor, mask, rng)
        if rng.random() < mix.simulated:
            after, drawn = set_buildings(after, draw_buildings(rng, self.crop), rng)
            label = label | drawn
        if rng.random() < mix.photometric:
            before, after = photometric(before, rng), photometric(after, rng)
            # buildings mostly appear, so that labels lie on the later date: the earlier one is off
            before = misregistered(before, rng, mix.shift)
        return before, after, label

    def _cut(self, rng: np.random.Generator, centred: bool) -> Batch:
        """Return one place as it is, turned and mirrored; ``centred``: a changed pixel lies in it."""
        pairs, size = self.pairs, self.crop
        changed: np.ndarray = self._changed  # type: ignore[attr-defined]
        index = int(rng.choice(changed)) if centred else int(rng.integers(len(pairs)))
        limits = np.array(pairs.label.shape[1:]) - size
        if centred:
            pixels = np.flatnonzero(pairs.label[index])
            place = np.array(divmod(int(rng.choice(pixels)), pairs.label.shape[2]))
            row, col = (int(v) for v in np.clip(place - rng.integers(0, size, 2), 0, limits))
        else:
            row, col = (int(v) for v in rng.integers(0, limits + 1))
        code = int(rng.integers(8))
        window = (..., slice(row, row + size), slice(col, col + size))
        before, after, label = (
            turned(stack[index][window], code) for stack in (pairs.before, pairs.after, pairs.label)
        )
        return unit(before), unit(after), label


def batches(sampler: Sampler, first: int = 0) -> Generator[Batch, None, None]:
    """Endless batches from number ``first`` on, made one ahead in a thread."""
    with ThreadPoolExecutor(1) as pool:
        step = first
        ready = pool.submit(sampler, step)
        while True:
            step += 1
            following = pool.submit(sampler, step)
            yield ready.result()
            ready = following
