"""One stretch for two dates, and the later date's histogram made the earlier's.

Both are fixed once, from pixels that are valid in both dates over the whole shared ground: never per tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..models.task import Task
from .joined import Joined
from .scaling import TABLED, Scaling
from .statistics import Statistics
from .stretch import resolve_stretch

#: Points of a histogram's curve: as many as a byte has values, 16 times over.
POINTS = 4096


@dataclass(frozen=True)
class Matched(Scaling):
    """A stretch of another raster's values, to which this raster's are brought first.

    ``own``, ``theirs``: raw values of equal rank in both, rising; linear in between, the ends' beyond.
    """

    own: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return float32 of the same shape; ``values`` are valid pixels only."""
        if values.dtype in TABLED:
            return self._tables[values.dtype.name].take(values.view(f"u{values.dtype.itemsize}"))
        return self._calculated(values)

    def _calculated(self, values: np.ndarray) -> np.ndarray:
        return super()._calculated(np.interp(values.astype(np.float64), self.own, self.theirs))


def pair_stretch(
    task: Task, scene: Joined, statistics: Sequence[Statistics | None], match: bool
) -> tuple[Scaling, ...]:
    """Fix a Scaling for each band of all inputs.

    Two dates share one for each pair of bands, from both dates' pixels; with ``match`` from the earlier
    date's, as the later one's are brought to them. Other inputs have their own.
    """
    parts = list(scene.parts.values())
    if not task.pair:
        return tuple(
            scaling
            for wanted, part in zip(task.inputs, parts, strict=True)
            for scaling in resolve_stretch(wanted.scale, statistics[part], scene.labels[part])
        )
    scale, labels = task.inputs[0].scale, scene.labels[parts[0]]
    first = statistics[parts[0]]
    if not match:
        together = [_together(bands) for bands in zip(*(statistics[part] for part in parts), strict=True)]
        return resolve_stretch(scale, together, labels) * len(parts)
    scalings = resolve_stretch(scale, first, labels)
    found = list(scalings)
    for part in parts[1:]:
        for scaling, other, own in zip(scalings, first, statistics[part], strict=True):
            found.append(scaling if own is None or other is None else matched(scaling, own, other))
    return tuple(found)


def matched(scaling: Scaling, own: Statistics, other: Statistics) -> Scaling:
    """Return ``scaling``, which is of ``other``'s values, for ``own``'s."""
    mine, theirs = curve(own.samples, other.samples)
    told = {name: getattr(scaling, name) for name in ("mode", "low", "high", "to", "source")}
    return Matched(**told, own=tuple(mine.tolist()), theirs=tuple(theirs.tolist()))


def curve(own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) values of ``own``, rising, and the values of ``other`` of the same rank.

    Both are sorted. Equal values have the rank of their middle, so that a curve between two rasters of
    few values leads back.
    """
    mine, rank = _ranks(own)
    theirs, other_rank = _ranks(other)
    return mine, np.interp(rank, other_rank, theirs)


def _ranks(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, counts = np.unique(samples.astype(np.float64), return_counts=True)
    rank = (np.cumsum(counts) - counts / 2) / len(samples)
    if len(values) > POINTS:
        pick = np.unique(np.linspace(0, len(values) - 1, POINTS).astype(int))
        values, rank = values[pick], rank[pick]
    return values, rank


def _together(bands: Sequence[Statistics | None]) -> Statistics | None:
    """Return one band's samples of all dates, sorted; None without any."""
    known = [found for found in bands if found is not None]
    if not known:
        return None
    samples = np.concatenate([found.samples for found in known])
    samples.sort()
    source = known[0].source
    return replace(known[0], samples=samples, source=f"{source}, both dates")
