"""Point targets through the processor's impulse response: sub-pixel peaks, sidelobe crosses, ambiguities."""

from __future__ import annotations

import numpy as np

from .clutter import psf

CORE_PX = 3  # the stamp spans 2 * 3 + 1 pixels; beyond it only strong targets get their sidelobe arms


def _add(field: np.ndarray, rows: np.ndarray, cols: np.ndarray, values: np.ndarray) -> None:
    """Add complex values at integer pixels to the field, in place; what falls outside is dropped."""
    height, width = field.shape
    keep = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    if not keep.any():
        return
    rows, cols, values = rows[keep], cols[keep], values[keep]
    top, left = int(rows.min()), int(cols.min())
    shape = (int(rows.max()) - top + 1, int(cols.max()) - left + 1)
    index = (rows - top) * shape[1] + (cols - left)
    size = shape[0] * shape[1]
    part = np.bincount(index, values.real, size) + 1j * np.bincount(index, values.imag, size)
    field[top : top + shape[0], left : left + shape[1]] += part.reshape(shape).astype(np.complex64)


def add_points(
    fields: list[np.ndarray],
    rng: np.random.Generator,
    rows: np.ndarray,
    cols: np.ndarray,
    power: np.ndarray,
    bandwidth: float,
    taper: float,
    *,
    arm_power: float,
    arm_px: int,
) -> None:
    """Add point targets to complex64 fields (H, W), in place, with a new random phase in each field.

    ``rows``, ``cols``: pixel edges (0.5 = centre of the first pixel); ``power``: energy of each target
    in sigma0 times pixels (the stamp's faded edge takes up to a fifth of it). Targets above ``arm_power``
    get sidelobe arms of ``arm_px``.
    """
    if len(rows) == 0:
        return
    # the energy of the sampled response is that of its integral, 1 / bandwidth without taper, per axis
    side = 0.5 * (1 - taper) / taper
    scale = np.sqrt(power) * bandwidth / (1 + 2 * side * side)
    base_r, base_c = np.floor(rows).astype(np.intp), np.floor(cols).astype(np.intp)
    step = np.arange(-CORE_PX, CORE_PX + 1)
    edge = np.cos(np.pi * step / (2 * CORE_PX + 2))  # no visible square where the stamp ends
    stamp_r = psf(step[None] + 0.5 + (base_r - rows)[:, None], bandwidth, taper) * edge
    stamp_c = psf(step[None] + 0.5 + (base_c - cols)[:, None], bandwidth, taper) * edge
    stamp = stamp_r[:, :, None] * stamp_c[:, None, :] * scale[:, None, None]
    grid_r = (base_r[:, None, None] + step[None, :, None] + 0 * step[None, None, :]).ravel()
    grid_c = (base_c[:, None, None] + 0 * step[None, :, None] + step[None, None, :]).ravel()
    strong = np.flatnonzero(power > arm_power)
    if len(strong) > 300:
        strong = strong[np.argsort(power[strong])[-300:]]
    far = np.concatenate([np.arange(-arm_px, -CORE_PX), np.arange(CORE_PX + 1, arm_px + 1)])
    fade = np.cos(0.5 * np.pi * far / (arm_px + 1))
    thin = np.arange(-1, 2)
    arms = []
    if len(strong):
        br, bc, amount = base_r[strong], base_c[strong], scale[strong][:, None, None]
        for along_rows in (False, True):
            first, second, bf, bs = (rows, cols, br, bc) if along_rows else (cols, rows, bc, br)
            long = psf(far[None] + 0.5 + (bf - first[strong])[:, None], bandwidth, taper) * fade
            short = psf(thin[None] + 0.5 + (bs - second[strong])[:, None], bandwidth, taper)
            value = long[:, :, None] * short[:, None, :] * amount
            at_long = bf[:, None, None] + far[None, :, None] + 0 * thin[None, None, :]
            at_short = bs[:, None, None] + 0 * far[None, :, None] + thin[None, None, :]
            arms.append((at_long, at_short, value) if along_rows else (at_short, at_long, value))
    for field in fields:
        phase = np.exp(2j * np.pi * rng.random(len(rows)))
        _add(field, grid_r, grid_c, (stamp * phase[:, None, None]).ravel())
        for at_r, at_c, value in arms:
            _add(field, at_r.ravel(), at_c.ravel(), (value * phase[strong][:, None, None]).ravel())


def add_ambiguity(fields: list[np.ndarray], shift_px: int, level_db: float) -> None:
    """Add ghosts of bright targets ``shift_px`` away in azimuth (rows), ``level_db`` below them, in place."""
    gain = np.float32(10 ** (level_db / 20))
    for field in fields:
        if 0 < shift_px < field.shape[0]:
            ghost = field * gain
            field[shift_px:] += ghost[:-shift_px]
            field[:-shift_px] += ghost[shift_px:]
