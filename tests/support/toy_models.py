"""Toy models that misbehave inside the real engine; the well-behaved ones are in ``toys.py``."""

import ctypes
import time

from kestrel.models.task import ModelError
from kestrel.models.toys import bright_boxes, toy_task


def crash(params, weights, device, scene):
    return toy_task(lambda image: ctypes.string_at(0))


def refuse(params, weights, device, scene):
    raise ModelError("This toy refuses.", "Take another.")


def slow(params, weights, device, scene):
    """0.3 s a tile, so that a cancel falls into one."""

    def answer(image):
        time.sleep(0.3)
        return bright_boxes(image)

    return toy_task(answer)
