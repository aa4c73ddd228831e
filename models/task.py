"""The seam between engine and models: what a model declares, and nothing else.

A model offers a :class:`Task`; the engine does everything else. Dataclasses without torch, so that
the engine and classical methods can use them alone. Contract: CONTRACTS.md, section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Kind = Literal["scores", "raster", "boxes"]
ScaleMode = Literal["auto", "uint8", "percentile", "db", "linear", "given"]


@dataclass(frozen=True)
class Scale:
    """How raw values become model input; the engine resolves it once per scene.

    ``to="unit"``: float32 in 0..1, clipped. ``auto`` is ``uint8`` for 8-bit data, else
    ``percentile``; ``uint8`` divides by 255; ``percentile`` stretches between the scene's
    ``percentiles``; ``db`` stretches values already in decibels between ``minimum`` and
    ``maximum``; ``linear`` takes 10 log10 first, then does the same; ``given`` stretches between
    ``lows`` and ``highs``, one raw value for all bands or one for each.

    ``black="zero"``: a stretch by percentiles starts where there is no light, at 0 (below, where values
    are negative), and ends alike for all bands, for models that read an amount of light off the values.

    ``to="power"``: linear backscatter power, float32 >= 0. ``db`` is 10^(x/10), clipped to
    ``minimum``..``maximum`` dB; ``linear`` is taken as it is, clipped likewise; ``uint8`` and
    ``percentile`` are amplitudes and are squared, not clipped; ``auto`` is ``db`` without the clip
    where the scene's low percentile is negative, else an amplitude.
    """

    mode: ScaleMode = "auto"
    minimum: float = -25.0
    maximum: float = 5.0
    percentiles: tuple[float, float] = (1.0, 99.5)
    to: Literal["unit", "power"] = "unit"
    lows: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()
    black: Literal["percentile", "zero"] = "percentile"


@dataclass(frozen=True)
class Input:
    """One raster a Task wants.

    ``bands``: how many. ``gsd``: pixel sizes in metres the model was made for (a pixel outside
    warns), or None. ``fill``: what invalid pixels become after scaling (``median``: the scene's
    median, ``nearest``: nearest valid value in the tile, ``zero``, ``other``: with two inputs of as many
    bands, the value that the other one has there, and where neither has one, the nearest of the first
    for both - no fill differs between them). ``pad``: how a raster smaller than a tile is filled up:
    ``reflect`` (repeated) or a constant in scaled units.
    """

    role: str
    bands: int = 1
    gsd: tuple[float, float] | None = None
    scale: Scale = field(default_factory=Scale)
    fill: Literal["median", "nearest", "zero", "other"] = "median"
    pad: float | Literal["reflect"] = "reflect"


@dataclass(frozen=True)
class SceneInfo:
    """What a builder may know of the scene: size in pixels, dtype, ground pixel size.

    ``pixel_m`` is (column step, row step) in metres on the ground at the scene's centre, or None
    when the raster has no CRS.
    """

    width: int
    height: int
    dtype: str
    pixel_m: tuple[float, float] | None


@dataclass(frozen=True)
class Tiles:
    """One batch as the engine hands it to ``prepare``.

    ``images``: role -> float32 (B, C, T, T), scaled and filled, no NaN. ``valid``: bool (B, T, T),
    False on nodata and on padding. ``land``: bool (B, T, T), True on land, or None without a land
    mask. ``rows``, ``cols``: int (B,), the tile's upper left pixel in the scene.
    """

    images: Mapping[str, np.ndarray]
    valid: np.ndarray
    land: np.ndarray | None
    rows: np.ndarray
    cols: np.ndarray


@dataclass(frozen=True)
class Block:
    """A piece of the scene's lattice (CONTRACTS.md, section 6), for what a task asks of the whole scene.

    ``image``: float32 (C, h, w), scaled, 0 where invalid; of several inputs, their bands one after
    another as the task lists them. ``valid``: bool (h, w), True where every band is valid. ``row``,
    ``col``: its upper left pixel in the scene.
    """

    image: np.ndarray
    valid: np.ndarray
    row: int
    col: int


@dataclass(frozen=True)
class Task:
    """A model, ready to run on tiles.

    ``tile``: side in pixels the model prefers; ``multiple``: stride multiple a tile must have;
    ``margin``: half the effective receptive field, 0 for boxes and global context; ``shrinkable``:
    a smaller tile gives the same result within 1e-5; ``overlap``: automatic overlap in pixels for
    this scene, from ``(tile) -> int``; ``outputs``: names of the answer's bands with units, or the
    class names for boxes. ``factor``: output pixels along an axis for each input pixel.

    ``change``: for kind ``raster``, the answer is the input restored, in its own scaled units; the
    engine applies the difference to the raw values, so that what is not changed stays exact.
    ``survey``: what the task asks of the whole scene before any tile: called once with blocks of the
    lattice, returns the task to run.

    ``pair``: the inputs are two dates of one ground, seen alike: band for band they share one stretch,
    and how far they lie beside each other is measured. ``smallest``: side in pixels that the ground
    shared by several inputs must have.

    ``prepare(Tiles) -> Any`` and ``predict(Any) -> list``: for kind ``boxes`` the list holds one
    float32 array (N, 6) or (N, 7) per tile: x1, y1, x2, y2 in tile pixels (pixel edges: the first
    pixel spans 0..1), score 0..1, class index, and optionally 1 where the task itself knows that
    the object is cut by the part of the tile it can see. For ``raster`` and ``scores`` it holds one
    float32 array (C, T * factor, T * factor) per tile; scores are probabilities, not logits, because
    overlapping tiles are averaged.
    """

    name: str
    inputs: tuple[Input, ...]
    kind: Kind
    tile: int
    multiple: int
    margin: int
    shrinkable: bool
    outputs: tuple[str, ...]
    prepare: Callable[[Tiles], Any]
    predict: Callable[[Any], list[np.ndarray]]
    overlap: Callable[[int], int] = lambda tile: tile // 4
    factor: int = 1
    change: bool = False
    survey: Callable[[Iterator[Block]], Task] | None = None
    pair: bool = False
    smallest: int = 0
    model_id: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """A weight file's self-description (CONTRACTS.md, section 7); ``figures`` name their split."""

    name: str
    version: str
    paper: str
    preset: str
    parameters: int
    classes: tuple[str, ...]
    bands: int
    gsd: tuple[float, float]
    scaling: str
    tile: int
    data: tuple[Mapping[str, Any], ...]
    seed: int
    command: str
    figures: Mapping[str, Any]
    limits: str
    status: Literal["released", "preliminary"]
    extra: Mapping[str, Any] = field(default_factory=dict)


class ModelError(Exception):
    """A model's refusal in the user's words: what happened, where, what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep the sentence and an optional hint of what to do."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Travel between processes with the hint."""
        return type(self), (self.message, self.hint)


#: (params, weights, device, scene) -> Task. ``params``: the Job's, lower-case keys; ``weights``: the
#: WEIGHTS parameter as typed ("" = shipped default); ``device``: resolved, never "auto".
Builder = Callable[[Mapping[str, Any], str, str, SceneInfo], Task]
