"""What goes into a tile: read, scaled, filled, padded (ENGINE.md, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..models.task import Input, Tiles
from .grid import Grid, Tile
from .scaling import Scaling
from .scene import Reader


@dataclass(frozen=True)
class Loaded:
    """One tile ready for the model; ``image`` is None when the tile holds no valid pixel.

    ``image``: float32 (C, T, T). ``valid``: bool (h, w) of the window alone, without padding.
    """

    tile: Tile
    image: np.ndarray | None
    valid: np.ndarray


@dataclass(frozen=True)
class Loader:
    """How this scene's tiles become input; ``fill`` is in scaled units, or None for ``nearest``."""

    grid: Grid
    input: Input
    scaling: Scaling
    fill: float | None

    def load(self, reader: Reader, tile: Tile) -> Loaded:
        """Read one tile; called by the reader thread."""
        values, valid = reader.read(tile.row, tile.col, tile.height, tile.width)
        if not valid.any():
            return Loaded(tile, None, valid)
        image = self._scaled(values, valid)
        return Loaded(tile, pad(image, self.grid.tile, self.input.pad)[None], valid)

    def _scaled(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        if valid.all():
            return self.scaling.apply(values)
        image = np.zeros(values.shape, np.float32)
        image[valid] = self.scaling.apply(values[valid])
        if self.fill is not None:
            image[~valid] = self.fill
            return image
        rows, cols = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
        return image[rows, cols]


def pad(image: np.ndarray, shape: tuple[int, int], how: float | str) -> np.ndarray:
    """Return (h, w) filled up to ``shape`` below and to the right, by reflection or a constant."""
    missing = [(0, want - have) for want, have in zip(shape, image.shape, strict=True)]
    if not any(after for _, after in missing):
        return image
    if how == "reflect":
        return np.pad(image, missing, mode="reflect")
    return np.pad(image, missing, constant_values=np.float32(how))


def stack(loaded: Sequence[Loaded], role: str, grid: Grid, land: np.ndarray | None) -> Tiles:
    """Return one batch; ``land`` is bool (B, T, T) or None."""
    images = np.stack([item.image for item in loaded if item.image is not None])
    valid = np.zeros((len(loaded), *grid.tile), bool)
    for place, item in zip(valid, loaded, strict=True):
        place[: item.valid.shape[0], : item.valid.shape[1]] = item.valid
    return Tiles(
        images={role: images},
        valid=valid,
        land=land,
        rows=np.array([item.tile.row for item in loaded]),
        cols=np.array([item.tile.col for item in loaded]),
    )
