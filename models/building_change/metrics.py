"""Pixels and objects found, missed and invented: the figures of specification 08, section 7.

All pixels of all images go into one confusion matrix, as the paper's own figures do; its intervals come
from drawing images again, for pixels of one image are no independent witnesses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: Steps of a threshold between 0 and 1.
BINS = 1000
#: Drawings of as many images as there are, for an interval.
DRAWINGS = 2000


@dataclass(frozen=True)
class Confusion:
    """Pixels of the change class: true and false positives, false and true negatives."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: Confusion) -> Confusion:
        """Return both together."""
        return Confusion(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def precision(self) -> float:
        """Part of what was found that is change; 0 where nothing was found."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Part of the change that was found; 0 where there is none."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """Intersection over union of found and true change."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond chance; 0 where chance alone agrees everywhere."""
        n = self.tp + self.fp + self.fn + self.tn
        if not n:
            return 0.0
        agreed = (self.tp + self.tn) / n
        chance = (
            (self.tp + self.fp) * (self.tp + self.fn) + (self.fn + self.tn) * (self.fp + self.tn)
        ) / n**2
        return (agreed - chance) / (1 - chance) if chance < 1 else 0.0


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def confusion(found: np.ndarray, truth: np.ndarray) -> Confusion:
    """Return the confusion matrix of two masks, bool of one shape."""
    tp = int(np.count_nonzero(found & truth))
    fp, fn = int(np.count_nonzero(found)) - tp, int(np.count_nonzero(truth)) - tp
    return Confusion(tp, fp, fn, truth.size - tp - fp - fn)


@dataclass(frozen=True, eq=False)
class Curve:
    """Pixels by score, for every threshold at once: int64 (BINS,) each, changed and unchanged.

    Scores lie in 0..``top``; bin k holds scores from k / BINS of it on.
    """

    changed: np.ndarray
    unchanged: np.ndarray
    top: float = 1.0

    @classmethod
    def of(cls, score: np.ndarray, truth: np.ndarray, top: float = 1.0) -> Curve:
        """Count one image: ``score`` float, ``truth`` bool, of one shape."""
        index = np.clip(score.astype(np.float64) * (BINS / top), 0, BINS - 1).astype(np.int64)
        changed, unchanged = (np.bincount(index[mask], minlength=BINS) for mask in (truth, ~truth))
        return cls(changed, unchanged, top)

    def __add__(self, other: Curve) -> Curve:
        """Return the counts of both."""
        assert self.top == other.top, "curves of different scales"
        return Curve(self.changed + other.changed, self.unchanged + other.unchanged, self.top)

    def at(self, threshold: float) -> Confusion:
        """Return the confusion matrix of ``score >= threshold``, the threshold rounded to a bin."""
        k = int(np.clip(round(threshold / self.top * BINS), 0, BINS))
        tp, fp = int(self.changed[k:].sum()), int(self.unchanged[k:].sum())
        return Confusion(tp, fp, int(self.changed.sum()) - tp, int(self.unchanged.sum()) - fp)

    def best(self) -> tuple[float, float]:
        """Return the threshold of the highest F1, and that F1; the middle of several equal ones."""
        tp, fp = (counts[::-1].cumsum()[::-1] for counts in (self.changed, self.unchanged))
        whole = tp + fp + self.changed.sum()
        f1 = np.divide(2 * tp, whole, out=np.zeros(BINS), where=whole > 0)
        equal = np.flatnonzero(f1 == f1.max())
        return float(equal[len(equal) // 2] / BINS * self.top), float(f1.max())


def interval(
    images: Sequence[Confusion],
    others: Sequence[Confusion] | None = None,
    figure: Callable[[Confusion], float] = lambda c: c.f1,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % interval of a figure, or of its lead over ``others``, images drawn again.

    ``images``, ``others``: one confusion matrix for each image (quadrants of an image together), in the
    same order: a drawing takes both methods' matrices of the same images.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(DRAWINGS):
        drawn = rng.integers(0, len(images), len(images))
        value = figure(_total(images, drawn))
        found.append(value - (figure(_total(others, drawn)) if others is not None else 0.0))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def _total(images: Sequence[Confusion], drawn: np.ndarray) -> Confusion:
    total = Confusion()
    for i in drawn.tolist():
        total = total + images[i]
    return total


def match_objects(found: np.ndarray, truth: np.ndarray, least_iou: float = 0.3) -> Confusion:
    """Match objects one to one, best overlap first; returns tp, fp, fn in objects (tn is 0).

    ``found``, ``truth``: int (H, W), 0 for ground, objects numbered from 1. A pair of objects may match
    from an intersection over union of ``least_iou`` on.
    """
    founds, truths = int(found.max(initial=0)), int(truth.max(initial=0))
    pairs, counts = np.unique(
        found.astype(np.int64).ravel() * (truths + 1) + truth.ravel(), return_counts=True
    )
    a, b = pairs // (truths + 1), pairs % (truths + 1)
    area_a, area_b = np.bincount(found.ravel()), np.bincount(truth.ravel())
    touching = (a > 0) & (b > 0)
    a, b, counts = a[touching], b[touching], counts[touching]
    iou = counts / (area_a[a] + area_b[b] - counts)
    used_a, used_b, matched = set(), set(), 0
    for i in np.argsort(-iou, kind="stable").tolist():
        if iou[i] < least_iou:
            break
        if a[i] not in used_a and b[i] not in used_b:
            used_a.add(a[i])
            used_b.add(b[i])
            matched += 1
    return Confusion(matched, founds - matched, truths - matched, 0)
