"""Simulated haze and thin cloud over clear scenes: what training is made of, no measure of real haze.

The scattering model I = J t + A (1 - t) of ..classical.haze with drawn parameters: a transmission that
varies smoothly over the scene and falls faster in blue than in red, from thin to thick, and coloured
airlight, both mixed in linear light. Ranges of training and test differ, so that a test does not
ask for what was drawn in training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..classical.haze import WAVELENGTHS_UM, cloud_field

Range = tuple[float, float]


@dataclass(frozen=True)
class Ranges:
    """What one haze is drawn from, evenly within each (low, high).

    ``thickest``: least transmission of red over the scene. ``evenness``: 0 lets the air be clear in the
    thinnest place, 1 makes the veil even. ``airlight``: brightness of haze without end, in the counts of
    the scene (0..1); ``tint``: largest difference of one band to it. ``width_px``: size of a bank (drawn
    evenly in its logarithm). ``angstrom``: 0 for cloud, which is white, about 1.3 for smoke and haze.
    ``clearing``: share of the depth taken off everywhere, which opens holes. ``gamma``: what encodes
    light as counts. ``untouched``: how often there is no haze at all.
    """

    thickest: Range
    evenness: Range
    airlight: Range
    tint: float
    width_px: Range
    angstrom: Range
    clearing: Range
    gamma: Range
    untouched: float


#: Thin to thick; a network that never saw a clear scene would take haze off what has none.
TRAIN = Ranges(
    thickest=(0.25, 0.95),
    evenness=(0.0, 0.9),
    airlight=(0.75, 1.0),
    tint=0.04,
    width_px=(60.0, 500.0),
    angstrom=(0.0, 1.3),
    clearing=(0.0, 0.4),
    gamma=(2.0, 2.4),
    untouched=0.05,
)
#: Narrower banks, darker and less white airlight, bluer scattering and another display curve than in
#: TRAIN: none of these ranges touches the one of training. Thickness reaches further on the thick side.
TEST = Ranges(
    thickest=(0.2, 0.8),
    evenness=(0.0, 0.5),
    airlight=(0.62, 0.74),
    tint=0.03,
    width_px=(25.0, 55.0),
    angstrom=(1.4, 2.0),
    clearing=(0.0, 0.2),
    gamma=(1.7, 1.95),
    untouched=0.0,
)
#: A scene of the same ground encoded darker or brighter is as likely; beyond this, banks are invisible.
DARKEST_AIRLIGHT, BRIGHTEST_AIRLIGHT = 0.3, 1.0


def hazed(
    scene: np.ndarray, rng: np.random.Generator, ranges: Ranges
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the scene under a drawn haze, its transmission and its airlight.

    ``scene``: float32 (3, H, W), red, green, blue in 0..1. The first two results are float32 (3, H, W),
    the airlight float32 (3,) in the units of ``scene``. The same state of ``rng`` gives the same haze.
    """
    if scene.ndim != 3 or len(scene) != 3:
        raise ValueError(f"The scene has shape {scene.shape}, it must be (3, H, W).")
    clear = rng.random() < ranges.untouched
    thickest = rng.uniform(*ranges.thickest)
    depths = np.log(thickest) * np.array([rng.uniform(*ranges.evenness), 1.0])
    airlight = rng.uniform(*ranges.airlight) + rng.uniform(-ranges.tint, ranges.tint, 3)
    airlight = np.clip(airlight, DARKEST_AIRLIGHT, BRIGHTEST_AIRLIGHT).astype(np.float32)
    width_px = float(np.exp(rng.uniform(*np.log(ranges.width_px))))
    angstrom = rng.uniform(*ranges.angstrom)
    clearing = rng.uniform(*ranges.clearing)
    gamma = float(rng.uniform(*ranges.gamma))
    bank = cloud_field((scene.shape[1], scene.shape[2]), int(rng.integers(2**32)), width_px)
    if clear:
        return scene.copy(), np.ones_like(scene), airlight
    bank = np.maximum(bank - clearing, 0) / (1 - clearing)
    log_red = (depths[0] + (depths[1] - depths[0]) * bank).astype(np.float32)
    relative = ((WAVELENGTHS_UM[0] / np.array(WAVELENGTHS_UM)) ** angstrom).astype(np.float32)
    transmission = np.exp(relative[:, None, None] * log_red)
    veil = (airlight**gamma)[:, None, None] * (1 - transmission)
    hazy = (scene**gamma * transmission + veil) ** (1 / gamma)
    return hazy, transmission, airlight


def rounded(image: np.ndarray) -> np.ndarray:
    """Return what an 8-bit file holds of an image in 0..1, float32."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.float32) / np.float32(255)
