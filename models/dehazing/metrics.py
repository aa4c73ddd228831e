"""How near a restored picture comes to the clear one: PSNR, SSIM, and both after a colour correction.

PSNR is that of 8-bit counts: the restored picture is rounded as a file would hold it. The affine fit of
each band to the truth takes colour and contrast out of the comparison: what remains is structure. The
same fit learnt on other pairs (:class:`Affine`) is the baseline that a network must beat.
SSIM of whole images; DehazeFormer's test code pools by round(min(H, W) / 256) first, which is 1 for
all images measured here (200 and 320 px).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from .data import unit
from .simulate import rounded

#: float32 (3, H, W) in 0..1 -> the same, restored; need not be clipped.
Restore = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Scores:
    """Figures of each pair, float64 (N,): ``psnr`` dB, ``ssim``, and both after the affine fit."""

    psnr: np.ndarray
    ssim: np.ndarray
    psnr_fitted: np.ndarray
    ssim_fitted: np.ndarray

    def __len__(self) -> int:
        """How many pairs were measured."""
        return len(self.psnr)

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Self:
        """Return the scores of one part after the other."""
        return cls(*(np.concatenate([getattr(p, field.name) for p in parts]) for field in fields(cls)))


def evaluate(restore: Restore, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Scores:
    """Return the scores of ``restore`` over (hazy, clear) images (3, H, W), uint8 or float32 in 0..1."""
    found = []
    for hazy, clear in pairs:
        truth = unit(clear)
        image = rounded(restore(unit(hazy)))
        fitted = rounded(fit_bands([image], [truth])(image))
        found.append((psnr(image, truth), ssim(image, truth), psnr(fitted, truth), ssim(fitted, truth)))
    return Scores(*np.array(found, np.float64).reshape(-1, 4).T)


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio over all bands, dB, of images in 0..1; inf where equal."""
    error = float(np.mean(np.square(image - truth, dtype=np.float64)))
    return -10 * float(np.log10(error)) if error else float("inf")


def ssim(image: np.ndarray, truth: np.ndarray) -> float:
    """Return the structural similarity (Wang et al. 2004): Gaussian window of 11, mean over bands.

    Images float32 (3, H, W) in 0..1 of at least 11 pixels.
    """
    x, y = image.astype(np.float64), truth.astype(np.float64)
    mx, my = _smooth(x), _smooth(y)
    vx, vy, cov = _smooth(x * x) - mx * mx, _smooth(y * y) - my * my, _smooth(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return float(np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))


def _smooth(image: np.ndarray) -> np.ndarray:
    """Return (C, H - 10, W - 10): the mean under a Gaussian window of 11, sigma 1.5."""
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    taps /= taps.sum()
    for axis in (1, 2):
        size = image.shape[axis] - 10
        parts = [w * image.take(range(k, k + size), axis) for k, w in enumerate(taps)]
        image = np.sum(parts, axis=0)
    return image


@dataclass(frozen=True, eq=False)
class Affine:
    """A gain and an offset for each band, float64 (3,), applied to images (3, H, W) in 0..1."""

    gain: np.ndarray
    offset: np.ndarray

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the image corrected, float32, not clipped."""
        return (image * self.gain[:, None, None] + self.offset[:, None, None]).astype(np.float32)


def fit_bands(images: Iterable[np.ndarray], truths: Iterable[np.ndarray]) -> Affine:
    """Return the least-squares map of each band over all pixels of the pairs.

    ``images``, ``truths``: (3, H, W), uint8 or float32 in 0..1. A band without contrast keeps gain 1.
    """
    count, sums = 0, np.zeros((4, 3))
    for image, truth in zip(images, truths, strict=True):
        x, y = (unit(a).reshape(3, -1).astype(np.float64) for a in (image, truth))
        count += x.shape[1]
        sums += np.array([x.sum(axis=1), y.sum(axis=1), (x * x).sum(axis=1), (x * y).sum(axis=1)])
    mean_x, mean_y, mean_xx, mean_xy = sums / count
    variance = mean_xx - mean_x**2
    flat = variance < 1e-9  # a thousandth of one 8-bit level
    gain = np.where(flat, 1.0, (mean_xy - mean_x * mean_y) / np.where(flat, 1.0, variance))
    return Affine(gain, mean_y - gain * mean_x)


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Return the mean of paired differences and half the width of its 95 % interval (t); nan if too few."""
    count = len(differences)
    mean = float(np.mean(differences)) if count else float("nan")
    if count < 2:
        return mean, float("nan")
    half = t_quantile(count - 1) * np.std(differences, ddof=1) / np.sqrt(count)
    return mean, float(half)


def t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t for 1 or more degrees of freedom.

    Exact for 1 and 2; above, the normal quantile expanded in 1 / freedom (Abramowitz and Stegun 26.7.5),
    which is off by less than 0.01 from 3 on and by less than 0.0001 from 10 on.
    """
    if freedom <= 2:
        return (12.706205, 4.302653)[freedom - 1]
    z, n = 1.959963985, float(freedom)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / n**power for power, term in enumerate(terms))
