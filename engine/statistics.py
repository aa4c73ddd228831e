"""The scene's statistics, taken once for all tiles (CONTRACTS.md, section 6).

A decimated read decodes every block of a file, so up to 400 blocks on a fixed lattice are read
instead: over the whole raster, and over EXTENT/AOI where the lattice meets no valid pixel. Only
when that finds nothing, or one value only, are all blocks looked at before the scene is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .errors import EngineError
from .events import Track
from .scene import Reader, Scene

BLOCKS = 400
#: Samples kept in all, in the raster's dtype: enough for a percentile of 1 % to 0.01 %.
SAMPLES = 4_000_000
#: Pixels read at once: a block of 512 x 512, or some rows of a striped file.
CELL_PIXELS = 2**18
#: Samples that make a fair percentile where the lattice met nothing.
ENOUGH = 20_000

Rect = tuple[int, int, int, int]  # row, column, height, width


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sorted samples of the scene's valid pixels, in its dtype; ``source`` says where from."""

    samples: np.ndarray
    source: str

    @property
    def dtype(self) -> np.dtype:
        """Return the raster's dtype."""
        return self.samples.dtype

    def percentile(self, percent: float) -> float:
        """Return a percentile of the samples, linearly interpolated."""
        place = (len(self.samples) - 1) * percent / 100
        low = float(self.samples[int(place)])
        high = float(self.samples[min(int(place) + 1, len(self.samples) - 1)])
        return low + (high - low) * (place - int(place))

    @property
    def minimum(self) -> float:
        """Return the smallest sample."""
        return float(self.samples[0])

    @property
    def maximum(self) -> float:
        """Return the largest sample."""
        return float(self.samples[-1])

    @property
    def median(self) -> float:
        """Return the scene's median."""
        return self.percentile(50)


def scene_statistics(scene: Scene, region: Rect | None, track: Track) -> Statistics:
    """Sample a scene's first chosen band; ``region`` is the pixel rectangle of EXTENT/AOI, or None.

    Raises EngineError when the raster holds no valid pixel or one value only.
    """
    (found,) = _collect(scene, scene.bands[:1], region, track)
    if _same(found.samples):
        _refuse(scene, found.samples, region)
    return found


def band_statistics(
    scene: Scene, region: Rect | None, track: Track, brief: bool = False
) -> tuple[Statistics | None, ...]:
    """Sample all chosen bands in one pass; a pixel counts where every one of them is valid.

    ``brief``: nobody will ask for a percentile, so the pass ends as soon as no band is constant.

    Returns one Statistics for each band, or None for each where no pixel counts: an all-nodata
    raster is no reason to refuse a restoration, nor is a single pixel. Raises EngineError for a band
    of many equal ones.
    """
    found = _collect(scene, scene.bands, region, track, brief)
    if not len(found[0].samples):
        return (None,) * len(found)
    for label, statistics in zip(scene.labels, found, strict=True):
        if len(statistics.samples) > 1 and _same(statistics.samples):
            where = f"Band {label}" + (f" of {scene.title}" if label.isdigit() else "")
            where += " inside EXTENT/AOI" if region else ""
            raise EngineError(
                "input",
                f"{where} is constant (all valid pixels are {statistics.minimum:g}).",
                "Choose other BANDS, another file or another area.",
            )
    return found


def _collect(
    scene: Scene, bands: tuple[int, ...], region: Rect | None, track: Track, brief: bool = False
) -> tuple[Statistics, ...]:
    """Return sorted samples of each band: of the lattice, of the region's lattice, or of all blocks."""
    whole = (0, 0, scene.height, scene.width)
    dtypes = [scene.dtypes[band - 1] for band in bands]
    with scene.reader() as reader:
        read = _Cells(reader, bands)
        samples = _sample(read, lattice(scene, whole), track, brief)
        source = "the whole raster"
        if not samples.shape[1] and region is not None:
            samples = _sample(read, lattice(scene, region), track, brief)
            source = "EXTENT/AOI"
        kept = [part.astype(dtype, copy=False) for part, dtype in zip(samples, dtypes, strict=True)]
        sources = [source] * len(kept)
        # rare: nearly empty or nearly constant; only the last block can prove that it is so
        searches = {i: _Search(part[:1]) for i, part in enumerate(kept) if _same(part)}
        if searches:
            _until_different(read, region or whole, searches, track)
        for i, search in searches.items():
            found = search.values(dtypes[i])
            # millions of equal samples would leave nothing between two percentiles
            kept[i] = np.concatenate([kept[i], found]) if _same(found) and search.pixels > 1 else found
            sources[i] = "the first blocks with different values"
    for part in kept:
        part.sort()
    return tuple(Statistics(part, source) for part, source in zip(kept, sources, strict=True))


def _refuse(scene: Scene, samples: np.ndarray, region: Rect | None) -> None:
    where = f"band {scene.band} of {scene.path.name}" + (" inside EXTENT/AOI" if region else "")
    if len(samples):
        raise EngineError(
            "input", f"All valid pixels of {where} have the value {samples[0]:g}.", "Choose another band."
        )
    raise EngineError("input", f"All pixels of {where} are nodata.", "Choose another band, file or area.")


class _Cells:
    """Reads cells as (C, n): the values of n pixels that are valid in all of C bands."""

    def __init__(self, reader: Reader, bands: tuple[int, ...]) -> None:
        self.scene = reader.scene
        self.bands = bands
        self._reader = reader

    def __call__(self, cell: Rect) -> np.ndarray:
        values, valid = self._reader.read_bands(*cell, self.bands)
        everywhere = valid.all(axis=0).ravel()
        # picking by rows of a flat array is twice as fast as by a mask of two axes
        return np.stack([band[everywhere] for band in values.reshape(len(values), -1)])


def _sample(read: _Cells, cells: list[Rect], track: Track, brief: bool) -> np.ndarray:
    """Return the valid values (C, n) of cells, thinned evenly to SAMPLES in all; see band_statistics."""
    per_cell = max(1, SAMPLES // len(read.bands) // max(1, len(cells)))
    found = []
    for number, cell in enumerate(cells):
        track.check()
        track.progress(0, number, len(cells), "statistics", None)
        found.append(_thinned(read(cell), per_cell))
        if brief and found[-1].size and not any(_same(band) for band in found[-1]):
            break
    return np.concatenate(found, axis=1) if found else np.empty((len(read.bands), 0))


class _Search:
    """Looks for a second value of one band, then for a fair sample."""

    def __init__(self, known: np.ndarray) -> None:
        self._known = known
        self._found: list[np.ndarray] = []
        self._more = BLOCKS
        self.pixels = 0
        self.done = False

    def take(self, values: np.ndarray) -> None:
        """Look at the values of one more cell, (n,) with n > 0."""
        self.pixels += len(values)
        # the extremes too, so that thinning cannot lose the difference
        seen = np.append(_thinned(values, 10_000), [values.min(), values.max()]).astype(values.dtype)
        if _same(np.concatenate([self._known, *self._found, seen])):
            self._found = [seen[:1]]
            return
        self._found.append(seen)
        self._more -= 1
        self.done = self._more < 0 or sum(map(len, self._found)) >= ENOUGH

    def values(self, dtype: np.dtype) -> np.ndarray:
        """Return what was found, in the band's own dtype."""
        return np.concatenate([np.empty(0, dtype), *self._found]).astype(dtype)


def _until_different(read: _Cells, rect: Rect, searches: dict[int, _Search], track: Track) -> None:
    """Read all cells of ``rect`` until two values of each band are known, then more for a fair sample.

    The first cell with values may hold the corner of the valid part only, some pixels of its edge.
    """
    for cell in all_cells(read.scene, rect):
        track.check()
        track.progress(0, cell[0] - rect[0], rect[2], "statistics", None)
        values = read(cell)
        if not values.shape[1]:
            continue
        for i, search in searches.items():
            if not search.done:
                search.take(values[i])
        if all(search.done for search in searches.values()):
            break


def _same(values: np.ndarray) -> bool:
    return not len(values) or values.min() == values.max()


def _thinned(values: np.ndarray, count: int) -> np.ndarray:
    """Return about ``count`` of the values along the last axis, as a copy: a view keeps the whole."""
    length = values.shape[-1]
    return values[..., :: -(-length // count)].copy() if length > count else values


def _cell_shape(scene: Scene, least: int = 1) -> tuple[int, int]:
    """Return rows and columns of what is read at once: a block, a part of a large one, or some small ones.

    ``least``: rows and columns that a cell has at the least, where the raster has them.
    """
    grown = (-(-least // side) * side for side in scene.block)
    rows, cols = (min(a, b) for a, b in zip(grown, (scene.height, scene.width), strict=True))
    cols = min(cols, max(512, CELL_PIXELS // rows))
    return min(rows, max(1, CELL_PIXELS // cols)), cols


def lattice(scene: Scene, rect: Rect, least: int = 1) -> list[Rect]:
    """Return up to BLOCKS cells, evenly spread over ``rect``; the same for the same raster.

    A cell is a block of the file, or several where blocks are smaller than ``least`` pixels; it is
    cut at the edges of ``rect``.
    """
    rows, cols = _cell_shape(scene, least)
    down = range(rect[0] // rows, -(-(rect[0] + rect[2]) // rows))
    across = range(rect[1] // cols, -(-(rect[1] + rect[3]) // cols))
    side = int(BLOCKS**0.5)
    n_down = min(len(down), max(side, BLOCKS // len(across)))
    n_across = min(len(across), BLOCKS // n_down)
    picked = (
        (down[int((i + 0.5) * len(down) / n_down)], across[int((j + 0.5) * len(across) / n_across)])
        for i in range(n_down)
        for j in range(n_across)
    )
    return [_cell(i, j, rows, cols, rect) for i, j in picked]


def all_cells(scene: Scene, rect: Rect, least: int = 1) -> Iterator[Rect]:
    """Yield all cells of ``rect`` in reading order; as for :func:`lattice`."""
    rows, cols = _cell_shape(scene, least)
    for i in range(rect[0] // rows, -(-(rect[0] + rect[2]) // rows)):
        for j in range(rect[1] // cols, -(-(rect[1] + rect[3]) // cols)):
            yield _cell(i, j, rows, cols, rect)


def _cell(i: int, j: int, rows: int, cols: int, rect: Rect) -> Rect:
    """Return cell (i, j) cut to ``rect``."""
    top, left = max(i * rows, rect[0]), max(j * cols, rect[1])
    bottom = min((i + 1) * rows, rect[0] + rect[2])
    right = min((j + 1) * cols, rect[1] + rect[3])
    return top, left, bottom - top, right - left
