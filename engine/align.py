"""Several layers on one grid: the ground they share, and each layer's pixels there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
#: Source pixels a side that are interpolated at once, whatever the window: positions alone take 16 bytes
#: for each, and a block of rows of a wide scene has millions. But never fewer than MIN_SIDE of the grid.
PIECE, MIN_SIDE = 512, 64
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

    def read(self, reader: Reader, rect: Rect) -> tuple[np.ndarray, np.ndarray]:
        """Return (values, valid bool), both (C, height, width), of a window of the grid.

        ``reader``: of the layer's own scene. Interpolated integers are rounded, so that values keep their
        dtype.
        """
        dtype = np.result_type(*(self.scene.dtypes[band - 1] for band in self.scene.bands))
        found = np.zeros((len(self.scene.bands), *rect[2:]), dtype)
        valid = np.zeros(found.shape, bool)
        if self.offset is not None:
            inside = self._inside(rect, self.offset)
            if inside is not None:
                part, window = inside
                found[part], valid[part] = reader.read_bands(*window)
            return found, valid
        for part, (values, there) in self._interpolated(reader, rect, True):
            found[part], valid[part] = _as(values, dtype), there
        return found, valid

    def read_valid(self, reader: Reader, rect: Rect) -> np.ndarray:
        """Return bool (height, width): where all chosen bands have data; nothing is interpolated."""
        valid = np.zeros(rect[2:], bool)
        if self.offset is not None:
            inside = self._inside(rect, self.offset)
            if inside is not None:
                part, window = inside
                valid[part[1:]] = reader.read_valid(*window)
            return valid
        for part, (_, there) in self._interpolated(reader, rect, False):
            valid[part[1:]] = there.all(axis=0)
        return valid

    def _inside(self, rect: Rect, offset: tuple[int, int]) -> tuple[tuple[slice, ...], Rect] | None:
        """Return which part of a window lies in the file, and where there; None for none."""
        row, col, height, width = rect
        top, left = row + offset[0], col + offset[1]
        first, last = max(0, -top), min(height, self.scene.height - top)
        begin, end = max(0, -left), min(width, self.scene.width - left)
        if first >= last or begin >= end:
            return None
        part = np.s_[:, first:last, begin:end]
        return part, (top + first, left + begin, last - first, end - begin)

    def _interpolated(
        self, reader: Reader, rect: Rect, values: bool
    ) -> Iterator[tuple[tuple[slice, ...], tuple[np.ndarray, np.ndarray]]]:
        """Yield parts of a window and what lies there, piece by piece: the same in any pieces."""
        row, col, height, width = rect
        side = max(MIN_SIDE, int(PIECE / (self.finer[0] * self.finer[1]) ** 0.5))
        for top in range(0, height, side):
            for left in range(0, width, side):
                part = np.s_[:, top : min(height, top + side), left : min(width, left + side)]
                answer = resample(
                    reader.read_bands,
                    self.scene.georef,
                    (self.scene.height, self.scene.width),
                    self.grid,
                    (row + top + self.shift[1], col + left + self.shift[0]),
                    (part[1].stop - top, part[2].stop - left),
                    (samples_for(self.finer[0]), samples_for(self.finer[1])),
                    values,
                )
                if answer is not None:
                    yield part, answer


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


def samples_for(finer: float) -> int:
    """Return how many samples along an axis stand for a pixel with ``finer`` source pixels in it."""
    return 1 if finer < FINER else min(MOST_SAMPLES, math.ceil(finer))


def _as(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return float64 as a layer's dtype, integers rounded; they lie between its own values."""
    if dtype.kind not in "iu":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
