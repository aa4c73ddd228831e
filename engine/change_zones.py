"""How much changed in each zone: the polygons of AOI one by one, each with the change inside it.

Zones may lie over each other, and each counts what is in it; so their sum may be more than the scene's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError

from .drivers import check_path
from .errors import EngineError
from .events import Track
from .features import Features
from .polygons_ground import measure
from .region import near, parse_crs, polygons_of, raster_outline, to_pixels
from .scene import Scene

#: More zones are no table that anybody reads; the first so many are told of.
MOST_ZONES = 1000


@dataclass(frozen=True, eq=False)
class Zones:
    """Zones that meet the scene: a name and a multipolygon in scene pixels for each."""

    names: tuple[str, ...]
    shapes: np.ndarray

    def __len__(self) -> int:
        """How many zones there are."""
        return len(self.names)


def read_zones(path: str, scene: Scene, track: Track) -> Zones:
    """Read zones, polygons of any CRS with a field ``name``; raises EngineError.

    Those beside the scene are left out, a name that is missing becomes the number of its feature.
    """
    file = check_path(path, "polygon layer")
    try:
        crs = parse_crs(pyogrio.read_info(str(file))["crs"], file.name)
        meta, _, wkb, columns = pyogrio.raw.read(str(file), columns=["name"])
    except (DataSourceError, DataLayerError, ValueError) as error:
        raise EngineError("input", f"AOI {file} cannot be read: {error}.") from None
    count = 0 if wkb is None else len(wkb)
    typed = columns[0] if len(meta["fields"]) else [None] * count
    names, shapes = [], []
    for number, (shape, name) in enumerate(zip(shapely.from_wkb(wkb), typed, strict=True), start=1):
        pixels = to_pixels(near(polygons_of(shape), scene, crs), crs, scene.georef)
        pixels = polygons_of(shapely.intersection(pixels, raster_outline(scene)))
        if not shapely.is_empty(pixels):
            names.append(str(name) if name else str(number))
            shapes.append(pixels)
    if len(names) > MOST_ZONES:
        track.warn(f"AOI holds {len(names)} zones; change is told for the first {MOST_ZONES} of them.")
    return Zones(tuple(names[:MOST_ZONES]), np.array(shapes[:MOST_ZONES], object))


def change_by_zone(zones: Zones, features: Features, scene: Scene, track: Track) -> list[dict[str, Any]]:
    """Return ``name``, ``area_m2`` on the raster, ``count``, ``changed_m2`` and ``share`` of each zone.

    ``count``: polygons of change that share ground with it; ``changed_m2``: that ground, by the
    polygons as they are written. Areas are None without a place on Earth.
    """
    georef = scene.georef
    polygons = shapely.transform(features.polygons, georef.to_pixel)
    polygons = np.where(shapely.is_valid(polygons), polygons, shapely.make_valid(polygons))
    tree = shapely.STRtree(polygons)
    found = []
    for name, zone in zip(zones.names, zones.shapes, strict=True):
        track.check()
        hit = np.sort(tree.query(zone, predicate="intersects"))
        inside = shapely.covers(zone, polygons[hit])
        whole, cut = hit[inside], hit[~inside]
        parts = [polygons_of(part) for part in shapely.intersection(polygons[cut], zone)]
        parts = [part for part in parts if not shapely.is_empty(part)]
        area = changed = None
        if georef.earth:
            area = float(measure(shapely.get_parts(zone), georef, track.check)[0].sum())
            changed = float(features.columns["area_m2"][whole].sum())
            if parts:
                pieces = shapely.get_parts(np.array(parts, object))
                changed += float(measure(pieces, georef, track.check)[0].sum())
        found.append(
            {
                "name": name,
                "area_m2": area,
                "count": len(whole) + len(parts),
                "changed_m2": changed,
                "share": changed / area if area and changed is not None else None,
            }
        )
    return found
