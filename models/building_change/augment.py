"""How one ground looks on two days: light, haze, sharpness, noise and small errors of registration.

None of it is in the paper, which states no augmentation. All of it is drawn for each date on its own,
and none of it is change: the labels stay. Images are float32 (3, H, W) in 0..1.
"""

from __future__ import annotations

import numpy as np

#: Each date's gamma is e to the power of up to this, 0.67..1.5: how stretches and seasons differ on the
#: training pairs, whose dates differ in mean by factors of 0.6 to 1.6.
GAMMA = 0.4
#: Gain and offset common to the bands of a date, and how far a single band strays from them.
GAIN, OFFSET = 0.2, 0.06
BAND_GAIN, BAND_OFFSET = 0.08, 0.03
#: Probabilities and strengths of a softer date, and of noise (standard deviation, 0.03 is 8 of 255).
SOFT, SOFTEST = 0.25, 1.0
NOISY, NOISIEST = 0.25, 0.03
#: Probability that a date loses colour, as half-dry vegetation does; to at least this part of it.
PALE, PALEST = 0.2, 0.3
#: Largest error of registration, in pixels along an axis, and how often there is one.
SHIFT_PX, SHIFTED = 2.0, 0.5


def photometric(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image as another day might have given it, float32, clipped to 0..1."""
    gamma = np.exp(rng.uniform(-GAMMA, GAMMA))
    gain = 1 + rng.uniform(-GAIN, GAIN) + rng.uniform(-BAND_GAIN, BAND_GAIN, (3, 1, 1))
    offset = rng.uniform(-OFFSET, OFFSET) + rng.uniform(-BAND_OFFSET, BAND_OFFSET, (3, 1, 1))
    out = image ** np.float32(gamma) * gain.astype(np.float32) + offset.astype(np.float32)
    if rng.random() < PALE:
        grey = out.mean(axis=0, keepdims=True)
        out = grey + np.float32(rng.uniform(PALEST, 1)) * (out - grey)
    if rng.random() < SOFT:
        out = softened(out, float(rng.uniform(0, SOFTEST)))
    if rng.random() < NOISY:
        out = out + rng.standard_normal(out.shape, np.float32) * np.float32(rng.uniform(0, NOISIEST))
    return np.clip(out, 0, 1, out=out)


def softened(image: np.ndarray, amount: float) -> np.ndarray:
    """Return the image mixed with its 3 x 3 binomial mean by ``amount`` 0..1, edges repeated."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), "edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    mean = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / np.float32(16)
    return image + np.float32(amount) * (mean - image)


def moved(image: np.ndarray, down: float, right: float) -> np.ndarray:
    """Return the image moved by fractions of pixels, bilinear, edges repeated.

    What was at (y, x) is at (y + down, x + right).
    """
    for axis, distance in ((1, down), (2, right)):
        size = image.shape[axis]
        at = np.clip(np.arange(size) - distance, 0, size - 1)
        first = np.minimum(at.astype(np.intp), size - 2)
        weight = (at - first).astype(np.float32).reshape((-1, 1) if axis == 1 else (-1,))
        low, high = image.take(first, axis), image.take(first + 1, axis)
        image = low + weight * (high - low)
    return image


def misregistered(image: np.ndarray, rng: np.random.Generator, largest: float = SHIFT_PX) -> np.ndarray:
    """Return a date that does not lie exactly on the other one, as often as :data:`SHIFTED` says.

    ``largest``: of the error along an axis, in pixels.
    """
    if rng.random() >= SHIFTED:
        return image
    down, right = rng.uniform(-largest, largest, 2)
    return moved(image, float(down), float(right))


def turned(array: np.ndarray, code: int) -> np.ndarray:
    """Return one of the eight symmetries of the square, (..., S, S): ``code`` & 3 turns, a flip if & 4."""
    array = np.rot90(array, code & 3, axes=(-2, -1))
    return array[..., ::-1] if code & 4 else array
