"""The land mask: polygons of any CRS, buffered in metres, asked per tile and per box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyogrio
import shapely
from affine import Affine
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS
from rasterio.features import rasterize

from .drivers import check_path
from .errors import EngineError
from .events import Track
from .grid import Tile
from .region import densified, parse_crs, polygons_of, project, raster_outline, to_pixels
from .scene import Scene

#: Metres beyond the scene that are kept, so that a clipped coast does not end inside it.
MARGIN_M = 1000.0


@dataclass(frozen=True, eq=False)
class Land:
    """Land in scene pixels: polygons and their tree."""

    parts: np.ndarray
    tree: shapely.STRtree

    def mask(self, tile: Tile, shape: tuple[int, int]) -> np.ndarray:
        """Return bool ``shape``: True where a pixel's centre of the tile lies on land."""
        window = (tile.col, tile.row, tile.col + shape[1], tile.row + shape[0])
        near = self.parts[self.tree.query(shapely.box(*window))]
        near = shapely.clip_by_rect(near, *window) if len(near) else near
        near = [part for part in near if not shapely.is_empty(part)]
        if not near:
            return np.zeros(shape, bool)
        drawn = rasterize(
            near, out_shape=shape, transform=Affine.translation(tile.col, tile.row), dtype="uint8"
        )
        return drawn.astype(bool)

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Return bool (N,) for (N, 2) pixel positions."""
        on_land = np.zeros(len(points), bool)
        index, _ = self.tree.query(shapely.points(points), predicate="intersects")
        on_land[index] = True
        return on_land


def read_land(path: str, buffer_m: float, scene: Scene, track: Track) -> Land:
    """Read a polygon layer, keep what touches the scene, widen it; raises EngineError."""
    file = check_path(path, "polygon layer")
    georef = scene.georef
    if buffer_m and not georef.earth:
        raise EngineError(
            "parameter",
            f"LAND_BUFFER is in metres, but {scene.path.name} has no CRS to measure them in.",
            "Set LAND_BUFFER to 0, or assign a CRS.",
        )
    try:
        crs = parse_crs(pyogrio.read_info(str(file))["crs"], file.name)
        bounds = _bounds(scene, crs, buffer_m) if crs is not None and georef.earth else None
        meta, _, wkb, _ = pyogrio.raw.read(str(file), columns=[], bbox=bounds)
    except (DataSourceError, DataLayerError, ValueError) as error:
        raise EngineError(
            "input", f"The land mask {file} cannot be read: {error}.", "Choose a polygon layer."
        ) from None
    kind = meta["geometry_type"] or ""
    if "Point" in kind or "Line" in kind:
        raise EngineError(
            "input",
            f"The land mask {file.name} holds {kind}, not polygons.",
            "Choose a polygon layer.",
        )
    if crs is None and georef.crs is not None:
        track.warn(f"The land mask {file.name} has no CRS; the raster's is assumed.")
    parts = [_part(shape, crs, bounds, buffer_m, scene) for shape in shapely.from_wkb(wkb)]
    polygons = np.array([polygon for part in parts for polygon in shapely.get_parts(part)], object)
    if not len(polygons):
        track.warn(f"The land mask {file.name} has no land on this scene.")
    return Land(polygons, shapely.STRtree(polygons))


def _part(
    shape: shapely.Geometry,
    crs: CRS | None,
    bounds: tuple[float, float, float, float] | None,
    buffer_m: float,
    scene: Scene,
) -> shapely.Geometry:
    shape = polygons_of(shape)
    if bounds is not None:
        shape = polygons_of(shapely.intersection(shape, shapely.box(*bounds)))
    crs = crs or scene.georef.crs
    if buffer_m and crs is not None:
        local = _local(scene)
        shape = polygons_of(shapely.buffer(project(shape, crs, local), buffer_m))
        crs = local
    pixels = to_pixels(shape, crs, scene.georef)
    return polygons_of(shapely.intersection(pixels, raster_outline(scene)))


def _local(scene: Scene) -> CRS:
    """Return a metric CRS around the scene's centre: equal area, true to scale there."""
    centre = scene.georef.to_layer(np.array([[scene.width / 2, scene.height / 2]]))
    lonlat = scene.georef.to_lonlat(centre)
    assert lonlat is not None  # only asked where georef.earth
    lon, lat = lonlat[0]
    return CRS.from_dict({"proj": "laea", "lon_0": lon, "lat_0": lat, "datum": "WGS84", "units": "m"})


def _bounds(scene: Scene, crs: CRS, buffer_m: float) -> tuple[float, float, float, float] | None:
    """Return the scene's bounds in the land's CRS, widened by buffer and margin."""
    outline = densified(raster_outline(scene))
    layer = shapely.transform(outline, scene.georef.to_layer)
    local = _local(scene)
    assert scene.georef.crs is not None
    wide = shapely.buffer(project(polygons_of(layer), scene.georef.crs, local), buffer_m + MARGIN_M)
    left, bottom, right, top = shapely.bounds(project(polygons_of(wide), local, crs))
    return (left, bottom, right, top) if np.isfinite([left, bottom, right, top]).all() else None
