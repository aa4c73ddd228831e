"""What a raster that the engine writes shall be: decided before the first window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Target:
    """One output raster. Nothing of it comes from another file unless it is named here.

    ``crs`` None and ``transform`` None (or identity): written without. ``mask``: the windows bring a
    mask, kept inside the file. ``descriptions``, ``colorinterp``, ``units``, ``scales``, ``offsets``,
    ``band_tags``: one per band, or empty for none. ``colormap``: index -> RGBA, of a single band of
    uint8 or uint16. ``resampling`` is that of the overviews: ``average`` for measures, ``nearest`` or
    ``mode`` for classes.
    """

    width: int
    height: int
    count: int
    dtype: np.dtype | str
    crs: CRS | None = None
    transform: Affine | None = None
    nodata: float | int | None = None
    mask: bool = False
    descriptions: tuple[str | None, ...] = ()
    colorinterp: tuple[ColorInterp, ...] = ()
    units: tuple[str | None, ...] = ()
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    band_tags: tuple[Mapping[str, str], ...] = ()
    tags: Mapping[str, str] = field(default_factory=lambda: _NONE)
    colormap: Mapping[int, tuple[int, ...]] | None = None
    resampling: Literal["average", "nearest", "mode"] = "average"
    cog: bool = False

    def __post_init__(self) -> None:
        """Check the numbers of things per band: a programmer's error, not a user's."""
        per_band = ("descriptions", "colorinterp", "units", "scales", "offsets", "band_tags")
        for name in per_band:
            assert len(getattr(self, name)) in (0, self.count), name
        assert self.width > 0 < self.height
        assert self.colormap is None or self.count == 1

    @property
    def type(self) -> np.dtype:
        """Return the dtype as numpy's."""
        return np.dtype(self.dtype)

    @property
    def georeferenced(self) -> bool:
        """Whether there is a transform to write."""
        return self.transform is not None and self.transform != Affine.identity()
