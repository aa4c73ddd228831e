"""How far two dates lie beside each other: phase correlation of grey patches spread over the scene.

Each patch of both dates is made grey and tapered, and the phase difference of their spectra goes back
into pixels: two pictures that differ by a translation give one peak there (Kuglin and Hines, 1975). All
patches of a scene have the same translation, so their surfaces are summed before the peak is looked
for: what differs between the dates spreads, what is shared adds up. Spectra are weighted by a Gaussian,
so that a peak is smooth, and its top between pixels is found by interpolating the surface, which the
spectrum does exactly whatever the peak's shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .events import Track
from .joined import Joined
from .scene import Reader
from .statistics import Rect

#: Pixels a side of a patch: four times the largest translation looked for, so that half of each patch is
#: shared even then. Smaller scenes have smaller ones, down to LEAST.
SIDE, LEAST = 256, 64
#: Patches: 25 of 256 pixels take about a second.
PATCHES = 25
#: Translations looked for, in pixels along each axis, and the largest that ALIGN moves by.
WITHIN, LARGEST = 32, 10.0
#: Translation in pixels from which on a user is warned.
NOTABLE = 2.0
#: Share of a patch that must have data in both dates.
VALID = 0.7
#: Standard deviation of the spectra's weight, in cycles per pixel: the finest details alias, and are
#: the first to go where a date was interpolated. A peak's is 1 / (2 pi SIGMA) = 1.06 pixels.
SIGMA = 0.15
#: Pixels around the top that belong to the peak.
PEAK = 4
#: Steps in a pixel in which the top is looked for, before a parabola.
ZOOM = 8
#: A peak so many standard deviations above the rest of its surface is one. Of 27 pairs of the development
#: data the two dates of one place had 9 to 600, the dates of two places 4.7 to 6.8.
CLEAR = 8.0


@dataclass(frozen=True)
class Registration:
    """Where the second layer's pictures lie beside the first one's.

    ``shift``: (x, y), pixels of the grid to the right and down. ``quality``: height of the peak above the
    mean of its surface, in the surface's standard deviations. ``patches``: how many were compared;
    ``agreeing``: how many of them lie within a pixel of the result by themselves. ``moved``: (x, y) by
    which the layer was moved, None where it was left; ``left``: what was measured after that.
    """

    shift: tuple[float, float]
    quality: float
    patches: int
    agreeing: int
    moved: tuple[float, float] | None = None
    left: tuple[float, float] | None = None

    @property
    def clear(self) -> bool:
        """Return whether the peak stands out."""
        return self.quality >= CLEAR

    @property
    def distance(self) -> float:
        """Return the translation in pixels."""
        return float(np.hypot(*self.shift))

    def figures(self) -> dict[str, Any]:
        """Return what sidecar and report tell."""
        return {
            "shift_px": [round(value, 3) for value in self.shift],
            "quality": round(self.quality, 2),
            "clear": self.clear,
            "patches": self.patches,
            "agreeing": self.agreeing,
            "moved_px": None if self.moved is None else [round(value, 3) for value in self.moved],
            "left_px": None if self.left is None else [round(value, 3) for value in self.left],
        }


def measure(scene: Joined, track: Track) -> Registration | None:
    """Compare the first two layers; None where no patch has data enough in both."""
    side = min(SIDE, scene.height, scene.width)
    if side < LEAST:
        return None
    first, second = list(scene.parts.values())[:2]
    surfaces = []
    with scene.reader() as reader:
        for number, rect in enumerate(lattice(scene.height, scene.width, side)):
            track.check()
            track.progress(0, number, PATCHES, "registration", None)
            pair = _grey(reader, rect, (first, second))
            if pair is not None:
                surfaces.append(surface(*pair))
    if not surfaces:
        return None
    total = np.sum(surfaces, axis=0)
    shift, quality = peak(total)
    alone = [peak(each)[0] for each in surfaces]
    agreeing = sum(np.hypot(x - shift[0], y - shift[1]) <= 1 for x, y in alone)
    return Registration(shift, quality, len(surfaces), int(agreeing))


def lattice(height: int, width: int, side: int) -> list[Rect]:
    """Return up to PATCHES squares, evenly spread; fewer where they would overlap by more than half."""
    across = int(PATCHES**0.5)
    rows, cols = (
        np.unique(np.linspace(0, size - side, min(across, max(1, 2 * size // side - 1))).astype(int))
        for size in (height, width)
    )
    return [(int(row), int(col), side, side) for row in rows for col in cols]


def _grey(reader: Reader, rect: Rect, parts: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return both dates' grey patches, float64, of mean 0 where there is data and 0 elsewhere."""
    values, valid = reader.read_bands(*rect)
    there = valid.all(axis=0)
    if there.mean() < VALID:
        return None
    found = []
    for part in parts:
        grey = values[part].astype(np.float64).mean(axis=0)
        grey = np.where(there, grey - grey[there].mean(), 0)
        if not grey.any():
            return None
        found.append(grey)
    return found[0], found[1]


def surface(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the phase correlation of two patches (N, N), shift 0 at (N // 2, N // 2).

    1 at the peak where the two differ by a translation alone.
    """
    side = len(before)
    taper = np.hanning(side + 2)[1:-1]
    window = taper[:, None] * taper
    spectra = [np.fft.rfft2(each * window) for each in (before, after)]
    cross = spectra[1] * spectra[0].conj()
    size = np.abs(cross)
    rows, cols = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    weight = np.exp(-(rows**2 + cols**2) / (2 * SIGMA**2))
    full = np.exp(-(rows**2 + np.fft.fftfreq(side) ** 2) / (2 * SIGMA**2)).mean()
    phase = np.divide(cross, size, out=np.zeros_like(cross), where=size > 1e-12 * size.max())
    return np.fft.fftshift(np.fft.irfft2(phase * weight, s=before.shape)) / full


def peak(found: np.ndarray) -> tuple[tuple[float, float], float]:
    """Return ((x, y) of the highest peak within reach, its height in standard deviations of the rest)."""
    side = len(found)
    middle, reach = side // 2, min(WITHIN, side // 4)
    near = found[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
    row, col = (int(n) + middle - reach for n in np.unravel_index(near.argmax(), near.shape))
    rest = np.ones(found.shape, bool)
    rest[row - PEAK : row + PEAK + 1, col - PEAK : col + PEAK + 1] = False
    quality = (found[row, col] - found[rest].mean()) / max(float(found[rest].std()), 1e-12)
    y, x = _top(found, row, col)
    return (x - middle, y - middle), float(quality)


def _top(found: np.ndarray, row: int, col: int) -> tuple[float, float]:
    """Return (row, column) of the top of a peak between pixels, by Fourier interpolation around it."""
    side = len(found)
    spectrum = np.fft.fft2(found)
    waves = 2j * np.pi * np.fft.fftfreq(side)
    steps = np.arange(-ZOOM, ZOOM + 1) / ZOOM
    down, right = (np.exp(np.outer(place + steps, waves)) for place in (row, col))
    near = (down @ spectrum @ right.T).real
    i, j = (int(n) for n in np.unravel_index(near.argmax(), near.shape))
    i, j = (min(max(n, 1), 2 * ZOOM - 1) for n in (i, j))
    y, x = _vertex(near[i - 1 : i + 2, j]), _vertex(near[i, j - 1 : j + 2])
    return row + float(steps[i]) + y / ZOOM, col + float(steps[j]) + x / ZOOM


def _vertex(three: np.ndarray) -> float:
    """Return where the parabola through three values has its top, -1..1 from the middle one."""
    low, mid, high = map(float, three)
    bend = low - 2 * mid + high
    return 0.0 if bend >= 0 else min(1.0, max(-1.0, 0.5 * (low - high) / bend))
