"""Simulated haze over a clear image, for tests, pictures and benchmarks: no measure of real haze.

The atmospheric scattering model I = J t + A (1 - t) with a transmission t that varies smoothly over
the image and with wavelength: scattering falls with wavelength to the power of -``angstrom``
(Angstrom's law), so blue loses more than red.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Centres of red, green and blue in micrometres, as in Landsat 8 and Sentinel-2.
WAVELENGTHS_UM = (0.66, 0.56, 0.48)
#: Each octave of the haze is half as wide and half as strong as the one before.
OCTAVES = 3


@dataclass(frozen=True, eq=False)
class Haze:
    """A hazy image with its truth.

    ``image``: float32 (3, H, W) in 0..1. ``transmission``: float32 (3, H, W), 1 where the air is clear.
    ``airlight``: float32 (3,), the colour of haze without end, in the units of ``image``.
    """

    image: np.ndarray
    transmission: np.ndarray
    airlight: np.ndarray


def simulate(
    image: np.ndarray,
    seed: int,
    *,
    thinnest: float = 0.9,
    thickest: float = 0.3,
    airlight: tuple[float, float, float] = (0.90, 0.92, 0.95),
    width_px: float = 200.0,
    angstrom: float = 1.0,
    gamma: float = 1.0,
) -> Haze:
    """Put haze over ``image``, float32 (3, H, W), red, green, blue in 0..1.

    ``thinnest``, ``thickest``: largest and smallest transmission of red over the image, in 0..1.
    ``airlight``: colour of the haze, in the units of ``image``. ``width_px``: typical width of a bank of
    haze. ``angstrom``: 0 for cloud, which scatters all colours alike, about 1 for haze, 4 for clean air.
    ``gamma``: 1 applies the model to the values as they are; 2.2 takes them for counts encoded for
    display and mixes light, as the air does. The same seed gives the same haze.
    """
    if image.ndim != 3 or len(image) != 3:
        raise ValueError(f"The image has shape {image.shape}, it must be (3, H, W).")
    if not 0 < thickest <= thinnest <= 1:
        raise ValueError(f"Transmissions {thickest:g} to {thinnest:g} must rise and lie in 0 to 1.")
    bank = cloud_field((image.shape[1], image.shape[2]), seed, width_px)
    # thickness, not transmission, is what scattering multiplies
    depth = -np.log(thinnest) + np.log(thinnest / thickest) * bank
    relative = (WAVELENGTHS_UM[0] / np.array(WAVELENGTHS_UM)) ** angstrom
    transmission = np.exp(-relative[:, None, None] * depth)
    colour = np.array(airlight, np.float64)
    veil = np.power(colour, gamma)[:, None, None] * (1 - transmission)
    hazy = np.power(np.power(image, gamma, dtype=np.float64) * transmission + veil, 1 / gamma)
    return Haze(hazy.astype(np.float32), transmission.astype(np.float32), colour.astype(np.float32))


def cloud_field(shape: tuple[int, int], seed: int, width_px: float) -> np.ndarray:
    """Return smooth random banks, float64 (H, W), that span 0..1 (0 everywhere where nothing varies)."""
    rng = np.random.default_rng(seed)
    field = np.zeros(shape)
    for octave in range(OCTAVES):
        cell = max(width_px / 2**octave, 1.0)
        # cubic splines over a coarse random grid: smooth, and cheap at any size
        grid = rng.standard_normal([int(n / cell) + 4 for n in shape])
        rows, cols = (np.arange(n) / cell + 1 for n in shape)
        field += _spline(_spline(grid, rows).T, cols).T / 2**octave
    low, high = field.min(), field.max()
    return (field - low) / (high - low) if high > low else np.zeros(shape)


def _spline(coefficients: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Evaluate cubic B-splines along axis 0: (n, m) coefficients at positions (k,) -> (k, m)."""
    first = np.floor(at).astype(np.intp)
    f = (at - first)[:, None]
    weights = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3)
    return np.sum([w * coefficients[first + k - 1] for k, w in enumerate(weights)], axis=0) / 6
