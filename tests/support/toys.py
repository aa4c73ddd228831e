"""Toy tasks without torch: known answers for the engine's tests and benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from kestrel.models.task import Input, Scale, Task, Tiles
from scipy import ndimage

#: Scaled values above that are ship in :func:`tests.support.rasters.sea` (220 of 255 against 30).
BRIGHT = 0.5


def bright_boxes(image: np.ndarray) -> np.ndarray:
    """Return (N, 6): the bounding box of every connected group of bright pixels, score 0.9."""
    labels, _ = ndimage.label(image > BRIGHT, np.ones((3, 3)))
    found = [
        [cols.start, rows.start, cols.stop, rows.stop, 0.9, 0] for rows, cols in ndimage.find_objects(labels)
    ]
    return np.array(found, np.float32).reshape(-1, 6)


def toy_task(
    answer: Callable[[np.ndarray], np.ndarray] = bright_boxes,
    tile: int = 64,
    overlap: int = 16,
    multiple: int = 8,
    **changes: Any,
) -> Task:
    """Return a task of kind boxes that asks ``answer`` for each (T, T) tile."""

    def prepare(tiles: Tiles) -> np.ndarray:
        assert np.isfinite(tiles.images["image"]).all()
        return tiles.images["image"][:, 0]

    def predict(images: np.ndarray) -> list[np.ndarray]:
        return [answer(image) for image in images]

    fields: dict[str, Any] = {
        "name": "toy",
        "inputs": (Input("image", scale=Scale("auto"), pad=0.0),),
        "kind": "boxes",
        "tile": tile,
        "multiple": multiple,
        "margin": 0,
        "shrinkable": False,
        "outputs": ("ship",),
        "prepare": prepare,
        "predict": predict,
        "overlap": lambda _: overlap,
        "model_id": "toy@000000000000",
    }
    return Task(**{**fields, **changes})


def build(params: Any, weights: str, device: str, scene: Any) -> Task:
    """Builder of the plain toy; its scale mode follows the Job as a real model's does."""
    scale = Scale(
        params.get("scale_mode", "auto"), params.get("scale_min", -25.0), params.get("scale_max", 5.0)
    )
    return toy_task(inputs=(Input("image", scale=scale, pad=0.0),))


def build_slow(params: Any, weights: str, device: str, scene: Any) -> Task:
    """Builder of a toy that takes 50 ms per tile, to be cancelled or killed."""

    def answer(image: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return bright_boxes(image)

    return toy_task(answer)
