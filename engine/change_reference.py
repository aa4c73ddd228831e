"""How a mask agrees with true changes: one confusion matrix over the pixels that the reference knows.

A raster may cover a part of the scene only, on any grid; its pixels are taken as they are (nearest).
Polygons know the rectangle around them: nobody can tell from a layer where else no change was looked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from affine import Affine
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from .drivers import check_path, gdal_env, open_dataset
from .errors import EngineError
from .events import Track
from .grid import Tile
from .joined import Joined
from .land import read_land
from .reference import PLANE, REFERENCE, check_places, footprint
from .scene import Scene, Stamp, open_scene
from .statistics import Rect

#: (row, column, height, width) in scene pixels -> (changed, known), both bool (height, width).
Truth = Callable[[int, int, int, int], tuple[np.ndarray, np.ndarray]]


@dataclass
class Confusion:
    """Counts of pixels: change is positive."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def add(self, found: np.ndarray, true: np.ndarray, known: np.ndarray) -> None:
        """Count the pixels, bool of one shape, where ``known``."""
        self.tp += int(np.count_nonzero(found & true & known))
        self.fp += int(np.count_nonzero(found & ~true & known))
        self.fn += int(np.count_nonzero(~found & true & known))
        self.tn += int(np.count_nonzero(~found & ~true & known))

    def figures(self) -> dict[str, float | int | None]:
        """Return counts and measures (specification 08, section 7); None for a share of nothing."""
        tp, fp, fn, tn = self.tp, self.fp, self.fn, self.tn
        total = tp + fp + fn + tn
        kappa = None
        if total:
            agreed = (tp + tn) / total
            chance = ((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)) / total**2
            kappa = _share(agreed - chance, 1 - chance)
        return {
            "pixels": total,
            "tp": tp,
            "fp": fp,
            "fn": fn,
            "tn": tn,
            "precision": _share(tp, tp + fp),
            "recall": _share(tp, tp + fn),
            "f1": _share(2 * tp, 2 * tp + fp + fn),
            "iou": _share(tp, tp + fp + fn),
            "kappa": kappa,
        }


class ChangeReference:
    """True changes on a scene's grid, and how a mask agrees with them so far."""

    def __init__(
        self, name: str, kind: str, truth: Truth, stamps: tuple[Stamp, ...], notes: tuple[str, ...] = ()
    ) -> None:
        """``name``: the file's. ``kind``: ``raster`` or ``polygons``."""
        self.name, self.kind, self.stamps, self.notes = name, kind, stamps, notes
        self._truth = truth
        self._counts = Confusion()

    def add(self, row: int, col: int, change: np.ndarray, known: np.ndarray) -> None:
        """Count a window at scene pixel ``row``, ``col``: bool (h, w), change and where it is known."""
        true, sure = self._truth(row, col, *change.shape)
        self._counts.add(change, true, known & sure)

    def figures(self) -> dict[str, Any]:
        """Return the figures of ``quality``; see change_run.py."""
        return {
            "reference": self.name,
            "kind": self.kind,
            **self._counts.figures(),
            "notes": list(self.notes),
        }


def check_change_reference(
    scene: Joined, path: str, bands: list[int], rect: Rect | None, track: Track
) -> ChangeReference:
    """Return the reference ready to be read; ``rect``: of the output in scene pixels, None = all.

    Raises EngineError when it is neither raster nor polygons, has more than one chosen band, or lies
    beside the output.
    """
    wanted = rect or (0, 0, scene.height, scene.width)
    if _is_vector(path):
        return _polygons(scene, path, wanted, track)
    return _raster(scene, path, bands, wanted)


def _is_vector(path: str) -> bool:
    file = check_path(path)
    try:
        with gdal_env(), rasterio.open(file):
            return False
    except RasterioError:
        pass
    try:
        return bool(len(pyogrio.list_layers(str(file))))
    except (DataSourceError, DataLayerError):
        return False  # opening it as a raster says what is wrong


def _raster(scene: Joined, path: str, bands: list[int], wanted: Rect) -> ChangeReference:
    if len(bands) > 1:
        raise EngineError(
            "parameter", f"{REFERENCE.label} is one band of changes, but {len(bands)} are chosen."
        )
    other = open_scene(path, bands or 1)
    check_places(scene, other, REFERENCE)
    if shapely.area(shapely.intersection(footprint(scene, other), _box(wanted))) == 0:
        raise _beside(other.path.name)
    notes = ["Values other than 0 count as change, pixels without data are left out."]
    if other.validities[other.band - 1].nodata == 0:
        notes.append(
            f"{other.path.name} declares 0 as nodata, so only its changes are known: precision says nothing."
        )

    def truth(row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        return _nearest(scene, other, row, col, height, width)

    return ChangeReference(other.path.name, "raster", truth, other.stamps, tuple(notes))


def _nearest(
    scene: Scene, other: Scene, row: int, col: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (changed, known) of a window of the scene's grid."""
    crs = [CRS.from_wkt(place.wkt) if place.wkt else PLANE for place in (other.georef, scene.georef)]
    with gdal_env(), open_dataset(other.path) as dataset:
        bare = dataset.nodatavals[other.band - 1] is None and ColorInterp.alpha not in dataset.colorinterp
        with WarpedVRT(
            dataset,
            src_crs=crs[0],
            crs=crs[1],
            src_transform=other.georef.affine,
            transform=scene.georef.affine * Affine.translation(col, row),
            width=width,
            height=height,
            resampling=Resampling.nearest,
            add_alpha=bare,  # what lies beside the raster must not read as 0
        ) as warped:
            window = Window(0, 0, width, height)
            values = warped.read(other.band, window=window)
            known = warped.read_masks(other.band, window=window) > 0
    with np.errstate(invalid="ignore"):
        return values != 0, known & np.isfinite(values)


def _polygons(scene: Joined, path: str, wanted: Rect, track: Track) -> ChangeReference:
    file = check_path(path)
    drawn = read_land(path, 0.0, scene, track, REFERENCE.label, "polygons")
    inside = drawn.parts[drawn.tree.query(_box(wanted), predicate="intersects")]
    if not len(inside):
        raise _beside(file.name)
    left, top, right, bottom = shapely.total_bounds(drawn.parts)
    bounds = math.floor(top), math.floor(left), math.ceil(bottom), math.ceil(right)

    def truth(row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        known = np.zeros((height, width), bool)
        first, begin = max(0, bounds[0] - row), max(0, bounds[1] - col)
        known[first : max(0, bounds[2] - row), begin : max(0, bounds[3] - col)] = True
        return drawn.mask(Tile(0, 0, row, col, height, width), (height, width)), known

    note = "Compared within the rectangle around the reference's polygons; AOI can narrow it."
    status = file.stat()
    return ChangeReference(
        file.name, "polygons", truth, (Stamp(file, status.st_size, status.st_mtime_ns),), (note,)
    )


def _box(rect: Rect) -> shapely.Geometry:
    row, col, height, width = rect
    return shapely.box(col, row, col + width, row + height)


def _beside(name: str) -> EngineError:
    return EngineError(
        "parameter",
        f"{REFERENCE.label} {name} does not overlap {REFERENCE.target}.",
        "Choose changes of the same ground, or check its CRS.",
    )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
