"""Pixel, channel and Fourier attention (paper 07, equations 9-12; specification, section 3.5).

The paper names the three and describes none. Pixel and channel attention are FFA-Net's. The Fourier
one is our reading (:data:`FOURIER_READING`, which a card repeats): no public module fits the name.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

from .wavelet import at_least_float32

FOURIER_READING = (
    "FAM is our reading: orthonormal rfft2, pointwise convolutions over the amplitudes of all channels, "
    "phases kept, irfft2; float32."
)
#: Pixel attention's bottleneck, FFA-Net's.
PA_REDUCTION = 8
#: No amplitude counts as smaller, so that below it a phase loses its weight. Rounding leaves about 1e-7
#: of the features' size in every coefficient of an orthonormal float32 transform; over flat ground the
#: amplitudes that the convolutions make up would otherwise get the phases of that rounding, different on
#: every machine.
PHASE_FLOOR = 1e-5


class PixelAttention(nn.Module):
    """One gate per pixel from a two-layer network over its channels."""

    def __init__(self, c: int) -> None:
        super().__init__()
        mid = max(c // PA_REDUCTION, 1)
        self.gate = nn.Sequential(nn.Conv2d(c, mid, 1), nn.ReLU(), nn.Conv2d(mid, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x * self.gate(x)


class ChannelAttention(nn.Module):
    """One gate per channel from a two-layer network over the channel means."""

    def __init__(self, c: int, reduction: int = 8) -> None:
        super().__init__()
        mid = max(c // reduction, 1)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, mid, 1), nn.ReLU(), nn.Conv2d(mid, c, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x * self.gate(x)


class FourierAttention(nn.Module):
    """FAM: a small network over the amplitudes of the spectrum; the phases stay.

    ``layers``: pointwise convolutions c -> c, a ReLU between each two; 0 is the identity. Always in
    float32, also under autocast: half-precision FFT takes only powers of two.
    """

    def __init__(self, c: int, layers: int = 2) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for i in range(layers):
            steps += [nn.ReLU()] if i else []
            steps += [nn.Conv2d(c, c, 1)]
        self.amplitude = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, before the sigmoid."""
        with _no_autocast(x.device.type):
            x = at_least_float32(x)
            # real and imaginary parts apart: complex abs and products take a quarter more time
            spectrum = torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))
            size = (spectrum[..., 0].square() + spectrum[..., 1].square()).clamp(min=PHASE_FLOOR**2).sqrt()
            # the phase is F / |F|, without angle(), whose gradient is infinite at 0
            spectrum = spectrum * (self.amplitude(size) / size).unsqueeze(-1)
            return torch.fft.irfft2(torch.view_as_complex(spectrum), s=x.shape[-2:], norm="ortho")


def _no_autocast(device: str) -> contextlib.AbstractContextManager[None]:
    """Switch autocast off where the device has one (torch's meta device has none)."""
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()
