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
    """Sample a scene; ``region`` is the pixel rectangle of EXTENT/AOI, or None.

    Raises EngineError when the raster holds no valid pixel or one value only.
    """
    whole = (0, 0, scene.height, scene.width)
    with scene.reader() as reader:
        samples = _sample(reader, _lattice(scene, whole), track)
        source = "the whole raster"
        if not len(samples) and region is not None:
            samples = _sample(reader, _lattice(scene, region), track)
            source = "EXTENT/AOI"
        if _same(samples):
            # rare: nearly empty or nearly constant; only the last block can prove that it is so
            found = _until_different(reader, region or whole, samples, track)
            # millions of equal samples would leave nothing between two percentiles
            samples = np.concatenate([samples, found]) if _same(found) else found
            source = "the first blocks with different values"
    if _same(samples):
        _refuse(scene, samples, region)
    samples.sort()
    return Statistics(samples, source)


def _refuse(scene: Scene, samples: np.ndarray, region: Rect | None) -> None:
    where = f"band {scene.band} of {scene.path.name}" + (" inside EXTENT/AOI" if region else "")
    if len(samples):
        raise EngineError(
            "input", f"All valid pixels of {where} have the value {samples[0]:g}.", "Choose another band."
        )
    raise EngineError("input", f"All pixels of {where} are nodata.", "Choose another band, file or area.")


def _sample(reader: Reader, cells: list[Rect], track: Track) -> np.ndarray:
    """Return the valid values of cells, thinned evenly to SAMPLES in all."""
    per_cell = max(1, SAMPLES // max(1, len(cells)))
    found = []
    for number, cell in enumerate(cells):
        track.check()
        track.progress(0, number, len(cells), "statistics", None)
        found.append(_thinned(_values(reader, cell), per_cell))
    return np.concatenate(found) if found else np.empty(0, reader.scene.dtype)


def _until_different(reader: Reader, rect: Rect, known: np.ndarray, track: Track) -> np.ndarray:
    """Read all cells of ``rect`` until two values are known, then up to BLOCKS more for a fair sample.

    The first cell with values may hold the corner of the valid part only, some pixels of its edge.
    """
    found: list[np.ndarray] = []
    more = BLOCKS
    for cell in _cells(reader.scene, rect):
        track.check()
        track.progress(0, cell[0] - rect[0], rect[2], "statistics", None)
        values = _values(reader, cell)
        if not len(values):
            continue
        # the extremes too, so that thinning cannot lose the difference
        seen = np.append(_thinned(values, 10_000), [values.min(), values.max()]).astype(values.dtype)
        if _same(np.concatenate([known[:1], *found, seen])):
            found = [seen[:1]]
            continue
        found.append(seen)
        more -= 1
        if more < 0 or sum(map(len, found)) >= ENOUGH:
            break
    return np.concatenate(found) if found else np.empty(0, reader.scene.dtype)


def _same(values: np.ndarray) -> bool:
    return not len(values) or values.min() == values.max()


def _values(reader: Reader, cell: Rect) -> np.ndarray:
    values, valid = reader.read(*cell)
    return values[valid]


def _thinned(values: np.ndarray, count: int) -> np.ndarray:
    return values[:: -(-len(values) // count)] if len(values) > count else values


def _cell_shape(scene: Scene) -> tuple[int, int]:
    """Return rows and columns of what is read at once: one block, or a part of a large one."""
    rows, cols = (min(a, b) for a, b in zip(scene.block, (scene.height, scene.width), strict=True))
    cols = min(cols, max(512, CELL_PIXELS // rows))
    return min(rows, max(1, CELL_PIXELS // cols)), cols


def _lattice(scene: Scene, rect: Rect) -> list[Rect]:
    """Return up to BLOCKS cells, evenly spread over ``rect``; the same for the same raster."""
    rows, cols = _cell_shape(scene)
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


def _cells(scene: Scene, rect: Rect) -> Iterator[Rect]:
    """Yield all cells of ``rect`` in reading order."""
    rows, cols = _cell_shape(scene)
    for i in range(rect[0] // rows, -(-(rect[0] + rect[2]) // rows)):
        for j in range(rect[1] // cols, -(-(rect[1] + rect[3]) // cols)):
            yield _cell(i, j, rows, cols, rect)


def _cell(i: int, j: int, rows: int, cols: int, rect: Rect) -> Rect:
    """Return cell (i, j) cut to ``rect``."""
    top, left = max(i * rows, rect[0]), max(j * cols, rect[1])
    bottom = min((i + 1) * rows, rect[0] + rect[2])
    right = min((j + 1) * cols, rect[1] + rect[3])
    return top, left, bottom - top, right - left
