"""Which pixels count: the union of everything that may say "no data here".

Only the chosen bands and the dataset's own masks are asked (CONTRACTS.md, section 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window

#: No backscatter, reflectance or height is that large: 1e38, 3.4e38 and netCDF's 9.97e36 are marks
#: that somebody forgot to declare.
ABSURD = 1e30


@dataclass(frozen=True)
class Validity:
    """How to tell one band's valid pixels.

    ``nodata``: the declared value in the band's own dtype, or None when there is none or no pixel
    can have it (-9999 on uint8). ``mask``: the band has a mask of its own (.msk, internal, alpha).
    ``alpha``: index of an alpha band, or None.
    """

    band: int
    nodata: float | int | None
    mask: bool
    alpha: int | None

    def valid(self, masks: KnownMasks, values: np.ndarray) -> np.ndarray:
        """Return bool (h, w): True where ``values``, read from the window of ``masks``, may be used."""
        valid = finite(values)
        if self.nodata is not None:
            valid &= values != values.dtype.type(self.nodata)
        if self.mask:
            valid &= masks.mask(self.band)
        if self.alpha is not None:
            valid &= masks.alpha(self.alpha)
        return valid


class KnownMasks:
    """The masks of one window, each read once however many bands share it."""

    def __init__(self, dataset: DatasetReader, window: Window) -> None:
        """Read nothing yet."""
        self._dataset = dataset
        self._window = window
        self._shared: np.ndarray | None = None
        self._alpha: dict[int, np.ndarray] = {}

    def mask(self, band: int) -> np.ndarray:
        """Return bool (h, w): True where the band's mask says that there is data."""
        if MaskFlags.per_dataset not in self._dataset.mask_flag_enums[band - 1]:
            return self._dataset.read_masks(band, window=self._window) != 0
        if self._shared is None:
            self._shared = self._dataset.read_masks(band, window=self._window) != 0
        return self._shared

    def alpha(self, band: int) -> np.ndarray:
        """Return bool (h, w): True where an alpha band is not 0."""
        if band not in self._alpha:
            self._alpha[band] = self._dataset.read(band, window=self._window) != 0
        return self._alpha[band]


def finite(values: np.ndarray) -> np.ndarray:
    """Return True where a value is a number of a size that can be meant."""
    if values.dtype.kind != "f":
        return np.ones(values.shape, bool)
    with np.errstate(invalid="ignore"):
        return np.abs(values) < ABSURD  # False for NaN as well


def validity(dataset: DatasetReader, band: int) -> Validity:
    """Read from an open dataset how ``band`` marks its pixels."""
    flags = set(dataset.mask_flag_enums[band - 1])
    # a plain nodata mask is the comparison that we do ourselves, without reading twice
    mask = not flags & {MaskFlags.all_valid} and flags != {MaskFlags.nodata}
    alphas = [i for i, meaning in enumerate(dataset.colorinterp, 1) if meaning == ColorInterp.alpha]
    alpha = next((i for i in alphas if i != band), None)
    if MaskFlags.alpha in flags:
        alpha = None  # the mask band is the alpha band
    return Validity(
        band, _nodata(dataset.nodatavals[band - 1], np.dtype(dataset.dtypes[band - 1])), mask, alpha
    )


def _nodata(value: float | None, dtype: np.dtype) -> float | int | None:
    if value is None:
        return None
    if dtype.kind == "f":
        return None if np.isnan(value) else float(value)  # NaN is never valid anyway
    limits = np.iinfo(dtype)
    if not np.isfinite(value) or value != int(value) or not limits.min <= value <= limits.max:
        return None
    return int(value)
