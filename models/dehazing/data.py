"""The packed images (scripts/pack_dehazing.py) and the crops training draws from them.

A batch depends on the seed and its number alone, so that a resumed training sees the same ones. Nothing
is resampled: crops are cut at the images' own pixels, turned and mirrored.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..task import ModelError
from .simulate import TRAIN, Ranges, hazed, rounded

#: Five blocks of consecutive numbers: neighbouring numbers can be neighbouring scenes.
BLOCKS = 5
TRAINING, VALIDATION, TESTING = 0, 1, 2
#: Highest change of each band's brightness, hazy and clear alike, where tones are varied.
TONES = 0.2
#: Seeds of simulated pairs to measure on; training's batches are seeded with [seed, step].
HELD_OUT_SEED = 1_000_000


@dataclass(frozen=True, eq=False)
class Pairs:
    """Images with and without haze on the same grid, (N, 3, H, W), uint8 or float32 in 0..1.

    ``number``, ``block``: int (N,), the name of each pair and its block of the cross-validation.
    """

    hazy: np.ndarray
    clear: np.ndarray
    number: np.ndarray
    block: np.ndarray

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.hazy)

    def without(self, block: int) -> Pairs:
        """Return all other blocks; -1 leaves none out."""
        return self._where(self.block != block)

    def only(self, block: int) -> Pairs:
        """Return one block."""
        return self._where(self.block == block)

    def _where(self, mask: np.ndarray) -> Pairs:
        return Pairs(self.hazy[mask], self.clear[mask], self.number[mask], self.block[mask])


@dataclass(frozen=True, eq=False)
class Scenes:
    """Clear scenes uint8 (M, 3, H, W) with their names and the part each belongs to, int (M,)."""

    images: np.ndarray
    name: np.ndarray
    split: np.ndarray

    def part(self, split: int) -> np.ndarray:
        """Return the scenes of one part, uint8 (m, 3, H, W)."""
        return self.images[self.split == split]


def load_pairs(folder: Path) -> Pairs:
    """Read ``real.npz``; raises ModelError where it is missing or not as packed."""
    hazy, clear, number, block = _read(folder / "real.npz", ("hazy", "clear", "number", "block"))
    if hazy.shape != clear.shape or len(number) != len(hazy) or len(block) != len(hazy):
        raise ModelError(f"{folder / 'real.npz'} holds hazy and clear images of different number or size.")
    return Pairs(hazy, clear, number, block)


def load_scenes(folder: Path) -> Scenes:
    """Read ``clear.npz``; raises ModelError where it is missing or not as packed."""
    images, name, split = _read(folder / "clear.npz", ("scenes", "name", "split"))
    if len(name) != len(images) or len(split) != len(images):
        raise ModelError(f"{folder / 'clear.npz'} names another number of scenes than it holds.")
    return Scenes(images, name, split)


def _read(path: Path, keys: Sequence[str]) -> list[np.ndarray]:
    """Return the arrays of a packed file, images (the leading ones with four axes) checked."""
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = [data[key] for key in keys]
    except (OSError, KeyError, ValueError) as error:
        raise ModelError(
            f"{path} is not a packed data set: {error}.", "Make it with scripts/pack_dehazing.py."
        ) from error
    first = arrays[0]
    if first.ndim != 4 or first.shape[1] != 3 or first.dtype != np.uint8 or not len(first):
        raise ModelError(f"{path} holds {first.dtype} {first.shape}, not 8-bit images (N, 3, H, W).")
    return arrays


def unit(image: np.ndarray) -> np.ndarray:
    """Return 8-bit counts as float32 in 0..1; floats as they are."""
    return image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image


@dataclass(frozen=True, eq=False)
class Sampler:
    """Batches of crops: ``sampler(step)`` -> hazy and clear, float32 (batch, 3, crop, crop) in 0..1.

    ``scenes``: stacks (N, 3, H, W) of clear images, uint8 or float32 in 0..1, of any sizes; each crop
    gets a fresh haze of ``ranges``. ``pairs``: images to be used as they are, both cut at the same place.
    ``real_share``: probability that a crop comes from ``pairs`` where there are both. ``thinned``:
    probability that the haze of a crop of ``pairs`` is made thinner, ``clear + t (hazy - clear)`` with t
    uniform in 0..1, so that nearly clear images are seen and learnt to be left alone. ``toned``:
    probability that each band of such a crop is made darker or brighter, in both images alike, by up to
    ``TONES``: a few dozen pairs show few grounds. A crop that no image can hold raises ModelError.
    """

    scenes: Sequence[np.ndarray]
    pairs: Pairs | None
    crop: int
    batch: int
    seed: int
    real_share: float = 0.5
    ranges: Ranges = TRAIN
    thinned: float = 0.0
    toned: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn from."""
        stacks = [*self.scenes, *((self.pairs.hazy,) if self.pairs is not None else ())]
        if not sum(map(len, stacks)):
            raise ModelError("There is no image to train on.", "Give hazy and clear images or clear scenes.")
        side = min(min(stack.shape[2:]) for stack in stacks if len(stack))
        if not 0 < self.crop <= side:
            raise ModelError(f"CROP is {self.crop}, the smallest image has {side} pixels.", f"Take {side}.")

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return batch number ``step``."""
        rng = np.random.default_rng([self.seed, step])
        crops = [self._one(rng) for _ in range(self.batch)]
        hazy, clear = zip(*crops, strict=True)
        return np.stack(hazy), np.stack(clear)

    def _one(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return one hazy and clear crop, float32 (3, crop, crop)."""
        count = sum(map(len, self.scenes))
        real = len(self.pairs) if self.pairs is not None else 0
        if real and (not count or rng.random() < self.real_share):
            assert self.pairs is not None
            index = int(rng.integers(real))
            cut = self._cut(rng, self.pairs.hazy.shape[2:])
            return self._varied(rng, unit(cut(self.pairs.hazy[index])), unit(cut(self.pairs.clear[index])))
        index = int(rng.integers(count))
        for stack in self.scenes:
            if index < len(stack):
                break
            index -= len(stack)
        clear = unit(self._cut(rng, stack.shape[2:])(stack[index]))
        return rounded(hazed(clear, rng, self.ranges)[0]), clear

    def _varied(
        self, rng: np.random.Generator, hazy: np.ndarray, clear: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a real crop with thinner haze and other tones, as often as asked."""
        if self.thinned and rng.random() < self.thinned:
            hazy = clear + np.float32(rng.random()) * (hazy - clear)
        if self.toned and rng.random() < self.toned:
            gain = (1 + rng.uniform(-TONES, TONES, (3, 1, 1))).astype(np.float32)
            hazy, clear = np.minimum(hazy * gain, 1), np.minimum(clear * gain, 1)
        return hazy, clear

    def _cut(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function that cuts, turns and mirrors one drawn place of images of ``shape``."""
        row, col = (int(rng.integers(n - self.crop + 1)) for n in shape)
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))

        def cut(image: np.ndarray) -> np.ndarray:
            part = image[:, row : row + self.crop, col : col + self.crop]
            part = np.rot90(part, turns, axes=(1, 2))
            return part[:, :, ::-1] if mirrored else part

        return cut


def batches(sampler: Sampler, first: int = 0) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Endless batches from number ``first`` on, made one ahead in a thread."""
    with ThreadPoolExecutor(1) as pool:
        step = first
        ready = pool.submit(sampler, step)
        while True:
            step += 1
            following = pool.submit(sampler, step)
            yield ready.result()
            ready = following


def simulated_pairs(scenes: np.ndarray, ranges: Ranges, seed: int = HELD_OUT_SEED, times: int = 1) -> Pairs:
    """Return whole scenes under haze to measure on, uint8, each ``times`` times; the same for a seed.

    ``number`` counts the scenes, ``block`` is -1.
    """
    number = np.repeat(np.arange(len(scenes)), times)
    hazy = [
        rounded(hazed(unit(scenes[scene]), np.random.default_rng([seed, i]), ranges)[0])
        for i, scene in enumerate(number)
    ]
    counts = np.rint(np.reshape(hazy, (-1, *scenes.shape[1:])) * 255).astype(np.uint8)
    return Pairs(counts, scenes[number], number, np.full(len(number), -1))
