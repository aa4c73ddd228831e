"""Toy tasks that answer pixels, with known answers: module-level, so that process pools can use them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from kestrel.engine.job import Job
from kestrel.engine.run import Outcome, run_job
from kestrel.models.scaling import stretch_from
from kestrel.models.task import Input, SceneInfo, Task, Tiles
from scipy import ndimage

from .jobs import Recorder

#: A symmetric kernel, so that flips commute with it.
KERNEL = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 16


def identity(image: np.ndarray) -> np.ndarray:
    return image


def doubled(image: np.ndarray) -> np.ndarray:
    return 2 * image


def constant(image: np.ndarray) -> np.ndarray:
    return np.full_like(image, 0.75)


def convolved(image: np.ndarray) -> np.ndarray:
    """Zero padding, as networks do: wrong along the tile's edges, which the margin crops."""
    return np.stack([ndimage.convolve(band, KERNEL, mode="constant") for band in image])


def dilated(image: np.ndarray) -> np.ndarray:
    """The brightest of 7 x 7: a reach of 3."""
    return np.stack([ndimage.maximum_filter(band, 7, mode="constant") for band in image])


def darkened(image: np.ndarray) -> np.ndarray:
    return image * np.float32(0.9)


def slow(image: np.ndarray) -> np.ndarray:
    time.sleep(0.02)
    return image * np.float32(0.5)


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    return image.repeat(factor, axis=1).repeat(factor, axis=2)


def shares(image: np.ndarray) -> np.ndarray:
    """Three scores that sum to one: a softmax of the bands."""
    raised = np.exp(4 * image)
    return raised / raised.sum(axis=0)


def build(
    params: Any,
    weights: str,
    device: str,
    scene: SceneInfo,
    *,
    answer: Callable[[np.ndarray], np.ndarray] = identity,
    bands: int = 3,
    **changes: Any,
) -> Task:
    """Return a task that asks ``answer`` for each (C, T, T) tile, float32."""

    def prepare(tiles: Tiles) -> np.ndarray:
        image = tiles.images["image"]
        assert np.isfinite(image).all()
        assert image.dtype == np.float32
        return image

    def predict(images: np.ndarray) -> list[np.ndarray]:
        return [answer(image) for image in images]

    fields: dict[str, Any] = {
        "name": "toy",
        "inputs": (Input("image", bands=bands, scale=stretch_from(params), fill="nearest", pad="reflect"),),
        "kind": "raster",
        "tile": 64,
        "multiple": 8,
        "margin": 0,
        "shrinkable": True,
        "outputs": tuple(f"band {i + 1}" for i in range(bands)),
        "prepare": prepare,
        "predict": predict,
        "overlap": lambda _: 16,
        "change": True,
        "model_id": "toy@000000000000",
    }
    return Task(**{**fields, **changes})


def builder(answer: Callable[[np.ndarray], np.ndarray] = identity, **changes: Any) -> Any:
    """Return a picklable builder."""
    return functools.partial(build, answer=answer, **changes)


def job(image: Path, outputs: dict[str, Path], **fields: Any) -> Job:
    """Return a predict Job; ``bands``, ``extent`` and the like by name, the rest are params."""
    known = {k: fields.pop(k) for k in ("extent", "aoi_wkt", "crs_wkt", "device") if k in fields}
    inputs: dict[str, dict[str, Any]] = {"image": {"path": str(image), "bands": fields.pop("bands", [])}}
    if "reference" in fields:
        inputs["reference"] = {"path": str(fields.pop("reference")), "bands": []}
    places = {name: str(path) for name, path in outputs.items()}
    return Job("predict", "toy", inputs, places, fields, **known)


def run(
    image: Path,
    output: Path,
    make: Any = None,
    events: Any = None,
    threads: bool = True,
    executor: Any = None,
    outputs: dict[str, Path] | None = None,
    **fields: Any,
) -> tuple[Outcome, np.ndarray]:
    """Run a toy on a raster; return the outcome and the pixels of ``output``, (C, H, W)."""
    asked = job(image, {"raster": output, **(outputs or {})}, **fields)
    outcome = run_job(asked, events or Recorder(), make or builder(), threads, executor)
    with rasterio.open(output) as dataset:
        return outcome, dataset.read()
