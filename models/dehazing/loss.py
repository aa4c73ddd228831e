"""The paper's loss: L1 over pixels and over the Fourier transform (equation 13)."""

from __future__ import annotations

import torch
from torch import Tensor

from .wavelet import at_least_float32

#: Weight of the Fourier term; the paper's.
LAMBDA = 0.1


def loss_terms(restored: Tensor, clear: Tensor) -> tuple[Tensor, Tensor]:
    """Return L1 over pixels and over Fourier coefficients (real plus imaginary part), two scalars.

    Both inputs (B, 3, H, W) in -1..1. Means, and the transform without normalisation, as in MIMO-UNet,
    where lambda comes from: coefficients grow with the square root of the number of pixels, so the
    second term outweighs the first, the more the larger the crop (34 times at 240 px for a white
    residual; specification, section 4). Hence two numbers, to be logged apart. At least float32.
    """
    residual = at_least_float32(restored) - at_least_float32(clear)
    # the transform is linear: one of the residual instead of two
    spectrum = torch.view_as_real(torch.fft.fft2(residual))
    return residual.abs().mean(), 2 * spectrum.abs().mean()


def dehazing_loss(restored: Tensor, clear: Tensor, weight: float = LAMBDA) -> Tensor:
    """Equation 13: pixels plus ``weight`` times Fourier; see :func:`loss_terms`."""
    pixels, fourier = loss_terms(restored, clear)
    return pixels + weight * fourier
