"""Real buildings of one place set on another: new ones, ones that stood before, and ones taken back.

Ours, not the paper's. A network could learn the seams instead of the buildings; so as many seams are put
where nothing changes: the same building in both dates, and new buildings replaced by the ground before.
"""

from __future__ import annotations

import numpy as np

#: How far, in pixels, the donor's ground comes along with a building, and over how much more it fades.
RIM_PX, FADE_PX = (1, 7), 3
#: How far the donor's colours are drawn to the place's own, 0 not at all to 1.
MATCH = (0.0, 1.0)
#: Side of the window, as part of the crop, inside which a donor's buildings are taken.
WINDOW = (0.3, 1.0)


def windowed(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the part of a mask (S, S) inside a random window, so that a donor gives some buildings."""
    size = label.shape[-1]
    side = round(size * rng.uniform(*WINDOW))
    row, col = (int(v) for v in rng.integers(0, size - side + 1, 2))
    out = np.zeros_like(label)
    out[row : row + side, col : col + side] = label[row : row + side, col : col + side]
    return out


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Return a mask (H, W) grown by a square of ``pixels`` on each side, bool."""
    if not pixels:
        return mask.copy()
    h, w = mask.shape
    sums = np.zeros((h + 2 * pixels + 1, w + 2 * pixels + 1), np.int32)
    sums[1:, 1:] = np.pad(mask, pixels).cumsum(axis=0, dtype=np.int32).cumsum(axis=1)
    k = 2 * pixels + 1
    return sums[k:, k:] - sums[:-k, k:] - sums[k:, :-k] + sums[:-k, :-k] > 0


def soft_mask(mask: np.ndarray, rim: int) -> np.ndarray:
    """Return weights float32 (H, W): 1 up to ``rim`` pixels around the mask, then fading to 0."""
    steps = [grown(mask, rim + step) for step in range(FADE_PX)]
    return np.mean(steps, axis=0, dtype=np.float32)


def set_onto(
    image: np.ndarray, donor: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``image`` with the donor's pixels of ``mask`` and a rim, and where the donor prevails.

    Images float32 (3, S, S) in 0..1; masks bool (S, S). The donor's colours are drawn part of the way to
    the image's, mean and spread of each band.
    """
    part = np.float32(rng.uniform(*MATCH))
    mean, spread = (f(donor, axis=(1, 2), keepdims=True) for f in (np.mean, np.std))
    own_mean, own_spread = (f(image, axis=(1, 2), keepdims=True) for f in (np.mean, np.std))
    # a flat place must not flatten the building, nor a lively one tear it apart
    ratio = np.clip(own_spread / np.maximum(spread, np.float32(0.01)), 0.6, 1.6)
    matched = (donor - mean) * ratio + own_mean
    mixed = donor + part * (matched - donor)
    weight = soft_mask(mask, int(rng.integers(RIM_PX[0], RIM_PX[1] + 1)))
    return np.clip(image + weight * (mixed - image), 0, 1), weight > 0.5


def built(
    after: np.ndarray, label: np.ndarray, donor: np.ndarray, donor_label: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the later date with some of a donor's changed buildings, and the label with them.

    Where a window cuts a building, what the rim still shows of it counts as building.
    """
    taken = windowed(donor_label, rng)
    if not taken.any():
        return after, label
    image, donors = set_onto(after, donor, taken, rng)
    return image, np.where(donors, donor_label, label)


def stood(
    before: np.ndarray,
    after: np.ndarray,
    label: np.ndarray,
    donor: np.ndarray,
    donor_label: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return both dates with the same donor's buildings where nothing changes: they stood before."""
    taken = windowed(donor_label, rng) & ~grown(label, RIM_PX[1] + FADE_PX)
    if not taken.any():
        return before, after
    state = rng.bit_generator.state
    first, _ = set_onto(before, donor, taken, rng)
    rng.bit_generator.state = state  # the same rim and the same share of the place's colours
    second, _ = set_onto(after, donor, taken, rng)
    return first, second


def taken_back(
    before: np.ndarray, after: np.ndarray, label: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the later date with some of its changes undone, and the label that is left.

    The ground of the earlier date is laid over the changes inside a window.
    """
    gone = windowed(label, rng)
    if not gone.any():
        return after, label
    image, undone = set_onto(after, before, gone, rng)
    return image, label & ~undone
