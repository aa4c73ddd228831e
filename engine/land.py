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
from .region import (
    MARGIN_M,
    local_crs,
    neighbourhood,
    parse_crs,
    polygons_of,
    project,
    raster_outline,
    to_pixels,
)
from .scene import Scene


@dataclass(frozen=True, eq=False)
class Land:
    """Land in scene pixels: polygons and their tree."""

    parts: np.ndarray
    tree: shapely.STRtree

    def mask(self, tile: Tile, shape: tuple[int, int]) -> np.ndarray:
        """Return bool ``shape``: True where a pixel's centre of the tile lies on land."""
        window = (tile.col, tile.row, tile.col + shape[1], tile.row + shape[0])
        near = self.parts[self.tree.query(shapely.box(*window))]
        near = _clipped(near, window)
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


def _clipped(shapes: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    if not len(shapes):
        return shapes
    try:
        return shapely.clip_by_rect(shapes, *window)
    except shapely.errors.GEOSException:  # the fast way fails on some rings that run along the window
        return shapely.intersection(shapes, shapely.box(*window))


def read_land(
    path: str,
    buffer_m: float,
    scene: Scene,
    track: Track,
    label: str = "The land mask",
    content: str = "land",
) -> Land:
    """Read a polygon layer, keep what touches the scene, widen it; raises EngineError.

    ``label``, ``content``: what messages call the layer and what it shows; without ``content`` nobody is
    warned where nothing is left.
    """
    file = check_path(path, "polygon layer")
    with file.open("rb") as stream:
        if b"<OGRVRT" in stream.read(8192):  # it may name any other source, a remote one too
            raise EngineError(
                "input",
                f"{label} {file.name} is a virtual layer (VRT), whose sources are not followed.",
                "Save it as a GeoPackage first.",
            )
    georef = scene.georef
    if buffer_m and not georef.earth:
        raise EngineError(
            "parameter",
            f"LAND_BUFFER is in metres, but {scene.path.name} has no CRS to measure them in.",
            "Set LAND_BUFFER to 0, or assign a CRS.",
        )
    try:
        crs = parse_crs(pyogrio.read_info(str(file))["crs"], file.name)
        around = None if crs is None else neighbourhood(scene, crs, abs(buffer_m) + MARGIN_M)
        meta, _, wkb, _ = pyogrio.raw.read(str(file), columns=[], bbox=_bounds(around, crs))
    except (DataSourceError, DataLayerError, ValueError) as error:
        raise EngineError(
            "input", f"{label} {file} cannot be read: {error}.", "Choose a polygon layer."
        ) from None
    kind = meta["geometry_type"] or "no geometries"
    if wkb is None or "Point" in kind or "Line" in kind:
        raise EngineError(
            "input",
            f"{label} {file.name} holds {kind}, not polygons.",
            "Choose a polygon layer.",
        )
    if crs is None and georef.crs is not None:
        track.warn(f"{label} {file.name} has no CRS; the raster's is assumed.")
    parts = [_part(shape, crs, around, buffer_m, scene) for shape in shapely.from_wkb(wkb)]
    polygons = np.array([polygon for part in parts for polygon in shapely.get_parts(part)], object)
    if not len(polygons) and content:
        track.warn(f"{label} {file.name} has no {content} on this scene.")
    return Land(polygons, shapely.STRtree(polygons))


def _part(
    shape: shapely.Geometry,
    crs: CRS | None,
    around: shapely.Geometry | None,
    buffer_m: float,
    scene: Scene,
) -> shapely.Geometry:
    shape = polygons_of(shape)
    if around is not None:
        shape = polygons_of(shapely.intersection(shape, around))
    crs = crs or scene.georef.crs
    if buffer_m and crs is not None:
        local = local_crs(scene)
        shape = polygons_of(shapely.buffer(project(shape, crs, local), buffer_m))
        crs = local
    pixels = to_pixels(shape, crs, scene.georef)
    return polygons_of(shapely.intersection(pixels, raster_outline(scene)))


def _bounds(around: shapely.Geometry | None, crs: CRS | None) -> tuple[float, ...] | None:
    """Return what to read of a layer; in degrees the usual turn is enough for the file's index."""
    if around is None or crs is None:
        return None
    usual = shapely.box(-180, -90, 180, 90)
    return tuple(shapely.bounds(shapely.intersection(around, usual) if crs.is_geographic else around))
