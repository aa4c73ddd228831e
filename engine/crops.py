"""Crops for a training: squares of the user's layers on a fixed lattice, in spatial blocks.

Validation takes whole blocks, never single pixels or crops beside those that are learned from: ground
that lies next to each other looks alike, and a score on it would flatter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from ..models.trainable import Crops
from .events import Track
from .reference import Reference, aligned
from .scaling import Scaling
from .scene import Scene

#: Bytes of all crops together, more are thinned evenly: 1365 pairs of 128 pixels in floats. A training
#: copies both parts once, and a computer with 8 GB must hold that beside QGIS.
MOST_BYTES = 1 << 29
#: Sides of a block in crops, the largest first that gives enough blocks for a fair split.
BLOCK_SIDES, ENOUGH_BLOCKS = (4, 2, 1), 10
#: One block in so many is for validation; a knight's move apart, so that no row or column is left out.
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Cut:
    """Crops and where they come from.

    ``places``: (row, column) of each in the grid of the first layer, or in its own image. ``looked``:
    places of the lattice that were read; the rest of them hold invalid pixels. ``lattice``: all places
    there are. ``block``: side of a spatial block in crops; 0 where whole images are for validation.
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
    with ExitStack() as stack:
        reader = stack.enter_context(scene.reader())
        readers = {name: stack.enter_context(other.scene.reader()) for name, other in others.items()}

        def take(index: int) -> dict[str, np.ndarray] | None:
            row, col = (int(part) * side for part in divmod(index, cols))
            window = row, col, side, side
            images = {}
            for name, other in others.items():
                values, valid = aligned(other, scene, readers[name], *window)
                if not valid.all():
                    return None
                images[name] = scaled(values, scalings)
            values, valid = reader.read_bands(*window)
            if not valid.all():
                return None
            return {role: scaled(values, scalings), **images}

        layers = dict.fromkeys((role, *others), (len(scene.bands), np.dtype(np.float32)))
        images, kept, looked = collect(rows * cols, layers, side, take, track, share)
    places = [(index // cols, index % cols) for index in kept]
    validation, block = split(places)
    corners = tuple((row * side, col * side) for row, col in places)
    return Cut(Crops(images, validation), corners, looked, rows * cols, block)


def collect(
    count: int,
    layers: Mapping[str, tuple[int, np.dtype]],
    side: int,
    take: Callable[[int], Mapping[str, np.ndarray] | None],
    track: Track,
    share: tuple[float, float],
) -> tuple[dict[str, np.ndarray], list[int], int]:
    """Take crops number 0 to ``count``, thinned evenly to MOST_BYTES; return (images, kept, looked).

    ``layers``: role -> (bands, dtype). ``take(number)``: role -> (bands, side, side), None for a crop that
    is left out. ``images``: role -> (N, bands, side, side); ``kept``: N numbers, rising; ``looked``: how
    many were asked for.
    """
    per_crop = side * side * sum(bands * dtype.itemsize for bands, dtype in layers.values())
    chosen = _evenly(count, max(1, MOST_BYTES // per_crop))
    # pages that no crop fills are never touched
    stacks = {
        role: np.empty((len(chosen), bands, side, side), dtype) for role, (bands, dtype) in layers.items()
    }
    kept: list[int] = []
    for number, index in enumerate(chosen.tolist()):
        track.check()
        done = share[0] + (share[1] - share[0]) * number / len(chosen)
        track.progress(done, number, len(chosen), "cutting crops", None)
        images = take(index)
        if images is not None:
            for role, image in images.items():
                stacks[role][len(kept)] = image
            kept.append(index)
    return {role: stack[: len(kept)] for role, stack in stacks.items()}, kept, len(chosen)


def split(places: Sequence[tuple[int, int]], marks: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    """Return bool (N,), True for validation, and the side of a block, for crops at lattice ``places``.

    About a fifth, in whole blocks; neither part is empty where there are two crops or more. ``marks``:
    (N,) how much of what is looked for each crop holds; then both parts hold some wherever blocks allow,
    and validation about a fifth of it too. The same for the same crops, whatever the training's seed.
    """
    if not places:
        return np.zeros(0, bool), BLOCK_SIDES[-1]
    at = np.array(places)
    found, block = None, BLOCK_SIDES[-1]
    for side in BLOCK_SIDES:
        blocks, of_crop = np.unique(at // side, axis=0, return_inverse=True)
        if len(blocks) < ENOUGH_BLOCKS and side != BLOCK_SIDES[-1]:
            continue
        fold = (blocks[:, 0] + 2 * blocks[:, 1]) % FOLDS
        # all, or all marks, in one fold - a single diagonal of blocks, say: by their order
        for folds in (fold, np.arange(len(blocks)) % FOLDS):
            held_out = hold_out(folds[of_crop.ravel()], marks)
            if held_out is None:
                continue
            if found is None:
                found, block = held_out, side
            if marked_both(held_out, marks):
                return held_out, side
    return (np.zeros(len(at), bool) if found is None else found), block


def hold_out(fold: np.ndarray, marks: np.ndarray | None = None) -> np.ndarray | None:
    """Return bool (N,), True for the fold that is nearest to a fifth of crops and of ``marks``.

    ``fold``: (N,) from 0. None where one fold holds every crop.
    """
    found, least = None, (True, np.inf)
    for number in range(FOLDS):
        mine = fold == number
        if not mine.any() or mine.all():
            continue
        away = abs(mine.mean() - 1 / FOLDS)
        if marks is not None and marks.any():
            away += abs(marks[mine].sum() / marks.sum() - 1 / FOLDS)
        rank = (not marked_both(mine, marks), float(away))
        if rank < least:
            found, least = mine, rank
    return found


def marked_both(held_out: np.ndarray, marks: np.ndarray | None) -> bool:
    """Whether both parts hold some of what is looked for; True where nothing is."""
    return marks is None or bool(marks[held_out].any() and marks[~held_out].any())


def _evenly(count: int, most: int) -> np.ndarray:
    """Return up to ``most`` of ``count`` numbers, spread evenly."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).astype(np.int64))


def scaled(values: np.ndarray, scalings: Sequence[Scaling]) -> np.ndarray:
    """Return (C, H, W) as a network takes it, band by band."""
    return np.stack([scaling.apply(band) for scaling, band in zip(scalings, values, strict=True)])
