"""EXTENT and AOI, given in any CRS, as one polygon in scene pixels.

Everything that asks for places - which tiles run, which boxes stay - is answered in pixel space,
where an affine, a GCP and an RPC raster are alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from .boxes import SLACK_PX
from .errors import EngineError
from .events import Track
from .georef import Georef
from .grid import Grid, Tile
from .scene import Scene
from .statistics import Rect

#: A straight edge in one CRS is a curve in another; so many pieces keep it within a pixel or two.
PIECES = 64

#: Metres beyond the scene that are kept of other layers' polygons, so that no edge made by clipping
#: lies inside it.
MARGIN_M = 1000.0


@dataclass(frozen=True, eq=False)
class Region:
    """The wanted part of a scene: ``shape`` in pixels, ``rect`` its bounding pixel rectangle."""

    shape: shapely.Geometry
    rect: Rect

    @property
    def is_rect(self) -> bool:
        """Return whether the region is a rectangle along the pixel axes."""
        left, top, right, bottom = shapely.bounds(self.shape)
        box = (right - left) * (bottom - top)
        # rounding, but never a pixel, which is less than that in a large scene
        return bool(box - shapely.area(self.shape) <= min(1e-9 * box, 0.25))

    def tiles(self, grid: Grid) -> list[Tile]:
        """Return the tiles that touch the region, or nearly do, in reading order.

        An object up to twice as long as the overlap lies, whole or in two pieces, in the tiles
        that hold its centre; so these tiles alone give what the full run gives in the region. The
        few pixels around it are the jitter between two tiles, which may put one centre inside and
        the other outside.
        """
        left, top, right, bottom = shapely.bounds(self.shape) + 2 * SLACK_PX * np.array([-1, -1, 1, 1])
        near = grid.touching(left, top, right, bottom)
        windows = np.array([[t.col, t.row, t.col + t.width, t.row + t.height] for t in near])
        if not len(windows):
            return []
        windows += np.array([-1, -1, 1, 1]) * int(2 * SLACK_PX)
        hit = shapely.intersects(shapely.box(*windows.T), self.shape)
        return [tile for tile, wanted in zip(near, hit, strict=True) if wanted]

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Return bool (N,) for (N, 2) pixel positions."""
        return shapely.intersects_xy(self.shape, points[:, 0], points[:, 1])


def read_region(
    scene: Scene, extent: list[float] | None, aoi_wkt: str | None, crs_wkt: str | None, track: Track
) -> Region | None:
    """Return the region of a Job, None when neither EXTENT nor AOI is given.

    Raises EngineError when it does not overlap the raster or cannot be understood.
    """
    if extent is None and aoi_wkt is None:
        return None
    crs = parse_crs(crs_wkt, "EXTENT/AOI")
    if crs is not None and scene.georef.crs is None:
        track.warn("EXTENT/AOI are taken in the layer's own coordinates, because it has no CRS.")
    shape = raster_outline(scene)
    for name, wanted in (("EXTENT", _rectangle(extent)), ("AOI", _polygon(aoi_wkt))):
        if wanted is None:
            continue
        wanted = near(wanted, scene, crs)
        shape = polygons_of(shapely.intersection(shape, to_pixels(wanted, crs, scene.georef)))
        if shapely.is_empty(shape):
            raise EngineError(
                "parameter",
                f"{name} does not overlap {scene.path.name}.",
                "Check its CRS, or draw it on the raster.",
            )
    shapely.prepare(shape)
    left, top, right, bottom = shapely.bounds(shape)
    row, col = int(np.floor(top)), int(np.floor(left))
    return Region(shape, (row, col, int(np.ceil(bottom)) - row, int(np.ceil(right)) - col))


def raster_outline(scene: Scene) -> shapely.Geometry:
    """Return the raster's rectangle in pixels."""
    return shapely.box(0, 0, scene.width, scene.height)


def local_crs(scene: Scene) -> CRS:
    """Return a metric CRS around the scene's centre: equal area, true to scale there."""
    centre = scene.georef.to_layer(np.array([[scene.width / 2, scene.height / 2]]))
    lonlat = scene.georef.to_lonlat(centre)
    assert lonlat is not None  # only asked where georef.earth
    lon, lat = lonlat[0]
    return CRS.from_dict({"proj": "laea", "lon_0": lon, "lat_0": lat, "datum": "WGS84", "units": "m"})


def neighbourhood(scene: Scene, crs: CRS, margin_m: float = MARGIN_M) -> shapely.Geometry | None:
    """Return boxes in ``crs`` that hold the scene and ``margin_m`` around it; None where none do.

    In degrees the boxes are there for each turn around the Earth, as layers use 181 and -179 alike.
    """
    if scene.georef.crs is None or not scene.georef.earth:
        return None
    layer = shapely.transform(densified(raster_outline(scene)), scene.georef.to_layer)
    if not np.isfinite(shapely.get_coordinates(layer)).all():
        return None
    try:
        local = local_crs(scene)
        wide = shapely.buffer(project(polygons_of(layer), scene.georef.crs, local), margin_m)
        transformer = Transformer.from_crs(local, crs, always_xy=True)
        # PROJ knows the poles and the antimeridian, where the corners' bounds would be wrong
        left, bottom, right, top = map(float, shapely.bounds(wide))
        bounds = transformer.transform_bounds(left, bottom, right, top, densify_pts=PIECES)
    except (ProjError, CRSError):
        return None
    left, bottom, right, top = bounds
    if not np.isfinite(bounds).all():
        return None
    if not crs.is_geographic:
        return shapely.box(*bounds)
    right += 360 if right < left else 0
    return shapely.union_all([shapely.box(left + t, bottom, right + t, top) for t in (-360, 0, 360)])


def near(shape: shapely.Geometry, scene: Scene, crs: CRS | None) -> shapely.Geometry:
    """Return the part of a shape of another CRS that may meet the scene.

    What lies on the other side of the Earth has no place in the layer's CRS, and a polygon that
    reaches there would be lost as a whole.
    """
    if crs is None or crs == scene.georef.crs:
        return shape
    around = neighbourhood(scene, crs)
    return shape if around is None else shapely.intersection(polygons_of(shape), around)


def to_pixels(shape: shapely.Geometry, crs: CRS | None, georef: Georef) -> shapely.Geometry:
    """Return polygons of ``crs`` (None = the layer's own) in scene pixels, valid again."""
    shape = polygons_of(shape)
    if georef.crs is not None and crs is not None and crs != georef.crs:
        shape = project(shape, crs, georef.crs)
    elif georef.kind in ("gcp", "rpc"):
        shape = densified(shape)
    if georef.kind == "affine" and georef.crs is not None and georef.crs.is_geographic:
        # 181 and -179 degrees are one place: a raster across the antimeridian may use either
        turns = [
            shapely.transform(shape, lambda xy, t=turn: xy + np.array([t, 0])) for turn in (-360, 0, 360)
        ]
        shape = _multipolygon([part for turn in turns for part in shapely.get_parts(turn)])
    return polygons_of(moved(shape, georef.to_pixel))


def project(shape: shapely.Geometry, source: CRS, target: CRS) -> shapely.Geometry:
    """Return a geometry in another CRS, its edges divided first."""
    try:
        transformer = Transformer.from_crs(source, target, always_xy=True)
    except ProjError as error:
        raise EngineError(
            "parameter",
            f"No way leads from {source.name} to {target.name}: {error}.",
            "Reproject the layer first.",
        ) from None
    return moved(densified(shape), lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1])))


def densified(shape: shapely.Geometry) -> shapely.Geometry:
    """Return a geometry whose edges are divided into short pieces."""
    if shapely.is_empty(shape):
        return shape
    left, bottom, right, top = shapely.bounds(shape)
    return shapely.segmentize(shape, max(right - left, top - bottom) / PIECES)


def moved(shape: shapely.Geometry, move: Callable[[np.ndarray], np.ndarray]) -> shapely.Geometry:
    """Return a geometry with its points moved; parts that have no place there are dropped."""
    parts = shapely.get_parts(shape)
    kept = []
    for part in parts:
        part = shapely.transform(part, move)
        if np.isfinite(shapely.get_coordinates(part)).all():
            kept.append(part)
    return _multipolygon(kept)


def polygons_of(shape: shapely.Geometry) -> shapely.Geometry:
    """Return the polygons of a geometry, made valid, as one multipolygon."""
    parts = shapely.get_parts(shapely.make_valid(shape))
    inner = shapely.get_parts(parts)  # make_valid may nest multipolygons in a collection
    return _multipolygon(
        [p for p in inner if shapely.get_type_id(p) == shapely.GeometryType.POLYGON and shapely.area(p) > 0]
    )


def _multipolygon(parts: list[shapely.Geometry]) -> shapely.Geometry:
    # shapely takes an empty list for coordinates and fails; an empty array of objects is none at all
    return shapely.multipolygons(np.array(parts, dtype=object))


def parse_crs(wkt: str | None, name: str) -> CRS | None:
    """Return the CRS of a user's geometry; raises EngineError when it cannot be understood."""
    if not wkt:
        return None
    try:
        return CRS.from_user_input(wkt)
    except CRSError as error:
        raise EngineError("parameter", f"The CRS of {name} cannot be understood: {error}.") from None


def _rectangle(extent: list[float] | None) -> shapely.Geometry | None:
    return None if extent is None else shapely.box(*extent)


def _polygon(wkt: str | None) -> shapely.Geometry | None:
    if wkt is None:
        return None
    try:
        # one by one: where two polygons overlap, repairing them together would leave a hole
        parts = shapely.get_parts(shapely.from_wkt(wkt))
        shape = polygons_of(shapely.union_all([polygons_of(part) for part in parts]))
    except (shapely.errors.ShapelyError, NotImplementedError) as error:  # the latter for curves
        raise EngineError("parameter", f"AOI is not a geometry of finite, straight lines: {error}.") from None
    if shapely.is_empty(shape):
        raise EngineError("parameter", "AOI holds no polygon.", "Choose a polygon layer with features.")
    return shape
