"""What goes into a tile: read, scaled, filled, padded (ENGINE.md, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..models.task import Input, Tiles
from .grid import Grid, Tile
from .scaling import Scaling
from .scene import Reader


@dataclass(frozen=True)
class Loaded:
    """One tile ready for the model; ``image`` is None when the tile holds no valid pixel that counts.

    ``image``: float32 (C, T, T). ``valid``: bool (h, w) of the window alone, without padding: True
    where all bands are valid.
    """

    tile: Tile
    image: np.ndarray | None
    valid: np.ndarray


def whole(tile: Tile) -> tuple[slice, slice]:
    """Return the rows and columns of a tile that count: all of them."""
    return slice(0, tile.height), slice(0, tile.width)


@dataclass(frozen=True)
class Loader:
    """How this scene's tiles become input.

    ``scalings``: one for each band. ``fill``: in scaled units, or None for ``nearest``. ``counts``: the
    rows and columns of a tile that can show in the result; a tile without a valid pixel there is skipped.
    """

    grid: Grid
    input: Input
    scalings: tuple[Scaling, ...]
    fill: float | None
    counts: Callable[[Tile], tuple[slice, slice]] = whole

    def load(self, reader: Reader, tile: Tile) -> Loaded:
        """Read one tile; called by the reader thread."""
        values, valid = reader.read_bands(tile.row, tile.col, tile.height, tile.width)
        valid = valid[0] if len(valid) == 1 else valid.all(axis=0)
        if not valid[self.counts(tile)].any():
            return Loaded(tile, None, valid)
        image = self._scaled(values, valid)
        return Loaded(tile, pad(image, self.grid.tile, self.input.pad), valid)

    def _scaled(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        bands = zip(self.scalings, values, strict=True)
        if valid.all():
            return np.stack([scaling.apply(band) for scaling, band in bands])
        image = np.zeros(values.shape, np.float32)
        for place, (scaling, band) in zip(image, bands, strict=True):
            place[valid] = scaling.apply(band[valid])
        if self.fill is not None:
            image[:, ~valid] = self.fill
            return image
        rows, cols = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
        return image[:, rows, cols]


def pad(image: np.ndarray, shape: tuple[int, int], how: float | str) -> np.ndarray:
    """Return (C, h, w) filled up to ``shape`` below and to the right, by reflection or a constant."""
    missing = [(0, 0)] + [(0, want - have) for want, have in zip(shape, image.shape[1:], strict=True)]
    if not any(after for _, after in missing):
        return image
    if how == "reflect":
        return np.pad(image, missing, mode="reflect")
    return np.pad(image, missing, constant_values=np.float32(how))


def stack(loaded: Sequence[Loaded], inputs: Sequence[Input], grid: Grid, land: np.ndarray | None) -> Tiles:
    """Return one batch, each input's bands under its role; ``land`` is bool (B, T, T) or None."""
    filled = [item.image for item in loaded if item.image is not None]
    if len(inputs) == 1:
        images = {inputs[0].role: np.stack(filled)}
    else:
        images, first = {}, 0
        for each in inputs:
            images[each.role] = np.stack([image[first : first + each.bands] for image in filled])
            first += each.bands
    valid = np.zeros((len(loaded), *grid.tile), bool)
    for place, item in zip(valid, loaded, strict=True):
        place[: item.valid.shape[0], : item.valid.shape[1]] = item.valid
    return Tiles(
        images=images,
        valid=valid,
        land=land,
        rows=np.array([item.tile.row for item in loaded]),
        cols=np.array([item.tile.col for item in loaded]),
    )
