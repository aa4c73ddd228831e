"""The scratch FlatGeobuf that carries boxes to the algorithm, in the order of their ids.

Without a spatial index, because FlatGeobuf sorts features by place to build one.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyogrio
import shapely

from .attributes import Attributes
from .boxes import Boxes
from .errors import EngineError
from .georef import Georef

#: Name -> dtype, in the issue's order; floats that are NaN become null.
FIELDS = {
    "id": np.int32,
    "score": np.float64,
    "class": object,
    "x_px": np.float64,
    "y_px": np.float64,
    "w_px": np.float64,
    "h_px": np.float64,
    "long_m": np.float64,
    "short_m": np.float64,
    "area_m2": np.float64,
    "lon": np.float64,
    "lat": np.float64,
    "tile": np.int32,
    "edge": np.bool_,
    "model": object,
}


@dataclass(frozen=True, eq=False)
class Features:
    """Polygons (shapely) with their columns, named and ordered as FIELDS."""

    polygons: np.ndarray
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.polygons)


def box_features(boxes: Boxes, place: Attributes, classes: tuple[str, ...], model: str) -> Features:
    """Return features of boxes that are already in their final order; ids count from 1."""
    size = boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]
    centre = boxes.xyxy[:, :2] + size / 2
    columns = {
        "id": np.arange(1, len(boxes) + 1),
        "score": boxes.score,
        "class": np.array([classes[i] for i in boxes.cls], object),
        "x_px": centre[:, 0],
        "y_px": centre[:, 1],
        "w_px": size[:, 0],
        "h_px": size[:, 1],
        "long_m": place.long_m,
        "short_m": place.short_m,
        "area_m2": place.area_m2,
        "lon": place.lonlat[:, 0],
        "lat": place.lonlat[:, 1],
        "tile": boxes.tile,
        "edge": boxes.edge,
        "model": np.full(len(boxes), model, object),
    }
    polygons = shapely.polygons(place.rings) if len(boxes) else np.empty(0, object)
    return Features(polygons, {name: columns[name].astype(kind) for name, kind in FIELDS.items()})


def write_features(path: Path, features: Features, georef: Georef, layer: str = "boxes") -> None:
    """Write a FlatGeobuf with one layer and make sure that it can be read back; raises EngineError."""
    data = list(features.columns.values())
    # a masked value is written as null
    masks = [np.isnan(c) if c.dtype.kind == "f" else np.zeros(len(c), bool) for c in data]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")  # the user was told already
            _write(path, features, data, masks, georef, layer)
        written = pyogrio.read_info(str(path), force_feature_count=True)["features"]
    except (RuntimeError, OSError) as error:  # pyogrio's errors are RuntimeErrors
        raise EngineError(
            "output", f"{path} cannot be written: {error}.", "Check free space and permissions."
        ) from None
    if written != len(features):
        raise EngineError(
            "output", f"{path} holds {written} of {len(features)} features.", "Check the free space."
        )


def _write(
    path: Path,
    features: Features,
    data: list[np.ndarray],
    masks: list[np.ndarray],
    georef: Georef,
    layer: str,
) -> None:
    pyogrio.raw.write(
        str(path),
        geometry=shapely.to_wkb(features.polygons),
        field_data=data,
        field_mask=masks,
        fields=list(features.columns),
        geometry_type="Polygon",
        crs=georef.wkt,
        driver="FlatGeobuf",
        layer=layer,
        SPATIAL_INDEX="NO",
    )
