"""Several layers on one grid: the ground they share, and each layer's pixels there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from affine import Affine

from .errors import EngineError
from .georef import Georef
from .raster_plan import SNAP_PX
from .reference import SAME_PX, Words, check_places, footprint, same_crs
from .region import raster_outline
from .resample import resample, scale_of
from .scene import Reader, Scene
from .statistics import Rect

#: Samples along an axis for each pixel of the grid at most, where a layer is finer.
MOST_SAMPLES = 8
#: A layer less than so many times finer is not averaged: bilinear weights see its pixels all the same.
FINER = 1.25


@dataclass(frozen=True)
class Layer:
    """One input laid on a grid.

    ``scene``: the file with its chosen bands. ``grid``: the common grid. ``shift``: (x, y) pixels of the
    grid by which its pictures lie right of and below their place, so that it is read from there.
    ``offset``: (row, column) of the grid's first pixel in the file, None where pixels are interpolated.
    ``finer``: (rows, columns) of the file in one pixel of the grid.
    """

    role: str
    scene: Scene
    grid: Georef
    shift: tuple[float, float]
    offset: tuple[int, int] | None
    finer: tuple[float, float]

    @property
    def name(self) -> str:
        """Return what messages call it."""
        return f"{self.role.upper()} {self.scene.path.name}"

    @property
    def resampled(self) -> bool:
        """Return whether its pixels are interpolated."""
        return self.offset is None

    def with_bands(self, bands: Sequence[int]) -> Layer:
        """Return the same layer with other bands chosen."""
        return replace(self, scene=self.scene.with_bands(bands))

    def read(
        self, reader: Reader, rect: Rect, bands: Sequence[int] | None = None, values: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (values, valid bool), both (C, height, width), of a window of the grid.

        ``reader``: of the layer's own scene; ``bands``: numbers of its file, None for the chosen ones.
        Interpolated integers are rounded, so that values keep their dtype. ``values`` False: only
        ``valid`` means something.
        """
        numbers = self.scene.bands if bands is None else tuple(bands)
        dtype = np.result_type(*(self.scene.dtypes[band - 1] for band in numbers))
        row, col, height, width = rect
        found = np.zeros((len(numbers), height, width), dtype)
        valid = np.zeros(found.shape, bool)
        if self.offset is not None:
            top, left = row + self.offset[0], col + self.offset[1]
            first, last = max(0, -top), min(height, self.scene.height - top)
            begin, end = max(0, -left), min(width, self.scene.width - left)
            if first < last and begin < end:
                part = np.s_[:, first:last, begin:end]
                found[part], valid[part] = reader.read_bands(
                    top + first, left + begin, last - first, end - begin, numbers
                )
            return found, valid
        high, wide = (_samples(each) for each in self.finer)
        answer = resample(
            lambda row, col, height, width: reader.read_bands(row, col, height, width, numbers),
            self.scene.georef,
            (self.scene.height, self.scene.width),
            self.grid,
            (row + self.shift[1], col + self.shift[0]),
            (height, width),
            (high, wide),
            values,
        )
        if answer is None:
            return found, valid
        return _as(answer[0], dtype), answer[1]


def lay(
    role: str, scene: Scene, grid: Georef, size: tuple[int, int], shift: tuple[float, float] = (0.0, 0.0)
) -> Layer:
    """Lay a scene on a grid of ``size`` (rows, columns): as it is where its pixels fit, else interpolated.

    Grids that agree within 0.05 pixels everywhere are the same; other programs round transforms.
    """
    height, width = size
    own = scene.height, scene.width
    move = ~scene.georef.affine * grid.affine * Affine.translation(*shift)
    stretched = max(abs(move.a - 1), abs(move.b), abs(move.d), abs(move.e - 1)) * max(size)
    beside = max(abs(move.c - round(move.c)), abs(move.f - round(move.f)))
    offset = None
    if stretched < SAME_PX and beside < SAME_PX and same_crs(scene.georef, grid):
        offset = round(move.f), round(move.c)
        if not (-height < offset[0] < own[0] and -width < offset[1] < own[1]):
            offset = None  # it overlaps, so its longitudes are a turn apart
    finer = (1.0, 1.0) if offset else scale_of(scene.georef, own, grid, (height / 2, width / 2))
    return Layer(role, scene, grid, shift, offset, finer)


def common_ground(scenes: Sequence[tuple[str, Scene]]) -> Rect:
    """Return the pixels of the first scene's grid whose centres lie in the rectangle all rasters share.

    ``scenes``: (role, scene); whatever their pixels hold. Raises EngineError where they share nothing, or
    where the place of one is not known.
    """
    (first, reference), *others = scenes
    shared = raster_outline(reference)
    for role, scene in others:
        check_places(reference, scene, Words(role.upper(), f"{first.upper()} {reference.path.name}", ""))
        if scene.georef.kind != "none":  # without a place they are of one size: checked
            shared = shapely.intersection(shared, footprint(reference, scene))
        rect = _whole_pixels(shared)
        if rect is None:
            raise EngineError(
                "input",
                f"{first.upper()} {reference.path.name} and {role.upper()} {scene.path.name} do not overlap.",
                "Choose rasters of the same ground, or check their CRS.",
            )
    rect = _whole_pixels(shared)
    assert rect is not None
    return rect


def _whole_pixels(shape: shapely.Geometry) -> Rect | None:
    """Return the pixels whose centres lie in a shape's bounds, None for none."""
    if shapely.area(shape) == 0:
        return None
    left, top, right, bottom = map(float, shapely.bounds(shape))
    row, col = math.ceil(top - 0.5 - SNAP_PX), math.ceil(left - 0.5 - SNAP_PX)
    end_row, end_col = math.floor(bottom + 0.5 + SNAP_PX), math.floor(right + 0.5 + SNAP_PX)
    return (row, col, end_row - row, end_col - col) if end_row > row and end_col > col else None


def _samples(finer: float) -> int:
    return 1 if finer < FINER else min(MOST_SAMPLES, math.ceil(finer))


def _as(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return float64 as a layer's dtype, integers rounded; they lie between its own values."""
    if dtype.kind not in "iu":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
