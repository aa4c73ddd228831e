"""Crops for a training: squares of the user's layers on a fixed lattice, in spatial blocks.

Validation takes whole blocks, never single pixels or crops beside those that are learned from: ground
that lies next to each other looks alike, and a score on it would flatter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from ..models.trainable import Crops
from .events import Track
from .reference import Reference, aligned
from .scaling import Scaling
from .scene import Scene

#: Bytes of all crops together, more are thinned evenly: 1365 pairs of 128 pixels. A training copies both
#: parts once, and a computer with 8 GB must hold that beside QGIS.
MOST_BYTES = 1 << 29
#: Sides of a block in crops, the largest first that gives enough blocks for a fair split.
BLOCK_SIDES, ENOUGH_BLOCKS = (4, 2, 1), 10
#: One block in so many is for validation; a knight's move apart, so that no row or column is left out.
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Cut:
    """Crops and where they come from.

    ``places``: (row, column) of each in the grid of the first layer. ``looked``: places of the lattice
    that were read; the rest of them hold invalid pixels. ``lattice``: all places there are. ``block``:
    side of a spatial block in crops.
    """

    crops: Crops
    places: tuple[tuple[int, int], ...]
    looked: int
    lattice: int
    block: int

    def __len__(self) -> int:
        """How many crops there are."""
        return len(self.places)


def cut_crops(
    scene: Scene,
    role: str,
    others: Mapping[str, Reference],
    scalings: Sequence[Scaling],
    side: int,
    track: Track,
    share: tuple[float, float] = (0.0, 1.0),
) -> Cut:
    """Read all crops of ``side`` pixels that are valid everywhere and in every band of all layers.

    ``role``: of the layer whose grid counts; ``others``: role -> a layer laid on it. ``scalings``: one
    for each band, the same for all layers. ``share``: from where to where the progress bar moves.
    """
    rows, cols = scene.height // side, scene.width // side
    per_crop = side * side * len(scene.bands) * 4 * (1 + len(others))
    chosen = _evenly(rows * cols, max(1, MOST_BYTES // per_crop))
    # pages that no crop fills are never touched
    shape = (len(chosen), len(scene.bands), side, side)
    stacks = {name: np.empty(shape, np.float32) for name in (role, *others)}
    places: list[tuple[int, int]] = []
    with ExitStack() as stack:
        reader = stack.enter_context(scene.reader())
        readers = {name: stack.enter_context(other.scene.reader()) for name, other in others.items()}
        for number, index in enumerate(chosen):
            track.check()
            done = share[0] + (share[1] - share[0]) * number / len(chosen)
            track.progress(done, number, len(chosen), "cutting crops", None)
            row, col = (int(part) * side for part in divmod(index, cols))
            window = row, col, side, side
            images = {}
            for name, other in others.items():
                values, valid = aligned(other, scene, readers[name], *window)
                if not valid.all():
                    break
                images[name] = _scaled(values, scalings)
            else:
                values, valid = reader.read_bands(*window)
                if valid.all():
                    images[role] = _scaled(values, scalings)
                    for name, image in images.items():
                        stacks[name][len(places)] = image
                    places.append((row, col))
    validation, block = split([(row // side, col // side) for row, col in places])
    images = {name: stack[: len(places)] for name, stack in stacks.items()}
    return Cut(Crops(images, validation), tuple(places), len(chosen), rows * cols, block)


def split(places: Sequence[tuple[int, int]]) -> tuple[np.ndarray, int]:
    """Return bool (N,), True for validation, and the side of a block, for crops at lattice ``places``.

    About a fifth, in whole blocks; neither part is empty where there are two crops or more. The same for
    the same places, whatever the seed of the training.
    """
    if not places:
        return np.zeros(0, bool), BLOCK_SIDES[-1]
    at = np.array(places)
    for side in BLOCK_SIDES:
        blocks, of_crop = np.unique(at // side, axis=0, return_inverse=True)
        if len(blocks) >= ENOUGH_BLOCKS:
            break
    of_crop = of_crop.ravel()
    fold = (blocks[:, 0] + 2 * blocks[:, 1]) % FOLDS
    sizes = np.bincount(fold[of_crop], minlength=FOLDS)
    usable = [number for number in range(FOLDS) if 0 < sizes[number] < len(at)]
    if not usable:  # all in one fold: a single diagonal of blocks, say
        fold = np.arange(len(blocks)) % FOLDS
        sizes = np.bincount(fold[of_crop], minlength=FOLDS)
        usable = [number for number in range(FOLDS) if 0 < sizes[number] < len(at)]
    if not usable:
        return np.zeros(len(at), bool), side
    best = min(usable, key=lambda number: abs(sizes[number] - len(at) / FOLDS))
    return fold[of_crop] == best, side


def _evenly(count: int, most: int) -> np.ndarray:
    """Return up to ``most`` of ``count`` numbers, spread evenly."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).astype(np.int64))


def _scaled(values: np.ndarray, scalings: Sequence[Scaling]) -> np.ndarray:
    return np.stack([scaling.apply(band) for scaling, band in zip(scalings, values, strict=True)])
