"""Sea and land clutter: gamma texture times multilook speckle, correlated as in detected SAR images.

Intensity = mean power x texture x speckle. The texture is gamma distributed with shape nu, the speckle
gamma with L looks, so the intensity is K distributed with
variance / mean^2 = 1/L + 1/nu + 1/(L nu). numpy only.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def upsample(coarse: np.ndarray, height: int, width: int) -> np.ndarray:
    """Stretch a small float field to (height, width), bilinear between its samples."""
    out = coarse.astype(np.float32)
    for axis, size in ((0, height), (1, width)):
        last = out.shape[axis] - 1
        at = np.linspace(0, last, size, dtype=np.float32)
        low = np.minimum(at.astype(np.intp), max(last - 1, 0))
        part = at - low
        shape = (-1, 1) if axis == 0 else (1, -1)
        upper = np.minimum(low + 1, last)
        out = out.take(low, axis) * (1 - part).reshape(shape) + out.take(upper, axis) * part.reshape(shape)
    return out


def filtered_noise(rng: np.random.Generator, transfer: np.ndarray, height: int, width: int) -> np.ndarray:
    """Gaussian field (height, width) of mean 0 and expected variance 1 with the given amplitude transfer.

    ``transfer``: float (height, width // 2 + 1), on the frequencies of ``numpy.fft.rfft2``.
    """
    columns = np.ones(width // 2 + 1)
    columns[1 : (width + 1) // 2] = 2  # each inner column of rfft2 stands for two frequencies
    energy = float((np.square(transfer) * columns).sum())
    noise = rng.standard_normal((height, width), dtype=np.float32)
    spectrum = np.fft.rfft2(noise) * (transfer * np.sqrt(height * width / max(energy, 1e-30)))
    return np.fft.irfft2(spectrum, s=(height, width)).astype(np.float32)


def frequencies(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column frequencies in cycles per pixel, shaped for broadcasting over an rfft2 grid."""
    return np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]


def fractal_field(
    rng: np.random.Generator, height: int, width: int, slope: float, step: int = 4
) -> np.ndarray:
    """Field of variance 1 whose amplitude spectrum falls as frequency ** -slope; made ``step`` px apart."""
    # twice the size and cropped, because a periodic field would join opposite borders
    rows, cols = max(8, 2 * (height // step + 2)), max(8, 2 * (width // step + 2))
    fy, fx = frequencies(rows, cols)
    radius = np.hypot(fy, fx)
    radius[0, 0] = np.inf
    field = filtered_noise(rng, radius**-slope, rows, cols)[: rows // 2, : cols // 2]
    field = (field - field.mean()) / max(float(field.std()), 1e-6)
    return upsample(field, height, width)


def sea_waves(
    rng: np.random.Generator,
    height: int,
    width: int,
    pixel_m: float,
    *,
    wavelength_m: float,
    direction_deg: float,
    swell: float,
    grain_px: float,
) -> np.ndarray:
    """Gaussian field of variance 1: a share ``swell`` of narrow-band waves, the rest grain.

    ``wavelength_m`` and ``direction_deg`` (counter-clockwise from +column) are those of the swell;
    ``grain_px`` is the grain's correlation length in pixels.
    """
    fy, fx = frequencies(height, width)
    radius_squared = fy * fy + fx * fx
    grain = np.exp(-radius_squared * (np.pi * grain_px) ** 2)
    grain *= np.sqrt(1 - swell) / max(float(np.sqrt(np.mean(grain**2))), 1e-12)
    peak = min(pixel_m / wavelength_m, 0.45)
    angle = np.deg2rad(direction_deg)
    waves = np.zeros_like(grain)
    for sign in (1, -1):  # a real field needs both; only one lies in the half plane of rfft2
        dy, dx = fy + sign * peak * np.sin(angle), fx - sign * peak * np.cos(angle)
        waves += np.exp(-(dx * dx + dy * dy) / (2 * (0.25 * peak) ** 2))
    waves *= np.sqrt(swell) / max(float(np.sqrt(np.mean(waves**2))), 1e-12)
    return filtered_noise(rng, np.hypot(grain, waves), height, width)


@lru_cache(maxsize=64)
def _gamma_table(shape: float) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal abscissae and the gamma values (mean 1) at the same probability."""
    z = np.linspace(-7, 7, 4001)
    density = np.exp(-0.5 * z * z)
    normal = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    normal /= normal[-1]
    # in u = ln x the gamma density is x^shape exp(-x); the grid spans all mass above 1e-12
    u = np.linspace(np.log(1e-12) / max(shape, 0.2), np.log(shape + 40 + 12 * np.sqrt(shape)), 20001)
    log_density = shape * u - np.exp(u)
    mass = np.exp(log_density - log_density.max())
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (mass[1:] + mass[:-1]))])
    cumulative /= cumulative[-1]
    value = np.exp(np.interp(normal, cumulative, u)) / shape
    return z.astype(np.float32), value.astype(np.float32)


def gamma_texture(field: np.ndarray, shape: float) -> np.ndarray:
    """Turn a Gaussian field (variance 1) into gamma texture of mean 1 and variance 1/shape."""
    z, value = _gamma_table(round(float(shape), 4))
    step = z[1] - z[0]
    position = np.clip((field - z[0]) / step, 0, len(z) - 2)
    low = position.astype(np.int32)
    part = position - low
    return value[low] * (1 - part) + value[low + 1] * part


def psf(offset: np.ndarray, bandwidth: float, taper: float) -> np.ndarray:
    """Amplitude of a processed point target at ``offset`` px from its centre.

    ``bandwidth``: processed bandwidth / sampling rate, 0..1 (1 = critical sampling). ``taper``: the
    generalised Hamming window's pedestal, 1 = none (first sidelobe -13 dB), 0.54 = Hamming (-43 dB).
    """
    x = bandwidth * offset
    side = 0.5 * (1 - taper) / taper
    return np.sinc(x) + side * (np.sinc(x - 1) + np.sinc(x + 1))


def correlate(field: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Filter both axes of a float32 field by an odd ``kernel``; rows and columns beyond must be supplied."""
    reach = len(kernel) - 1
    height, width = field.shape[0] - reach, field.shape[1] - reach
    rows = np.zeros((height, field.shape[1]), np.float32)
    for index, weight in enumerate(kernel):
        rows += np.float32(weight) * field[index : index + height]
    out = np.zeros((height, width), np.float32)
    for index, weight in enumerate(kernel):
        out += np.float32(weight) * rows[:, index : index + width]
    return out


def speckle_look(
    rng: np.random.Generator, height: int, width: int, bandwidth: float, taper: float
) -> tuple[np.ndarray, np.ndarray]:
    """One look of fully developed speckle: real and imaginary part, E[re^2 + im^2] = 1."""
    taps = psf(np.arange(-2.0, 3.0), bandwidth, taper)
    taps = taps / np.sqrt(np.square(taps).sum())
    size = (height + 4, width + 4)
    scale = np.float32(np.sqrt(0.5))
    real = correlate(rng.standard_normal(size, dtype=np.float32), taps) * scale
    imaginary = correlate(rng.standard_normal(size, dtype=np.float32), taps) * scale
    return real, imaginary


def k_clutter(
    rng: np.random.Generator,
    mean_power: np.ndarray,
    texture: np.ndarray,
    looks: int,
    bandwidth: float,
    taper: float,
    targets: list[np.ndarray] | None = None,
) -> np.ndarray:
    """Multilook intensity float32 (H, W): mean over looks of |clutter + target|^2.

    ``targets``: complex fields (H, W) added to the looks in turn (coherent with the clutter), or None.
    """
    height, width = mean_power.shape
    amplitude = np.sqrt(mean_power * texture, dtype=np.float32)
    power = np.zeros((height, width), np.float32)
    for look in range(looks):
        real, imaginary = speckle_look(rng, height, width, bandwidth, taper)
        real *= amplitude
        imaginary *= amplitude
        if targets:
            target = targets[look % len(targets)]
            real += target.real
            imaginary += target.imag
        power += real * real + imaginary * imaginary
    return power / np.float32(looks)
