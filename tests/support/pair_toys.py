"""Toy tasks of two dates, and Jobs for them: module-level, so that process pools can use them."""

from __future__ import annotations

import functools
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

Answer = Callable[[np.ndarray, np.ndarray], np.ndarray]


def difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The mean absolute difference, (1, T, T) in 0..1."""
    return np.abs(after - before).mean(axis=0, keepdims=True)


def both(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What the task was given: all bands of both."""
    return np.concatenate([before, after])


def build(
    params: Any,
    weights: str,
    device: str,
    scene: SceneInfo,
    *,
    answer: Answer = difference,
    bands: int = 3,
    fill: str = "other",
    outputs: tuple[str, ...] = ("change",),
    **changes: Any,
) -> Task:
    """Return a task that asks ``answer`` for each pair of (C, T, T) tiles."""

    def prepare(tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
        before, after = tiles.images["before"], tiles.images["after"]
        assert before.dtype == after.dtype == np.float32
        assert np.isfinite(before).all()
        assert np.isfinite(after).all()
        return before, after

    def predict(pair: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
        return [answer(*each) for each in zip(*pair, strict=True)]

    scale = stretch_from(params)
    fields: dict[str, Any] = {
        "name": "toy_change",
        "inputs": tuple(
            Input(role, bands=bands, scale=scale, fill=fill, pad="reflect") for role in ("before", "after")
        ),
        "kind": "scores",
        "tile": 64,
        "multiple": 8,
        "margin": 0,
        "shrinkable": True,
        "outputs": outputs,
        "prepare": prepare,
        "predict": predict,
        "overlap": lambda _: 16,
        "pair": True,
        "model_id": "toy@000000000000",
    }
    return Task(**{**fields, **changes})


def builder(answer: Answer = difference, **changes: Any) -> Any:
    """Return a picklable builder."""
    return functools.partial(build, answer=answer, **changes)


def shown(bands: int = 3) -> Any:
    """Return a builder of a task that answers what it was given."""
    names = tuple(f"{role} {i + 1}" for role in ("before", "after") for i in range(bands))
    return builder(both, bands=bands, outputs=names)


def job(before: Path, after: Path, outputs: dict[str, Path], **fields: Any) -> Job:
    """Return a predict Job; ``extent`` and the like by name, the rest are params."""
    known = {k: fields.pop(k) for k in ("extent", "aoi_wkt", "crs_wkt", "device") if k in fields}
    inputs = {
        role: {"path": str(path), "bands": fields.pop(f"bands_{role}", [])}
        for role, path in (("before", before), ("after", after))
    }
    places = {name: str(path) for name, path in outputs.items()}
    return Job("predict", "toy_change", inputs, places, fields, **known)


def run(
    before: Path,
    after: Path,
    output: Path,
    make: Any = None,
    events: Any = None,
    threads: bool = True,
    executor: Any = None,
    **fields: Any,
) -> tuple[Outcome, np.ndarray]:
    """Run a toy on two rasters; return the outcome and the scores, (C, H, W)."""
    asked = job(before, after, {"scores": output}, **fields)
    outcome = run_job(asked, events or Recorder(), make or builder(), threads, executor)
    with rasterio.open(output) as dataset:
        return outcome, dataset.read()


def ground(height: int, width: int, bands: int = 3, seed: int = 0, sigma: float = 1.5) -> np.ndarray:
    """Return a smooth random landscape, float64 (C, H, W), of about 20..235."""
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.normal(size=(bands, height, width)), (0, sigma, sigma))
    return np.clip(127 + 35 * image / image.std(), 1, 255)
