"""Which of the merged boxes a user wants: thresholds, area, land, length on the ground."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .attributes import Attributes, measure
from .boxes import Boxes
from .errors import EngineError
from .land import Land
from .plan import number
from .region import Region
from .scene import Scene

NMS_IOU = 0.45


@dataclass(frozen=True)
class Limits:
    """The engine's own thresholds on boxes."""

    confidence: float
    nms_iou: float
    min_length: float
    max_length: float

    @classmethod
    def read(cls, params: dict[str, Any], scene: Scene) -> Limits:
        """Check the parameters; metres need a place on Earth."""
        limits = cls(
            confidence=number(params, "confidence", 0.0, 0, 1),
            nms_iou=number(params, "nms_iou", NMS_IOU, 0.01, 1),
            min_length=number(params, "min_length", 0.0, 0, 1e6),
            max_length=number(params, "max_length", 0.0, 0, 1e6),
        )
        if 0 < limits.max_length < limits.min_length:
            raise EngineError(
                "parameter",
                f"MIN_LENGTH {limits.min_length:g} is larger than MAX_LENGTH {limits.max_length:g}.",
                "Exchange them, or set one to 0 (off).",
            )
        if (limits.min_length or limits.max_length) and not scene.georef.earth:
            raise EngineError(
                "parameter",
                f"MIN_LENGTH and MAX_LENGTH are in metres, but {scene.path.name} has no CRS to measure them.",
                "Set both to 0, or assign a CRS.",
            )
        return limits


def select(
    boxes: Boxes, scene: Scene, region: Region | None, land: Land | None, limits: Limits
) -> tuple[Boxes, Attributes, dict[str, int]]:
    """Drop boxes centred outside the region or on land, and those of unwanted length."""
    dropped = {}
    for name, area in (("outside", region), ("on_land", land)):
        if area is None:
            continue
        centre = (boxes.xyxy[:, :2] + boxes.xyxy[:, 2:]) / 2
        inside = area.holds(centre)
        keep = inside if name == "outside" else ~inside
        dropped[name] = int(np.count_nonzero(~keep))
        boxes = boxes.take(keep)
    place = measure(boxes.xyxy, scene.georef)
    keep = np.isfinite(place.rings).all(axis=(1, 2))  # an RPC model may have no answer far outside
    dropped["without_place"] = int(np.count_nonzero(~keep))
    if limits.min_length or limits.max_length:
        wanted = place.long_m >= limits.min_length
        if limits.max_length:
            wanted &= place.long_m <= limits.max_length
        dropped["length"] = int(np.count_nonzero(keep & ~wanted))
        keep &= wanted
    return boxes.take(keep), place.take(keep), dropped
