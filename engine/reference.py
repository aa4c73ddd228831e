"""A raster of the same ground to compare with: what it must have, and its pixels on a scene's grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from .bands import choose_rgb
from .drivers import gdal_env, open_dataset
from .errors import EngineError
from .georef import Georef
from .region import densified, near, polygons_of, raster_outline, to_pixels
from .scene import Reader, Scene, open_scene

#: Grids that agree within so many pixels everywhere are the same grid; other writers round transforms.
SAME_PX = 0.05
#: Reference pixels read around a block that is resampled: bilinear weights reach one pixel, or one
#: output pixel where the reference is finer.
REACH_PX = 3
#: Rasters without a CRS lie in one plane; GDAL wants a name for it, whichever.
PLANE = CRS.from_epsg(3857)


@dataclass(frozen=True)
class Words:
    """What messages call the two rasters: the reference's parameter, the scene, and how to do without."""

    label: str = "REFERENCE"
    target: str = "the output"
    otherwise: str = ", or leave REFERENCE empty"

    @property
    def noun(self) -> str:
        """Return what notes call the reference at the start of a sentence."""
        return "The reference" if self.label == "REFERENCE" else self.label


REFERENCE = Words()


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference that fits its scene.

    ``scene``: its file and bands. ``offset``: (row, column) of the scene's first pixel in it, None where
    it has another grid and is resampled. ``shift_px``: (x, y) by which equal grids are apart, else None.
    ``finer``: its pixels along an axis in one of the scene. ``gains``, ``offsets``: per band, raw value
    times gain plus offset is in the scene's raw units.
    """

    scene: Scene
    offset: tuple[int, int] | None
    shift_px: tuple[float, float] | None
    finer: float
    gains: tuple[float, ...]
    offsets: tuple[float, ...]
    notes: tuple[str, ...]

    @property
    def resampled(self) -> bool:
        """Return whether its pixels are interpolated."""
        return self.offset is None


def check_reference(
    scene: Scene,
    path: str,
    bands: Sequence[int] = (),
    rect: tuple[int, int, int, int] | None = None,
    words: Words = REFERENCE,
) -> Reference:
    """Return the reference ready to be read; call before any tile runs.

    ``bands``: those of the reference that show what ``scene.bands`` show, empty = red, green and blue by
    the rule that chooses the input's. ``rect``: (row, column, height, width) of the output in scene
    pixels, None = all. Raises EngineError when bands are missing, values have another scale, its place
    is not known or it does not overlap the output.
    """
    clear, notes = _open(scene, path, bands, words)
    check_places(scene, clear, words)
    gains, offsets, more = _units(scene, clear, words)
    notes += more
    move = ~clear.georef.affine * scene.georef.affine
    size = max(scene.width, scene.height)
    even = max(abs(move.a - 1), abs(move.b), abs(move.d), abs(move.e - 1)) * size < SAME_PX
    even = even and same_crs(scene.georef, clear.georef)
    offset = (round(move.f), round(move.c)) if even else None
    shift = (move.c - round(move.c), move.f - round(move.f)) if even else None
    row, col, height, width = rect or (0, 0, scene.height, scene.width)
    outline = shapely.box(col, row, col + width, row + height)
    place = footprint(scene, clear)
    if shapely.area(shapely.intersection(place, outline)) == 0:
        raise EngineError(
            "parameter",
            f"{words.label} {clear.path.name} does not overlap {words.target}.",
            "Choose a raster of the same ground, or check its CRS.",
        )
    if shift is not None and max(map(abs, shift)) >= SAME_PX:
        offset = None
        notes += (f"{words.noun} lies {shift[0]:.2f}, {shift[1]:.2f} pixels beside {words.target}'s grid.",)
    if offset is not None and _under(clear, offset, (row, col, height, width)) is None:
        offset = shift = None  # it overlaps, so its longitudes are a turn apart: the warper knows that
    # around the Earth a degree raster has its footprint several times
    area = max(map(shapely.area, shapely.get_parts(place)))
    finer = (clear.width * clear.height / area) ** 0.5
    if offset is None:
        notes += (f"{words.noun} was resampled (bilinear) to {words.target}'s grid.",)
    return Reference(clear, offset, shift, finer, gains, offsets, notes)


def aligned(
    reference: Reference, scene: Scene, reader: Reader, row: int, col: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (float64 in the scene's raw units, valid bool), both (C, height, width), of scene pixels.

    ``reader``: of ``reference.scene``. Values where ``valid`` is False are not numbers to use.
    """
    found = np.full((len(reference.scene.bands), height, width), np.nan)
    if reference.offset is not None:
        read = _under(reference.scene, reference.offset, (row, col, height, width))
        if read is not None:
            r, c, h, w = read
            top, left = row + reference.offset[0], col + reference.offset[1]
            found[:, r - top : r - top + h, c - left : c - left + w] = _values(reader, read)
    else:
        read = _source(reference.scene, scene, row, col, height, width, reference.finer)
        if read is not None:
            _resample(_values(reader, read), reference.scene.georef, read, found, scene.georef, row, col)
    shape = (-1, 1, 1)
    found = found * np.reshape(reference.gains, shape) + np.reshape(reference.offsets, shape)
    return found, np.isfinite(found)


def _values(reader: Reader, window: tuple[int, int, int, int]) -> np.ndarray:
    values, valid = reader.read_bands(*window)
    return np.where(valid, values.astype(float), np.nan)


def _resample(
    values: np.ndarray,
    source: Georef,
    window: tuple[int, int, int, int],
    found: np.ndarray,
    target: Georef,
    row: int,
    col: int,
) -> None:
    """Fill ``found`` (C, h, w) at ``row``, ``col`` of the target's grid; NaN stays where nothing is."""
    crs = [CRS.from_wkt(place.wkt) if place.wkt else PLANE for place in (source, target)]
    with gdal_env():
        for band, into in zip(values, found, strict=True):  # one by one: each has its own invalid pixels
            reproject(
                band,
                into,
                src_transform=source.affine * Affine.translation(window[1], window[0]),
                src_crs=crs[0],
                src_nodata=np.nan,
                dst_transform=target.affine * Affine.translation(col, row),
                dst_crs=crs[1],
                dst_nodata=np.nan,
                resampling=Resampling.bilinear,
            )


def _source(
    clear: Scene, scene: Scene, row: int, col: int, height: int, width: int, finer: float
) -> tuple[int, int, int, int] | None:
    """Return the window of the reference that lies under scene pixels, None where there is none."""
    outline = densified(shapely.box(col, row, col + width, row + height))
    layer = polygons_of(shapely.transform(outline, scene.georef.to_layer))
    if scene.georef.crs is not None and not same_crs(scene.georef, clear.georef):
        layer = near(layer, clear, scene.georef.crs)
    under = to_pixels(layer, scene.georef.crs, clear.georef)
    reach = REACH_PX * max(1.0, finer)
    under = shapely.intersection(under, shapely.buffer(raster_outline(clear), reach))
    if shapely.is_empty(under):
        return None
    left, top, right, bottom = shapely.bounds(under)
    return _clipped(
        clear,
        int(np.floor(top - reach)),
        int(np.floor(left - reach)),
        int(np.ceil(bottom + reach)),
        int(np.ceil(right + reach)),
    )


def _under(
    clear: Scene, offset: tuple[int, int], rect: tuple[int, int, int, int]
) -> tuple[int, int, int, int] | None:
    top, left = rect[0] + offset[0], rect[1] + offset[1]
    return _clipped(clear, top, left, top + rect[2], left + rect[3])


def _clipped(scene: Scene, top: int, left: int, bottom: int, right: int) -> tuple[int, int, int, int] | None:
    top, left = max(0, top), max(0, left)
    bottom, right = min(scene.height, bottom), min(scene.width, right)
    return (top, left, bottom - top, right - left) if bottom > top and right > left else None


def footprint(scene: Scene, clear: Scene) -> shapely.Geometry:
    """Return the reference's outline in scene pixels."""
    layer = polygons_of(shapely.transform(densified(raster_outline(clear)), clear.georef.to_layer))
    if not same_crs(scene.georef, clear.georef):
        layer = near(layer, scene, clear.georef.crs)
    return to_pixels(layer, clear.georef.crs, scene.georef)


def same_crs(one: Georef, other: Georef) -> bool:
    """Return whether two places have one CRS, or both none."""
    if one.crs is None or other.crs is None:
        return one.crs is other.crs
    return bool(one.crs.equals(other.crs, ignore_axis_order=True))


def _open(scene: Scene, path: str, bands: Sequence[int], words: Words) -> tuple[Scene, tuple[str, ...]]:
    """Return the reference with its bands chosen, and notes on the choice."""
    clear = open_scene(path, 1)
    notes: tuple[str, ...] = ()
    try:
        with gdal_env(), open_dataset(clear.path) as dataset:
            if not bands:
                choice = choose_rgb(dataset)
                bands, notes = choice.bands, (choice.warning,) if choice.warning else ()
        clear = clear.with_bands(bands)
    except EngineError as error:
        raise EngineError(error.code, f"{words.label}: {error.message}", error.hint) from None
    if len(bands) != len(scene.bands):
        raise EngineError(
            "parameter",
            f"{len(bands)} bands of {words.label} {clear.path.name} cannot be compared with "
            f"{len(scene.bands)} of {scene.path.name}.",
            "Choose the same number of bands.",
        )
    return clear, notes


def check_places(scene: Scene, clear: Scene, words: Words) -> None:
    """Raise EngineError where one of two rasters has no place, or a CRS that the other lacks."""
    for which in (scene, clear):
        if which.georef.kind in ("gcp", "rpc"):
            raise EngineError(
                "input",
                f"{which.path.name} is placed by control points or RPC only, so it cannot be compared.",
                f"Warp it first{words.otherwise}.",
            )
    with_crs = [which.path.name for which in (scene, clear) if which.georef.crs is not None]
    without = [which.path.name for which in (scene, clear) if which.georef.crs is None]
    if with_crs and without:
        raise EngineError(
            "input",
            f"{without[0]} has no CRS, but {with_crs[0]} has one, so they cannot be laid on each other.",
            f"Assign a CRS to both{words.otherwise}.",
        )
    bare = [which.georef.kind == "none" for which in (scene, clear)]
    if any(bare) and (bare[0] != bare[1] or (scene.width, scene.height) != (clear.width, clear.height)):
        raise EngineError(
            "input",
            f"{words.label} {clear.path.name} has {clear.width} x {clear.height} pixels and "
            f"{scene.path.name} {scene.width} x {scene.height}, and without georeference they cannot be laid "
            "on each other.",
            "Choose rasters of the same size, or georeference both.",
        )


def _units(
    scene: Scene, clear: Scene, words: Words
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
    """Return (gains, offsets, notes) that bring the reference's raw values to the scene's.

    Equal data types have equal units; else scale and offset tags must tell the physical value.
    """
    ones, zeros = (1.0,) * len(scene.bands), (0.0,) * len(scene.bands)
    kinds = [{unit_kind(which.dtypes[band - 1]) for band in which.bands} for which in (scene, clear)]
    if kinds[0] == kinds[1]:
        return ones, zeros, ()
    tags = [_tags(which) for which in (scene, clear)]
    if all(tag == (1.0, 0.0) for tag in tags[0] + tags[1]):
        names = ["/".join(sorted({str(w.dtypes[b - 1]) for b in w.bands})) for w in (scene, clear)]
        raise EngineError(
            "input",
            f"{words.label} {clear.path.name} is {names[1]} and {scene.path.name} is {names[0]}, and no "
            "scale tags tell how their values relate.",
            f"Convert {words.label} to {names[0]} in the same units first.",
        )
    gains = tuple(theirs[0] / mine[0] for mine, theirs in zip(*tags, strict=True))
    offsets = tuple((theirs[1] - mine[1]) / mine[0] for mine, theirs in zip(*tags, strict=True))
    note = f"{words.noun}'s values were brought to those of {scene.path.name} by their scale tags."
    return gains, offsets, (note,)


def unit_kind(dtype: np.dtype) -> str:
    """Return the group of data types that hold the same units: bytes, other integers, floats."""
    if dtype.kind == "f":
        return "float"
    return dtype.name if dtype.itemsize == 1 else "integer"


def _tags(scene: Scene) -> list[tuple[float, float]]:
    with gdal_env(), open_dataset(scene.path) as dataset:
        return [(dataset.scales[band - 1] or 1.0, dataset.offsets[band - 1]) for band in scene.bands]
