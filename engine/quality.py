"""PSNR and SSIM against a clear raster of the same ground, for the input and for the output.

SSIM is Wang et al., "Image quality assessment: from error visibility to structural similarity" (IEEE
TIP 13, 2004): Gaussian window of 11 x 11, sigma 1.5, K1 = 0.01, K2 = 0.03, per band, then the mean.
Only pixels valid everywhere count, and only windows that lie wholly on such pixels. Blocks with a halo
keep the memory bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, minimum_filter

from .errors import ReadError
from .events import Track
from .reference import Reference, aligned, check_reference
from .scaling import Scaling
from .scene import Reader, Scene, open_scene

__all__ = ["check_reference", "compare"]

RADIUS, SIGMA, K1, K2 = 5, 1.5, 0.01, 0.03
#: Rows and columns compared at once: 0.5 Mpx, 4 MB for each of some twenty float64 arrays.
BLOCK = (256, 2048)

_smooth = partial(gaussian_filter, sigma=SIGMA, radius=RADIUS, mode="constant")


@dataclass
class _Sums:
    """Of one image against the reference: per band squared errors and SSIM over windows."""

    squares: np.ndarray
    ssim: np.ndarray

    def figures(self, pixels: int, windows: int, peak: float) -> dict[str, Any]:
        errors = self.squares / pixels if pixels else np.full(len(self.squares), np.nan)
        ssim = self.ssim / windows if windows else np.full(len(self.ssim), np.nan)
        return {
            "mse": _number(errors.mean()),
            "psnr": _psnr(errors.mean(), peak),
            "ssim": _number(ssim.mean()),
            "psnr_bands": [_psnr(error, peak) for error in errors],
            "ssim_bands": [_number(value) for value in ssim],
        }


def compare(
    output_path: Path | str,
    output_bands: Sequence[int],
    scene: Scene,
    reference: Reference,
    scalings: Sequence[Scaling],
    track: Track,
    rect: tuple[int, int, int, int] | None = None,
    wanted: Callable[[int, int, int, int], np.ndarray | None] | None = None,
    block: tuple[int, int] = BLOCK,
) -> dict[str, Any]:
    """Return PSNR and SSIM of ``input`` and ``output`` against ``reference``, JSON-safe.

    ``output_bands``: those of the output's file that answer ``scene.bands``. ``scalings``: the stretch of
    each band. ``rect``: (row, column, height, width) of the output in scene pixels, None = all.
    ``wanted``: such a window -> bool (height, width), pixels that count, or None for all of them.

    Units: 8-bit DN, peak 255, for uint8; else stretched units, (value - low) / (high - low), peak 1,
    not clipped, as restored values may lie beyond the stretch. PSNR is of the squared error's mean over
    pixels and bands. ``psnr`` is None where it is infinite (``mse`` 0) and where ``pixels`` is 0.
    """
    bands = len(scene.bands)
    bytes_ = scene.dtype == np.uint8
    lows, highs = [float(s.low or 0) for s in scalings], [float(s.high or 0) for s in scalings]
    if bytes_:
        lows, highs = [0.0] * bands, [255.0] * bands
    peak = 255.0 if bytes_ else 1.0
    low = np.reshape(lows, (-1, 1, 1))
    unit = (np.reshape(highs, (-1, 1, 1)) - low) / peak
    rect = rect or (0, 0, scene.height, scene.width)
    sums = {name: _Sums(np.zeros(bands), np.zeros(bands)) for name in ("input", "output")}
    pixels = windows = 0
    notes = list(reference.notes)
    output = open_scene(str(output_path), output_bands)
    with ExitStack() as stack:
        readers = [stack.enter_context(which.reader()) for which in (scene, output, reference.scene)]
        try:
            for r, c, h, w in _blocks(rect, reference, block, track):
                inner, images, valid = _read(rect, (r, c, h, w), readers, reference, wanted)
                count = int(np.count_nonzero(valid[inner]))
                if not count:
                    continue
                pixels += count
                for image in images.values():
                    image -= low
                    image /= unit
                    image[:, ~valid] = 0
                whole = minimum_filter(valid.astype(np.uint8), 2 * RADIUS + 1, mode="constant")[inner] != 0
                windows += int(np.count_nonzero(whole))
                clear = images.pop("reference")
                for band in range(bands):
                    _add(sums, {n: i[band] for n, i in images.items()}, clear[band], band, inner, whole, peak)
        except ReadError as error:
            # the output is made: a reference damaged somewhere costs these figures only
            if str(reference.scene.path) not in error.message:
                raise
            track.warn(f"PSNR and SSIM are missing: {error.message}")
            pixels = windows = 0
    if not pixels:
        notes.append("No pixel is valid in input, output and reference.")
    return {
        "reference": str(reference.scene.path),
        "reference_bands": list(reference.scene.bands),
        "resampled": reference.resampled,
        "shift_px": list(reference.shift_px) if reference.shift_px else None,
        "units": "8-bit DN" if bytes_ else "stretched units",
        "peak": peak,
        "lows": lows,
        "highs": highs,
        "pixels": pixels,
        "windows": windows,
        **{name: total.figures(pixels, windows, peak) for name, total in sums.items()},
        "notes": notes,
    }


def _add(
    sums: dict[str, _Sums],
    images: dict[str, np.ndarray],
    clear: np.ndarray,
    band: int,
    inner: tuple[slice, slice],
    whole: np.ndarray,
    peak: float,
) -> None:
    """Add one band of a block; invalid pixels are 0 in all images, so their error is 0."""
    some = whole.any()
    if some:
        mean = _smooth(clear)[inner]
        variance = _smooth(clear**2)[inner] - mean**2
    for name, image in images.items():
        error = (image - clear)[inner].ravel()
        sums[name].squares[band] += error @ error
        if not some:
            continue
        own_mean = _smooth(image)[inner]
        own_variance = _smooth(image**2)[inner] - own_mean**2
        covariance = _smooth(image * clear)[inner] - own_mean * mean
        c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
        ssim = (2 * own_mean * mean + c1) * (2 * covariance + c2)
        ssim /= (own_mean**2 + mean**2 + c1) * (own_variance + variance + c2)
        sums[name].ssim[band] += ssim[whole].sum()


def _blocks(
    rect: tuple[int, int, int, int], reference: Reference, block: tuple[int, int], track: Track
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (row, column, height, width) in output pixels; smaller ones under a finer reference."""
    rows, cols = (max(32, int(size / max(1.0, reference.finer))) for size in block)
    if not reference.resampled:
        rows, cols = block
    _, _, height, width = rect
    for row in range(0, height, rows):
        track.progress(0, row, height, "quality", None)
        for col in range(0, width, cols):
            track.check()
            yield row, col, min(rows, height - row), min(cols, width - col)


def _read(
    rect: tuple[int, int, int, int],
    block: tuple[int, int, int, int],
    readers: list[Reader],
    reference: Reference,
    wanted: Callable[[int, int, int, int], np.ndarray | None] | None,
) -> tuple[tuple[slice, slice], dict[str, np.ndarray], np.ndarray]:
    """Read a block with its halo: (the block inside it, float64 (C, h, w) by name, valid (h, w))."""
    row, col, height, width = block
    top, left = max(0, row - RADIUS), max(0, col - RADIUS)
    bottom, right = min(rect[2], row + height + RADIUS), min(rect[3], col + width + RADIUS)
    inner = np.s_[row - top : row - top + height, col - left : col - left + width]
    size = bottom - top, right - left
    place = rect[0] + top, rect[1] + left, *size
    before, valid = readers[0].read_bands(*place)
    after, valid_after = readers[1].read_bands(top, left, *size)
    clear, valid_clear = aligned(reference, readers[0].scene, readers[2], *place)
    valid = valid.all(0) & valid_after.all(0) & valid_clear.all(0)
    inside = wanted(*place) if wanted else None
    if inside is not None:
        valid &= inside
    images = {"input": before.astype(float), "output": after.astype(float), "reference": clear}
    return inner, images, valid


def _psnr(mse: float, peak: float) -> float | None:
    return float(10 * np.log10(peak**2 / mse)) if mse > 0 else None  # False for NaN as well


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
