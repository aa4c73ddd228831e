"""Builders that processes can share: without torch, picklable by name, answers that depend on the tile.

The answer mixes a 3 x 3 mean with the place inside the tile, so a pixel that was summed from other
tiles, or in another order of tiles, comes out different.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from kestrel.models.task import Input, ModelError, Scale, Task
from scipy import ndimage

TILE, OVERLAP = 64, 16


def mixed(image: np.ndarray) -> np.ndarray:
    """Return (C, T, T) to the same shape, float32 in 0..1."""
    rows, cols = np.mgrid[: image.shape[1], : image.shape[2]].astype(np.float32)
    place = (rows * 3 + cols) % 17 / 17
    return 0.7 * ndimage.uniform_filter(image, (1, 3, 3), mode="nearest") + 0.3 * place


def build_change(params: Any, weights: str, device: str, scene: Any) -> Task:
    """A restoration: answers in the input's units, applied as a change."""
    return _task(params, "raster", ("red", "green", "blue"), change=True)


def build_scores(params: Any, weights: str, device: str, scene: Any) -> Task:
    """A segmentation of three classes."""
    return _task(params, "scores", ("a", "b", "c"))


def _task(params: Any, kind: Any, outputs: tuple[str, ...], **more: Any) -> Task:
    params = dict(params)

    def predict(images: np.ndarray) -> list[np.ndarray]:
        misbehave(params)
        answers = [mixed(image) for image in images]
        if kind == "scores":
            answers = [answer / answer.sum(axis=0) for answer in answers]
        return answers

    return Task(
        name="unit_toy",
        inputs=(Input("image", bands=3, scale=Scale("auto"), fill="nearest", pad="reflect"),),
        kind=kind,
        tile=TILE,
        multiple=8,
        margin=0,
        shrinkable=False,
        outputs=outputs,
        prepare=lambda tiles: tiles.images["image"],
        predict=predict,
        overlap=lambda _: OVERLAP,
        model_id="unit_toy@000000000000",
        **more,
    )


def misbehave(params: dict[str, Any]) -> None:
    """Do what the Job asks for, inside a tile.

    ``die_except``: a process id; every other process is killed as the system does on a shortage of
    memory. ``refuse``: raise. ``pause``: seconds a tile takes. ``touch``: a file that says that a tile ran.
    """
    if params.get("touch"):
        Path(params["touch"]).touch()
    if params.get("pause"):
        time.sleep(params["pause"])
    if params.get("refuse"):
        raise ModelError("The toy refuses.", "Take another.")
    if params.get("die_except") and params["die_except"] != os.getpid():
        os.kill(os.getpid(), signal.SIGKILL)
