"""What goes into a tile of several inputs: each scaled, and filled so that no fill is a difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..models.task import Input
from .grid import Grid, Tile
from .scaling import Scaling
from .scene import Reader
from .tiles import Loaded, pad, whole

FILLS = {"median": 0.5, "zero": 0.0}


@dataclass(frozen=True)
class JoinedLoader:
    """How the tiles of a joined scene become input.

    ``inputs``, ``parts``: what the task wants and which bands are its; ``scalings``: one for each band.
    ``counts``: as for :class:`.tiles.Loader`. A pixel is valid where all inputs are.
    """

    grid: Grid
    inputs: tuple[Input, ...]
    parts: tuple[slice, ...]
    scalings: tuple[Scaling, ...]
    counts: Callable[[Tile], tuple[slice, slice]] = whole

    def load(self, reader: Reader, tile: Tile) -> Loaded:
        """Read one tile; called by the reader thread."""
        values, valid = reader.read_bands(tile.row, tile.col, tile.height, tile.width)
        everywhere = valid.all(axis=0)
        if not everywhere[self.counts(tile)].any():
            return Loaded(tile, None, everywhere)
        there = [valid[part].all(axis=0) for part in self.parts]
        images = []
        for part, known in zip(self.parts, there, strict=True):
            image = np.zeros((part.stop - part.start, *known.shape), np.float32)
            for place, band, scaling in zip(image, values[part], self.scalings[part], strict=True):
                place[known] = scaling.apply(band[known])
            images.append(image)
        if not everywhere.all():
            images = self._filled(images, there)
        padded = [
            pad(image, self.grid.tile, wanted.pad) for image, wanted in zip(images, self.inputs, strict=True)
        ]
        return Loaded(tile, np.concatenate(padded), everywhere)

    def _filled(self, images: list[np.ndarray], there: Sequence[np.ndarray]) -> list[np.ndarray]:
        shared = [i for i, wanted in enumerate(self.inputs) if wanted.fill == "other"]
        found = [
            image if i in shared else _alone(image, known, wanted.fill)
            for i, (image, known, wanted) in enumerate(zip(images, there, self.inputs, strict=True))
        ]
        if shared:
            together = fill_from_others([images[i] for i in shared], [there[i] for i in shared])
            for i, image in zip(shared, together, strict=True):
                found[i] = image
        return found


def fill_from_others(images: Sequence[np.ndarray], there: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Fill images (C, h, w) where they have no data so that there they are all alike.

    ``there``: bool (h, w) for each. A pixel that some have takes the first of these for those without; one
    that none has takes the nearest known one of that first choice for all.
    """
    first, known = images[0].copy(), there[0].copy()
    for image, has in zip(images[1:], there[1:], strict=True):
        new = has & ~known
        first[:, new] = image[:, new]
        known |= has
    if not known.all():
        first = _nearest(first, known)
    found = []
    for image, has in zip(images, there, strict=True):
        found.append(np.where(has, image, first))
    return found


def _alone(image: np.ndarray, known: np.ndarray, fill: str) -> np.ndarray:
    if known.all():
        return image
    if fill == "nearest" and known.any():
        return _nearest(image, known)
    return np.where(known, image, np.float32(FILLS.get(fill, 0.5)))


def _nearest(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    rows, cols = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(image[:, rows, cols])
