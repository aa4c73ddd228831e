"""How an output raster says "no data here": decided once from the input, applied to every window.

An input may mark its pixels by a nodata value per band, NaN, infinity or absurd numbers, a mask or an
alpha band. A GeoTIFF holds one nodata value, one mask and alpha bands; this module translates
(CONTRACTS.md, section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader

from .drivers import gdal_env, open_dataset
from .errors import EngineError
from .scene import Scene
from .validity import ABSURD, finite

#: Of float scores and regressions: no probability or height, and every program reads it without
#: rounding. Not NaN, which some viewers draw as 0 and which comparisons lose.
SCORES_NODATA = -9999.0
#: Of class numbers, so up to 255 classes 0..254; 0 stays the first class.
CLASSES_NODATA = 255
#: Of floats that have none but need one: the lowest float32, which GDAL and QGIS themselves propose.
#: As |x| >= 1e30 is invalid anyway, no valid pixel has it.
LATE_NODATA = -3.4028234663852886e38

#: GDAL takes floats for the nodata value up to 4 float32 epsilons beside it, in float64 rasters too
#: (observed, 3.10: relative 4.77e-7); a bit more, so that rounding does not lead back.
_TOLERANCE = 6e-7

#: rasterio writes nodata as a double with 17 digits: larger 64-bit integers read back as others
#: (observed: -9223372036854775808 as -9), so this takes their place.
_LARGEST_EXACT = 2**53


@dataclass
class MarkCounts:
    """What :meth:`Marks.apply` did: counts of values, over all bands.

    ``moved``: valid values that were the nodata value and are now its neighbour. ``foreign``: NaN,
    infinite and absurd values that became nodata. ``needed``: ``value`` must be declared now,
    because a pixel has it.
    """

    moved: int = 0
    foreign: int = 0
    needed: bool = False
    value: float = LATE_NODATA

    def merge(self, other: MarkCounts) -> None:
        """Add what another window counted."""
        self.moved += other.moved
        self.foreign += other.foreign
        self.needed |= other.needed


@dataclass(frozen=True)
class Marks:
    """The marks of one output raster.

    ``nodata``: declared from the start, None for none. ``late``: declared only when a pixel needs it.
    ``sources``: for each band the value that marks its pixels in the input (NaN is possible).
    ``mask``: the output has a mask band; ``each``: the input has one per band, not one for all.
    ``alpha``: positions of alpha bands, which are never touched. ``fill``: every invalid pixel gets
    the nodata value, for values that the input does not hold. ``movable``: a neighbour of the nodata
    value means about the same, which is not so for classes.
    """

    dtype: np.dtype
    nodata: float | int | None
    sources: tuple[float | int | None, ...]
    late: float | None = None
    mask: bool = False
    each: bool = False
    alpha: tuple[int, ...] = ()
    fill: bool = False
    movable: bool = True

    def apply(self, values: np.ndarray, valid: np.ndarray) -> MarkCounts:
        """Mark ``values`` (C, h, w) in place; ``valid`` bool (C, h, w) says which mean something.

        Invalid pixels hold what the input holds. Afterwards no valid one reads as nodata, and each
        invalid one does, by its value, the mask of :meth:`mask_of` or the alpha band.
        """
        assert values.dtype == self.dtype, (values.dtype, self.dtype)
        assert len(values) == len(self.sources)
        counts = MarkCounts()
        nodata = self.late if self.nodata is None else self.nodata
        for i, (band, known) in enumerate(zip(values, valid, strict=True)):
            if i in self.alpha or nodata is None:
                continue
            unmeant = ~known
            if unmeant.any():
                foreign = unmeant & ~finite(band)
                own = _equals(band, self.sources[i]) & unmeant
                counts.foreign += int(np.count_nonzero(foreign & ~own))
                marked = unmeant if self.fill else foreign | own
                band[marked] = nodata
                counts.needed |= self.nodata is None and bool(marked.any())
            if self.dtype.kind == "f":
                _limit(band, known)
            moved = _step_aside(band, known, nodata)
            assert self.movable or not moved, f"a valid pixel is {nodata}"
            counts.moved += moved
        return counts

    def mask_of(self, valid: np.ndarray) -> np.ndarray:
        """Return the mask band (h, w), True = data, from ``valid`` (C, h, w) of all output bands.

        A pixel that lacks one band only keeps the others: there the nodata value speaks. Where the
        input masks each band for itself, one mask for all can only be their intersection.
        """
        bands = [i for i in range(len(valid)) if i not in self.alpha]
        if not bands:
            return np.ones(valid.shape[1:], bool)
        combine = np.logical_and if self.each else np.logical_or
        return combine.reduce(valid[bands], axis=0)


def score_marks(count: int) -> Marks:
    """Return the marks of ``count`` float32 bands of scores or other measures of a model's own."""
    return Marks(np.dtype("float32"), SCORES_NODATA, (None,) * count, fill=True)


def class_marks() -> Marks:
    """Return the marks of one uint8 band of class numbers 0..254."""
    return Marks(np.dtype("uint8"), CLASSES_NODATA, (None,), fill=True, movable=False)


def plan_marks(scene: Scene, numbers: Sequence[int]) -> Marks:
    """Return the marks of a raster with the bands ``numbers`` (from 1) of ``scene``, in that order.

    The first possible nodata value among these bands is that of the output. Raises EngineError when
    the bands have different dtypes.
    """
    dtype = _one_dtype(scene, numbers)
    with gdal_env(), open_dataset(scene.path) as dataset:
        alphas = [b for b in dataset.indexes if dataset.colorinterp[b - 1] == ColorInterp.alpha]
        sources = tuple(None if n in alphas else _source(scene, dataset, n) for n in numbers)
        flags = [set(dataset.mask_flag_enums[n - 1]) for n in numbers if n not in alphas]
    masked = [scene.validities[n - 1].mask for n in numbers if n not in alphas]
    real = [
        kinds
        for kinds, has_mask in zip(flags, masked, strict=True)
        if has_mask and MaskFlags.alpha not in kinds
    ]
    lost_alpha = bool(alphas) and not set(alphas) & set(numbers)
    nodata = next((value for value in sources if value is not None), None)
    return Marks(
        dtype=dtype,
        nodata=_writable(nodata, dtype),
        sources=sources,
        late=LATE_NODATA if nodata is None and dtype.kind == "f" else None,
        mask=bool(real) or lost_alpha,
        each=any(MaskFlags.per_dataset not in kinds for kinds in real),
        alpha=tuple(i for i, n in enumerate(numbers) if n in alphas),
    )


def _one_dtype(scene: Scene, numbers: Sequence[int]) -> np.dtype:
    first = scene.dtypes[numbers[0] - 1]
    chosen = {scene.dtypes[band - 1] for band in scene.bands}
    hint = "Set OTHER_BANDS to drop, or convert the raster to one type first."
    if len(chosen) > 1:
        hint = "Convert the raster to one type first."
    for number in numbers:
        dtype = scene.dtypes[number - 1]
        if dtype != first:
            raise EngineError(
                "input",
                f"{scene.path.name} has bands of different types (band {numbers[0]} is {first}, "
                f"band {number} is {dtype}), and the output can have one type only.",
                hint,
            )
    return first


def _source(scene: Scene, dataset: DatasetReader, number: int) -> float | int | None:
    """Return the value that marks a band's pixels, None where there is none or none that can occur."""
    known, declared = scene.validities[number - 1].nodata, dataset.nodatavals[number - 1]
    dtype = scene.dtypes[number - 1]
    if dtype.kind != "f":
        return known
    if declared is not None and np.isnan(declared):
        return float("nan")
    with np.errstate(over="ignore"):  # -1.8e308 means -inf in a float32 band, for GDAL too
        return None if known is None else float(dtype.type(known))


def _writable(nodata: float | int | None, dtype: np.dtype) -> float | int | None:
    if nodata is not None and dtype.kind in "iu" and abs(nodata) > _LARGEST_EXACT:
        return _LARGEST_EXACT if dtype.kind == "u" else -_LARGEST_EXACT
    return nodata


def _equals(band: np.ndarray, source: float | int | None) -> np.ndarray:
    if source is None:
        return np.zeros(band.shape, bool)
    if source != source:
        return np.isnan(band)
    return band == band.dtype.type(source)


def _limit(band: np.ndarray, known: np.ndarray) -> None:
    """Keep valid floats below what counts as absurd: a change may lead there from just below it."""
    wild = known & ~finite(band)
    if wild.any():
        most = np.nextafter(band.dtype.type(ABSURD), band.dtype.type(0))
        assert not np.isnan(band[wild]).any(), "a valid pixel is NaN"
        band[wild] = np.clip(band[wild], -most, most)


def _step_aside(band: np.ndarray, known: np.ndarray, nodata: float | int) -> int:
    """Move valid values that would read as ``nodata`` to the nearest that do not; return how many."""
    dtype = band.dtype
    if dtype.kind == "f":
        if not abs(nodata) < ABSURD:  # NaN and absurd marks: no valid value is near
            return 0
        below, above = _neighbours(nodata, dtype)
        near = known & (band > below) & (band < above)
        down = near & (band < dtype.type(nodata))
        if not abs(above) < ABSURD:
            down = near
    else:
        limits = np.iinfo(dtype)
        below = dtype.type(max(nodata - 1, limits.min))
        above = dtype.type(min(nodata + 1, limits.max))
        near = known & (band == dtype.type(nodata))
        down = near if nodata == limits.max else np.zeros(band.shape, bool)
    count = int(np.count_nonzero(near))
    if count:
        band[near] = above
        band[down] = below
    return count


def _neighbours(nodata: float, dtype: np.dtype) -> tuple[np.floating, np.floating]:
    """Return the nearest floats below and above that GDAL does not take for ``nodata``."""
    exact = dtype.type(nodata)
    reach = _TOLERANCE * abs(nodata)
    least, most = dtype.type(-np.inf), dtype.type(np.inf)
    below = min(dtype.type(nodata - reach), np.nextafter(exact, least))
    above = max(dtype.type(nodata + reach), np.nextafter(exact, most))
    return below, above
