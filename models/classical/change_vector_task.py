"""Change-vector analysis as a Task: two dates of a pixel in, the length of the change between them out.

Needs no weights and no torch (change_vector.py has the method). Both dates are stretched alike by the
engine; that the radiometry of the dates is matched first is its affair as well (MATCH_RADIOMETRY). A
probability here is a length over the longest one that the lattice over the scene shows, and no more
than 1: what lies between the lattice's blocks can be longer. From where it counts as change is Otsu's
threshold over all of the scene's probabilities, which the engine takes while it has them; where it has
a part of them only, it is read off the same lattice.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..otsu import BINS, otsu
from ..scaling import stretch_from
from ..task import Block, Input, SceneInfo, Task, Tiles
from .change_vector import largest, magnitude

#: What results carry as their model: without weights that is the algorithm's id (CONTRACTS.md, section 5).
ALGORITHM = "kestrel:detectchangevector"
ROLES = ("before", "after")
BANDS = 3
#: Side of a tile in pixels; nothing depends on it, as each pixel is answered by itself.
TILE = 256
#: Side in pixels of the least ground that both dates share (specification 08, section 10).
SMALLEST_SIDE = 256
#: Square metres of the smallest polygon, as for very high resolution.
MIN_AREA_M2 = 50.0
#: Bins of the lengths before the longest is known: each of Otsu's has a thousand of them then.
FINE = BINS * 1024
MEANING = (
    "The mask says where colours changed most, whatever the cause: seasons, shadows and light count as "
    "much as buildings do. It does not say whether something appeared or went."
)
NOTHING = "Both dates are alike in every pixel looked at: nothing stands out as change."


def build(params: Mapping[str, Any], weights: str, device: str, scene: SceneInfo) -> Task:
    """Return the Task; ``params``: ``stretch_min``, ``stretch_max``, the rest has no effect here.

    Its survey finds the scene's longest change vector and returns the task to run.
    """
    scale = stretch_from(params)
    task = Task(
        name="change_vector",
        # no fill may be a difference between the dates
        inputs=tuple(Input(role, BANDS, scale=scale, fill="other", pad="reflect") for role in ROLES),
        kind="scores",
        tile=TILE,
        multiple=1,
        margin=0,
        shrinkable=True,
        outputs=("change",),
        prepare=lambda tiles: tiles,
        predict=functools.partial(predict, longest=1.0),
        overlap=lambda tile: 0,
        pair=True,
        smallest=SMALLEST_SIDE,
        model_id=ALGORITHM,
        notes={"threshold": "otsu", "min_area": MIN_AREA_M2, "warnings": [MEANING]},
    )
    return replace(task, survey=functools.partial(scaled, task))


def scaled(task: Task, blocks: Iterator[Block]) -> Task:
    """Return ``task`` with probability 1 at the longest change vector of the blocks' valid pixels.

    Its note ``otsu`` is Otsu's threshold of the blocks' probabilities, for runs that see a part of the scene.
    """
    longest, pixels = 0.0, 0
    counts = np.zeros(FINE, np.int64)
    for block in blocks:
        lengths = magnitude(block.image[:BANDS], block.image[BANDS:])[block.valid]
        pixels += lengths.size
        longest = max(longest, float(lengths.max(initial=0.0)))
        counts += np.bincount(np.minimum(lengths * FINE, FINE - 1).astype(np.int64), minlength=FINE)
    notes = dict(task.notes)
    if longest > 0:
        share = (np.arange(FINE) + 0.5) / (FINE * longest)
        notes["otsu"] = otsu(np.bincount(np.minimum(share * BINS, BINS - 1).astype(int), counts))
        notes["longest"] = longest * largest(BANDS, standardised=False)
        notes["log"] = (f"The longest change vector is {notes['longest']:.4g} in units of the stretch.",)
    elif pixels:
        notes["warnings"] = [*notes["warnings"], NOTHING]
    return replace(task, predict=functools.partial(predict, longest=longest or 1.0), survey=None, notes=notes)


def predict(tiles: Tiles, *, longest: float) -> list[np.ndarray]:
    """Return each tile's lengths over ``longest`` (of magnitude 0..1), float32 (1, T, T) in 0..1."""
    before, after = (tiles.images[role] for role in ROLES)
    return [
        np.minimum(magnitude(*pair)[None] / np.float32(longest), np.float32(1))
        for pair in zip(before, after, strict=True)
    ]
