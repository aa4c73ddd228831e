"""Ship detection by cell-averaging CFAR: the classical baseline, a Task without torch.

A pixel is bright when its power exceeds the mean of the sea around it by a factor that pure clutter
passes with a given probability (clutter.py). Bright pixels become boxes:

1. pixels above the threshold at PFA are seeds; from them a ship grows over pixels above the threshold
   at 100 PFA (a ship is brighter than the sea as a whole, but not everywhere), gaps closed;
2. pixels 20 dB under the object's peak are side lobes, not hull, and are dropped;
3. the box holds all but 3 % of the remaining amplitude at each end of each axis, so that single
   grown pixels do not stretch it; objects longer than a ship are land or structures and dropped;
4. score = 1 - 1 / (mean over the object of power / threshold): 0 at the threshold, towards 1 above;
   an object that is not above the threshold as a whole is a spike of clutter and dropped.

Windows, PFA of growth, side-lobe level and trim were chosen on training data alone: HRSID mini36
P0001 to P0016 at an assumed 3 m, and OpenSARShip scenes 20160131T204259 and 20150902T102505.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ..scaling import scale_from
from ..task import Input, ModelError, SceneInfo, Task, Tiles
from .clutter import SHAPES, measure, threshold_factor

#: What features carry as their model: without weights that is the algorithm's id (CONTRACTS.md, section 5).
ALGORITHM = "kestrel:detectshipscfar"

DEFAULT_PFA = 1e-6
#: Sides of the two square windows, metres on the ground: the guard keeps most ships out of their own
#: background, the background stays small against the swell's and the wind's changes.
DEFAULT_GUARD_M = 300.0
DEFAULT_BACKGROUND_M = 600.0
#: Assumed where the raster has no CRS.
DEFAULT_PIXEL_M = 10.0

#: The longest ship afloat has 400 m; its box may be a little larger.
LONGEST_SHIP_M = 500.0
#: A bright object with its side lobes; larger ones are land whatever their box would be.
LONGEST_OBJECT_M = 800.0
#: Area of the smallest object: a boat of 25 m x 8 m. Never fewer than two pixels.
SMALLEST_M2 = 200.0
GROWTH = 100.0
LARGEST_GROWN_PFA = 1e-2
GAP_M = 4.0
SIDE_LOBES_DB = 20.0
TRIM = 0.03

#: Training cells without which nothing is decided, or a quarter of the window where it is small.
FEWEST_CELLS = 100
#: Finer pixels are first averaged in blocks, to at most this size: more looks, and windows in metres
#: of which each tile holds enough. Blocks are anchored to the scene, so tiles share them.
FINEST_M = 2.0
#: Sides of tiles in pixels; the larger, the less is computed twice, but the engine keeps several of
#: them (36 bytes for each pixel).
SMALLEST_TILE, LARGEST_TILE = 1024, 6144


@dataclass(frozen=True)
class Windows:
    """Metres turned into pixels; pairs are (rows, columns).

    ``guard``, ``background``: half sides. ``gap``: half side of the closing. ``longest``: extent of
    the largest object. ``metres``: pixel size. ``cells``: training cells a decision needs.
    """

    guard: tuple[int, int]
    background: tuple[int, int]
    gap: tuple[int, int]
    longest: tuple[int, int]
    metres: tuple[float, float]
    cells: float

    @property
    def support(self) -> tuple[int, int]:
        """How far away (rows, columns) a pixel can change a decision."""
        return 2 * self.background[0], 2 * self.background[1]

    @property
    def overlap(self) -> tuple[int, int]:
        """Tiles that overlap by this much hold every object whole in what one of them decides."""
        rows, cols = (
            2 * s + o + 2 * (g + 1) for s, o, g in zip(self.support, self.longest, self.gap, strict=True)
        )
        return rows, cols


def build(params: Mapping[str, Any], weights: str, device: str, scene: SceneInfo) -> Task:
    """Return the Task; raises ModelError in one sentence.

    ``params``: ``pfa``, ``guard``, ``background`` (metres; 0 or missing = the defaults above),
    ``scale_mode``, ``scale_min``, ``scale_max``. ``weights`` and ``device`` have no effect.
    """
    scale = scale_from(params, to="power")
    pfa = _number(params, "pfa", DEFAULT_PFA)
    if not 1e-15 <= pfa <= 0.1:
        raise ModelError(f"PFA is {pfa:g}, it must lie in 1e-15 to 0.1.", "Usual is 1e-6.")
    guard_m = _number(params, "guard", DEFAULT_GUARD_M)
    background_m = _number(params, "background", DEFAULT_BACKGROUND_M)
    pixel_m = scene.pixel_m or (DEFAULT_PIXEL_M, DEFAULT_PIXEL_M)
    block = _each((pixel_m[1], pixel_m[0]), lambda m: max(1, math.floor(FINEST_M / m)))
    windows = windows_for((pixel_m[0] * block[1], pixel_m[1] * block[0]), guard_m, background_m)
    overlap = max((o + 1) * b for o, b in zip(windows.overlap, block, strict=True))
    # unsigned integers that are not decibels are amplitudes in steps of 1
    quantum = 1.0 if scene.dtype.startswith("uint") and scale.mode not in ("db", "linear") else 0.0
    return Task(
        name="cfar",
        inputs=(Input("image", bands=1, scale=scale, fill="median", pad=0.0),),
        kind="boxes",
        tile=_tile(overlap, scene),
        multiple=1,
        margin=0,
        shrinkable=False,
        outputs=("ship",),
        prepare=lambda tiles: tiles,
        predict=functools.partial(
            _predict, windows=windows, block=block, pfa=pfa, quantum=quantum, scene=scene
        ),
        overlap=lambda tile: overlap,
        model_id=ALGORITHM,
        notes={
            "params": {"pfa": pfa, "guard": guard_m, "background": background_m},
            "warnings": [] if scene.pixel_m else [_no_crs()],
        },
    )


def windows_for(pixel_m: tuple[float, float], guard_m: float, background_m: float) -> Windows:
    """Turn window sides in metres into pixels; ``pixel_m`` is (column step, row step).

    Raises ModelError where the background does not reach beyond the guard.
    """
    rows_cols = (pixel_m[1], pixel_m[0])
    guard = _each(rows_cols, lambda m: max(1, round(guard_m / 2 / m)))
    background = _each(rows_cols, lambda m: round(background_m / 2 / m))
    if any(b <= g for b, g in zip(background, guard, strict=True)):
        raise ModelError(
            f"BACKGROUND {background_m:g} m does not reach beyond GUARD {guard_m:g} m "
            f"at pixels of {max(pixel_m):g} m.",
            "Choose a larger BACKGROUND: twice GUARD, and at least two pixels more.",
        )
    ring = _area(background) - _area(guard)
    return Windows(
        guard=guard,
        background=background,
        gap=_each(rows_cols, lambda m: max(1, round(GAP_M / m))),
        longest=_each(rows_cols, lambda m: math.ceil(LONGEST_OBJECT_M / m)),
        metres=rows_cols,
        cells=min(FEWEST_CELLS, ring / 4),
    )


def detect(
    power: np.ndarray,
    valid: np.ndarray | None = None,
    land: np.ndarray | None = None,
    *,
    windows: Windows,
    pfa: float = DEFAULT_PFA,
    quantum: float = 0.0,
    open_sides: tuple[bool, bool, bool, bool] = (False, False, False, False),
) -> np.ndarray:
    """Return boxes (N, 6) float32: x1, y1, x2, y2 in pixel edges, score 0..1, class 0; best first.

    ``power``: float32 (H, W), linear, finite, >= 0. ``valid``, ``land``: bool (H, W) or None; neither
    nodata nor land trains or decides. ``quantum``: 1 where ``power`` is the square of whole numbers.
    ``open_sides`` (top, bottom, left, right): the scene goes on there, unseen. Within the windows'
    support of such a side nothing is decided, and an object that touches that line is left to the
    neighbouring tile, whose overlap holds it whole: a tiled scene gives the boxes of the whole one.
    """
    usable = np.ones(power.shape, bool) if valid is None else valid.copy()
    if land is not None:
        usable &= ~land
    inside = _inside(power.shape, windows.support, open_sides)
    clutter = measure(power, usable, windows.guard, windows.background, quantum)
    power, usable = power[inside], usable[inside]
    mean, shape, cells = clutter.mean[inside], clutter.shape[inside], clutter.cells[inside]

    grown_pfa = max(pfa, min(GROWTH * pfa, LARGEST_GROWN_PFA))
    grown = np.zeros(power.shape, bool)
    threshold = np.full(power.shape, np.inf, np.float32)
    # no pixel passes below the factor of the quietest sea: three quarters need no quantile
    least = np.float32(threshold_factor(grown_pfa, np.array(SHAPES[1]), np.array(np.inf)))
    rows, cols = np.nonzero(usable & (cells >= windows.cells) & (power > least * mean))
    bright = power[rows, cols] > mean[rows, cols] * threshold_factor(
        grown_pfa, shape[rows, cols], cells[rows, cols]
    )
    rows, cols = rows[bright], cols[bright]
    grown[rows, cols] = True
    level = mean[rows, cols] * threshold_factor(pfa, shape[rows, cols], cells[rows, cols])
    # a background of nothing but zeros has no threshold: anything is infinitely above it
    threshold[rows, cols] = np.maximum(level, np.finfo(np.float32).tiny)

    boxes = _objects(power, threshold, grown, windows, open_sides)
    boxes[:, [0, 2]] += inside[1].start
    boxes[:, [1, 3]] += inside[0].start
    order = np.lexsort((boxes[:, 0], boxes[:, 1], -boxes[:, 4]))
    return boxes[order].astype(np.float32)


def _objects(
    power: np.ndarray,
    threshold: np.ndarray,
    grown: np.ndarray,
    windows: Windows,
    open_sides: tuple[bool, bool, bool, bool],
) -> np.ndarray:
    """Return (N, 6) float64 boxes of the connected bright objects that hold a seed."""
    labels, count = ndimage.label(_close(grown, windows.gap), np.ones((3, 3)))
    seeded = np.zeros(count + 1, bool)
    seeded[np.unique(labels[power > threshold])] = True
    seeded[0] = False
    smallest = max(2, SMALLEST_M2 / (windows.metres[0] * windows.metres[1]))
    found = []
    for index, window in enumerate(ndimage.find_objects(labels), start=1):
        if not seeded[index] or _too_large_or_cut(window, power.shape, windows, open_sides):
            continue
        own = grown[window] & (labels[window] == index)
        own &= power[window] >= power[window][own].max() * 10 ** (-SIDE_LOBES_DB / 10)
        if np.count_nonzero(own) < smallest:
            continue
        amplitude = np.where(own, np.sqrt(power[window]), 0)
        top, bottom = _trimmed(amplitude.sum(axis=1, dtype=np.float64))
        left, right = _trimmed(amplitude.sum(axis=0, dtype=np.float64))
        if max((bottom - top) * windows.metres[0], (right - left) * windows.metres[1]) > LONGEST_SHIP_M:
            continue
        contrast = np.mean(power[window][own].astype(np.float64) / threshold[window][own])
        if contrast <= 1:
            continue  # a single spike of clutter and the sea it grew over
        y, x = window[0].start, window[1].start
        found.append((x + left, y + top, x + right, y + bottom, 1 - 1 / contrast, 0.0))
    return np.array(found, np.float64).reshape(-1, 6)


def _too_large_or_cut(
    window: tuple[slice, slice],
    shape: tuple[int, ...],
    windows: Windows,
    open_sides: tuple[bool, bool, bool, bool],
) -> bool:
    """Say whether an object exceeds every ship, or reaches (but for a gap) a side that is open."""
    for axis, part in enumerate(window):
        reach = windows.gap[axis] + 1
        if part.stop - part.start > windows.longest[axis]:
            return True
        if open_sides[2 * axis] and part.start < reach:
            return True
        if open_sides[2 * axis + 1] and part.stop > shape[axis] - reach:
            return True
    return False


def _close(mask: np.ndarray, gap: tuple[int, int]) -> np.ndarray:
    """Close gaps of up to ``2 gap`` pixels; the surrounding counts as dark, as it does inside."""
    padded = np.pad(mask, [(g, g) for g in gap])
    size = tuple(2 * g + 1 for g in gap)
    wide = ndimage.maximum_filter(padded, size, mode="constant", cval=0)
    closed = ndimage.minimum_filter(wide, size, mode="constant", cval=0)
    return closed[gap[0] : closed.shape[0] - gap[0], gap[1] : closed.shape[1] - gap[1]]


def _trimmed(profile: np.ndarray) -> tuple[int, int]:
    """Return first and behind-last index between which all but TRIM at each end of ``profile`` lies."""
    summed = np.cumsum(profile)
    first = np.searchsorted(summed, TRIM * summed[-1])
    last = np.searchsorted(summed, (1 - TRIM) * summed[-1])
    return int(first), int(last) + 1


def _inside(
    shape: tuple[int, ...], support: tuple[int, int], open_sides: tuple[bool, bool, bool, bool]
) -> tuple[slice, slice]:
    """Return the part of a tile whose pixels see their whole windows."""
    parts = []
    for axis in (0, 1):
        start = min(support[axis] * open_sides[2 * axis], shape[axis])
        parts.append(slice(start, max(start, shape[axis] - support[axis] * open_sides[2 * axis + 1])))
    return parts[0], parts[1]


def _predict(
    tiles: Tiles, *, windows: Windows, block: tuple[int, int], pfa: float, quantum: float, scene: SceneInfo
) -> list[np.ndarray]:
    """Return the boxes of each tile; a side of the tile is open unless it is the raster's border."""
    found = []
    for i, image in enumerate(tiles.images["image"]):
        height, width = image.shape[1:]
        row, col = int(tiles.rows[i]), int(tiles.cols[i])
        sides = (row > 0, row + height < scene.height, col > 0, col + width < scene.width)
        usable = tiles.valid[i] if tiles.land is None else tiles.valid[i] & ~tiles.land[i]
        first = -row % block[0], -col % block[1]
        power, usable = average(image[0], usable, block, first)
        boxes = np.empty((0, 6), np.float32)
        if power.size:
            boxes = detect(power, usable, windows=windows, pfa=pfa, quantum=quantum, open_sides=sides)
        boxes[:, :4] *= (block[1], block[0], block[1], block[0])
        boxes[:, :4] += (first[1], first[0], first[1], first[0])
        found.append(boxes)
    return found


def average(
    power: np.ndarray, usable: np.ndarray, block: tuple[int, int], first: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Average ``power`` (H, W) over blocks (rows, columns) of which the first starts at ``first``.

    A block is usable when all its pixels are; blocks that the array cuts are left out.
    """
    if block == (1, 1):
        return power, usable
    rows, cols = ((n - f) // b for n, f, b in zip(power.shape, first, block, strict=True))
    part = slice(first[0], first[0] + rows * block[0]), slice(first[1], first[1] + cols * block[1])
    shape = rows, block[0], cols, block[1]
    return power[part].reshape(shape).mean(axis=(1, 3)), usable[part].reshape(shape).all(axis=(1, 3))


def _tile(overlap: int, scene: SceneInfo) -> int:
    """Return the tile's side: four overlaps, within limits; raises ModelError where it cannot be."""
    tile = min(max(SMALLEST_TILE, math.ceil(4 * overlap / 64) * 64), LARGEST_TILE)
    # the engine's automatic overlap ends at half a tile
    if overlap > tile // 2 and max(scene.width, scene.height) > tile:
        pixel_m = min(scene.pixel_m or (DEFAULT_PIXEL_M,))
        raise ModelError(
            f"Pixels of {pixel_m:.2g} m need tiles that overlap by {overlap} pixels; "
            f"{tile // 2} are possible.",
            "Choose a smaller GUARD and BACKGROUND, or a coarser raster.",
        )
    return tile


def _number(params: Mapping[str, Any], name: str, default: float) -> float:
    """Return a number from 0; missing, None and 0 are the default. Raises ModelError otherwise."""
    typed = params.get(name) or default
    if isinstance(typed, bool) or not isinstance(typed, int | float):
        raise ModelError(f"{name.upper()} is {typed!r}, it must be a number.")
    value = float(typed)
    if not (math.isfinite(value) and value > 0):
        raise ModelError(f"{name.upper()} is {value:g}, it must not be negative.")
    return value


def _no_crs() -> str:
    return f"The raster has no CRS: windows in metres assume pixels of {DEFAULT_PIXEL_M:g} m."


def _each(metres: tuple[float, float], pixels: Any) -> tuple[int, int]:
    return pixels(metres[0]), pixels(metres[1])


def _area(half: tuple[int, int]) -> int:
    return (2 * half[0] + 1) * (2 * half[1] + 1)
