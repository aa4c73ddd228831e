"""Toy models for the real engine in the real worker: kind boxes, no torch, no weights."""

import ctypes
import time

import numpy as np
from kestrel.models.task import Input, ModelError, Scale, Task


def _task(predict, tile=64):
    return Task(
        name="toy",
        inputs=(Input("image", scale=Scale()),),
        kind="boxes",
        tile=tile,
        multiple=32,
        margin=0,
        shrinkable=False,
        outputs=("thing",),
        prepare=lambda tiles: tiles,
        predict=predict,
        model_id="toy@000000000000",
    )


def _bright(tiles):
    """Return one box of 3 x 3 pixels around the brightest pixel of each tile above 0.9."""
    found = []
    for image in tiles.images["image"]:
        row, col = np.unravel_index(int(np.argmax(image[0])), image[0].shape)
        if image[0, row, col] > 0.9:
            found.append(np.array([[col - 1, row - 1, col + 2, row + 2, 0.9, 0]], dtype=np.float32))
        else:
            found.append(np.zeros((0, 6), dtype=np.float32))
    return found


def constant(params, weights, device, scene):
    return _task(_bright)


def slow_tiles(params, weights, device, scene):
    def predict(tiles):
        time.sleep(0.2)
        return _bright(tiles)

    return _task(predict)


def crash_in_tile(params, weights, device, scene):
    def predict(tiles):
        ctypes.string_at(0)

    return _task(predict)


def refuse_to_build(params, weights, device, scene):
    raise ModelError("This toy refuses.", "Take another.")
