"""Haze removal by the dark-channel prior: the classical baseline, a Task without torch.

In a haze-free patch some pixel is nearly black in some colour; where none is, the veil of scattered
light is read off (He, Sun and Tang, CVPR 2009 and IEEE TPAMI 33, 2011). With the scattering model
I = J t + A (1 - t):

1. airlight A, once for the scene: of the 0.1 % of pixels with the largest dark channel (minimum over
   colours and over the patch) the brightest tenth, averaged;
2. transmission t = 1 - omega dark(I / A), made to follow edges by a guided filter (guided_filter.py)
   with the mean of the bands as guide;
3. J = (I - A) / max(t, 0.1) + A.

Bright ground without dark pixels (sand, snow, roofs, cloud) is taken for haze. Numbers, edges of the
array and nodata: only valid pixels count, in every window, so that a pixel's result depends on what
lies within ``reach`` of it and on no tile.

The rule for A and eps were chosen on the first 40 pairs of the development data hazy_pairs
(benchmarks/dark_channel.py prints by what). One bright pixel, as in the paper, does as well as the
brightest tenth, but can be a roof.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..scaling import stretch_from
from ..task import Block, Input, ModelError, SceneInfo, Task, Tiles
from .guided_filter import guided_filter

#: What results carry as their model: without weights that is the algorithm's id (CONTRACTS.md, section 5).
ALGORITHM = "kestrel:dehazedarkchannel"

DEFAULT_PATCH = 15
DEFAULT_OMEGA = 0.95
#: A patch of 101 reaches 454 pixels; wider ones leave nothing of a tile, and no edge of a bank of haze.
LARGEST_PATCH = 101
#: The window of the guided filter is about four patches wide, so that it sees beyond the blocks that
#: the minimum over a patch leaves.
RADIUS_PATCHES = 2
#: A standard deviation of 1 % of the stretch: what varies less counts as flat ground.
EPS = 1e-4
#: He, Sun and Tang's lower limit: what is hidden behind more than that is noise.
THINNEST_TRANSMISSION = 0.1
#: Shares of the valid pixels that can be airlight, and of these the ones that are.
HAZIEST = 1e-3
BRIGHTEST = 0.1
#: Airlight is divided by; a scene so dark holds no haze.
DARKEST_AIRLIGHT = 0.05
#: Candidates kept while the scene is read: 0.1 % of 400 blocks of 512 x 512 pixels are 104 858.
KEPT = 2**17

#: Values of more than 8 bits are stretched from no light to nearly the brightest: with the 2nd percentile
#: for black an even veil would be taken for the dark ground that it hides (simulated haze over whole
#: scenes: +1.7 dB instead of +8.4 dB, benchmarks/dark_channel.py).
PERCENTILES = (2.0, 99.9)
NOT_REFLECTANCE = (
    "Dehazed values are for the eye: they are not reflectance, do not compute indices from them."
)


def build(params: Mapping[str, Any], weights: str, device: str, scene: SceneInfo) -> Task:
    """Return the Task; raises ModelError in one sentence.

    ``params``: ``patch`` (odd, pixels), ``omega`` (0..1, share of the haze that is removed),
    ``stretch_min``, ``stretch_max``, and for tests and notebooks ``airlight``, three numbers in
    stretched units: without it the Task asks for a survey of the scene. ``weights`` and ``device``
    have no effect.
    """
    patch, omega = _patch(params), _omega(params)
    airlight = _airlight(params)
    scale = stretch_from(params, PERCENTILES, black="zero")
    margin = reach(patch)
    task = Task(
        name="dark_channel",
        # invalid pixels are not looked at, so the cheapest fill will do
        inputs=(Input("image", bands=3, scale=scale, fill="zero", pad="reflect"),),
        kind="raster",
        tile=512,
        multiple=1,
        margin=margin,
        shrinkable=True,
        outputs=("red (stretched, 0 to 1)", "green (stretched, 0 to 1)", "blue (stretched, 0 to 1)"),
        prepare=lambda tiles: tiles,
        predict=functools.partial(_predict, airlight=airlight, patch=patch, omega=omega),
        overlap=lambda tile: 2 * margin,
        change=True,
        model_id=ALGORITHM,
        notes={
            "params": {"patch": patch, "omega": omega},
            "warnings": [NOT_REFLECTANCE],
        },
    )
    if airlight is not None:
        return _told(task, airlight, "given")
    return replace(task, survey=functools.partial(_survey, task, patch, omega))


def reach(patch: int) -> int:
    """Return how far away, in pixels, a pixel can change a result: exact."""
    return patch // 2 + 2 * RADIUS_PATCHES * patch


def restore(
    image: np.ndarray, valid: np.ndarray, airlight: np.ndarray, patch: int, omega: float
) -> np.ndarray:
    """Return the image without haze, float32 (3, H, W) in 0..1; invalid pixels as they came.

    Clipped, as there is no light below none, and what a thin transmission lifts above the brightest is
    noise; values beyond the stretch keep their distance to it, for only the change is applied to them.

    ``image``: float32 (3, H, W) in 0..1. ``valid``: bool (H, W). ``airlight``: float32 (3,).
    """
    if omega == 0 or not valid.any():
        return image.copy()
    clear = transmission(image, valid, airlight, patch, omega)
    # J - I = (I - A) (1 / t - 1): nothing is added where t = 1, to the last bit
    np.reciprocal(clear, out=clear)
    clear -= 1.0
    clear[~valid] = 0.0
    change = image - airlight[:, None, None]
    change *= clear.astype(np.float32)
    change += image
    np.clip(change, 0.0, 1.0, out=change, where=valid)
    return change


def transmission(
    image: np.ndarray, valid: np.ndarray, airlight: np.ndarray, patch: int, omega: float
) -> np.ndarray:
    """Return what share of the ground's light arrives, float64 (H, W) in 0.1..1; arguments as for restore."""
    dark = dark_channel(image / airlight[:, None, None], valid, patch)
    np.minimum(dark, np.float32(1), out=dark)  # brighter than the airlight, or no valid pixel
    veil = guided_filter(image.mean(axis=0), dark, valid, RADIUS_PATCHES * patch, EPS)
    veil *= -omega
    veil += 1.0
    return np.clip(veil, THINNEST_TRANSMISSION, 1.0, out=veil)


def dark_channel(image: np.ndarray, valid: np.ndarray, patch: int) -> np.ndarray:
    """Return the minimum over colours and valid pixels of the patch around, float32 (H, W).

    ``image``: float32 (C, H, W). It is inf where the patch holds no valid pixel.
    """
    darkest = image.min(axis=0)
    darkest[~valid] = np.inf
    return _minimum(darkest, patch, np.inf)


def find_airlight(blocks: Iterator[Block], patch: int) -> np.ndarray | None:
    """Return the colour of the haziest part of the scene, float32 (3,), or None without a valid pixel.

    Blocks are looked at one by one; equally hazy pixels count in the order in which they come.
    """
    seen = 0
    dark = np.empty(0, np.float32)
    colours = np.empty((3, 0), np.float32)
    for block in blocks:
        found = dark_channel(block.image, block.valid, patch)
        usable = _whole_patches(block.valid, patch)
        seen += np.count_nonzero(usable)
        if len(dark) == KEPT:
            usable &= found > dark[-1]
        dark = np.append(dark, found[usable])
        colours = np.append(colours, block.image[:, usable], axis=1)
        order = np.argsort(-dark, kind="stable")[:KEPT]
        dark, colours = dark[order], colours[:, order]
    if not seen:
        return None
    colours = colours[:, : math.ceil(HAZIEST * seen)]
    brightest = np.argsort(-colours.sum(axis=0), kind="stable")[: math.ceil(BRIGHTEST * colours.shape[1])]
    mean = colours[:, brightest].mean(axis=1, dtype=np.float64)
    return np.maximum(mean, DARKEST_AIRLIGHT).astype(np.float32)


def _whole_patches(valid: np.ndarray, patch: int) -> np.ndarray:
    """Return the pixels whose whole patch is valid, bool (H, W), or all valid ones where there is none.

    The fewer pixels a patch has, the brighter is its darkest one: that alone must not look like haze.
    """
    whole = _minimum(valid, patch, False)
    return whole if whole.any() else valid.copy()


def _minimum(array: np.ndarray, size: int, outside: float) -> np.ndarray:
    """Return the minimum over the ``size`` (odd) rows and columns around each cell, (H, W).

    Windows grow by doubling: log2(size) steps, six times faster than ndimage.minimum_filter at 15.
    """
    half = size // 2
    for _ in range(2):
        array = np.pad(array, ((half, half), (0, 0)), constant_values=outside)
        width = 1
        while width < size:
            step = min(width, size - width)
            array = np.minimum(array[:-step], array[step:])
            width += step
        array = array.T
    return array


def _survey(task: Task, patch: int, omega: float, blocks: Iterator[Block]) -> Task:
    """Return the task to run once the scene has been looked at."""
    airlight = find_airlight(blocks, patch)
    if airlight is None:
        return replace(task, predict=_unchanged)
    predict = functools.partial(_predict, airlight=airlight, patch=patch, omega=omega)
    return _told(replace(task, predict=predict), airlight, "from the scene")


def _told(task: Task, airlight: np.ndarray, source: str) -> Task:
    """Return the task with the airlight among its notes."""
    told = ", ".join(f"{value:.3f}" for value in airlight)
    notes = {
        "airlight": [round(float(a), 5) for a in airlight],
        "airlight_source": source,
        "log": [f"Airlight of red, green, blue: {told} of the stretch, {source}."],
    }
    return replace(task, notes={**task.notes, **notes})


def _predict(tiles: Tiles, *, airlight: np.ndarray | None, patch: int, omega: float) -> list[np.ndarray]:
    """Return each tile without haze, float32 (3, T, T)."""
    assert airlight is not None, "the survey finds the airlight first"
    images = zip(tiles.images["image"], tiles.valid, strict=True)
    return [restore(image, valid, airlight, patch, omega) for image, valid in images]


def _unchanged(tiles: Tiles) -> list[np.ndarray]:
    """Return the tiles as they came: nothing valid was found, so nothing is known of the haze."""
    return list(tiles.images["image"])


def _patch(params: Mapping[str, Any]) -> int:
    """Return the side of the patch in pixels. Raises ModelError unless it is odd and within limits."""
    typed = params.get("patch")
    patch = DEFAULT_PATCH if typed is None else typed
    if isinstance(patch, bool) or not isinstance(patch, int) or not 1 <= patch <= LARGEST_PATCH:
        raise ModelError(
            f"PATCH is {patch!r}, it must be an odd whole number from 1 to {LARGEST_PATCH}.", "Usual is 15."
        )
    if patch % 2 == 0:
        raise ModelError(
            f"PATCH is {patch}, it must be odd so that it has a middle pixel.", f"Choose {patch + 1}."
        )
    return patch


def _omega(params: Mapping[str, Any]) -> float:
    typed = params.get("omega")
    omega = DEFAULT_OMEGA if typed is None else typed
    if isinstance(omega, bool) or not isinstance(omega, int | float) or not 0 <= omega <= 1:
        raise ModelError(f"OMEGA is {omega!r}, it must be a number from 0 to 1.", "Usual is 0.95.")
    return float(omega)


def _airlight(params: Mapping[str, Any]) -> np.ndarray | None:
    typed = params.get("airlight")
    if typed is None:
        return None
    try:
        airlight = np.array(typed, np.float32)
    except (TypeError, ValueError):
        airlight = np.empty(0, np.float32)
    if airlight.shape != (3,) or not np.all((airlight >= DARKEST_AIRLIGHT) & (airlight <= 1)):
        raise ModelError(
            f"AIRLIGHT is {typed!r}, it must be three numbers from {DARKEST_AIRLIGHT:g} to 1, "
            "in stretched units."
        )
    return airlight
