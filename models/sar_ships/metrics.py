"""COCO average precision and the operating points the paper reports (section 3.3, equations 20-23)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .boxes import pairwise_iou

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Scores:
    """Figures of one class over a set of images.

    ``ap50``, ``ap``: COCO's AP at IoU 0.5 and averaged over 0.50:0.05:0.95. ``precision``,
    ``recall``, ``f1``: at IoU 0.5 and the confidence of the largest F1, ``confidence``.
    ``recall_at``: recall at IoU 0.5 of detections at or above the asked confidence;
    ``precision_at``: their precision. NaN where there is nothing to divide by.
    """

    ap50: float
    ap: float
    precision: float
    recall: float
    f1: float
    confidence: float
    recall_at: float
    precision_at: float
    truths: int
    detections: int


def match(detections: np.ndarray, truths: np.ndarray, ious: np.ndarray = IOUS) -> np.ndarray:
    """True positives (len(ious), N) of one image's detections (N, 5), best score first.

    Each detection takes the free truth (M, 4) it overlaps most, if the IoU reaches the threshold.
    """
    hit = np.zeros((len(ious), len(detections)), dtype=bool)
    if not len(detections) or not len(truths):
        return hit
    overlap = pairwise_iou(detections[:, :4], truths)
    for t, least in enumerate(ious):
        free = np.ones(len(truths), dtype=bool)
        for d in range(len(detections)):
            candidates = np.where(free, overlap[d], -1.0)
            # COCO takes the last of equal overlaps
            best = len(truths) - 1 - int(candidates[::-1].argmax())
            if candidates[best] >= min(least, 1 - 1e-10):
                free[best], hit[t, d] = False, True
    return hit


def average_precision(hit: np.ndarray, truths: int) -> float:
    """101-point AP of hits (N,) ordered by falling score; NaN without truths."""
    if not truths:
        return float("nan")
    found, count = np.cumsum(hit), np.arange(1, len(hit) + 1)
    recall, precision = found / truths, found / count
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(envelope, 0.0)[at].mean())


def evaluate(
    detections: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    *,
    confidence: float = 0.25,
    limit: int = 300,
) -> Scores:
    """Score detections (N, 5: corners, score) of every image against truths (M, 4).

    The best ``limit`` detections of an image count, as many as YOLOv5's evaluation keeps.
    """
    scores, hits = [np.zeros(0)], [np.zeros((len(IOUS), 0), dtype=bool)]
    for found, truth in zip(detections, truths, strict=True):
        found = found[np.argsort(-found[:, 4], kind="stable")[:limit]]
        scores.append(found[:, 4])
        hits.append(match(found, truth))
    score, hit = np.concatenate(scores), np.concatenate(hits, axis=1)
    order = np.argsort(-score, kind="stable")
    score, hit = score[order], hit[:, order]
    n = sum(len(t) for t in truths)
    per_iou = [average_precision(row, n) for row in hit]
    best = operating_point(hit[0], score, n)
    chosen = hit[0][score >= confidence]
    return Scores(
        ap50=per_iou[0],
        ap=float(np.mean(per_iou)),
        precision=best[0],
        recall=best[1],
        f1=best[2],
        confidence=best[3],
        recall_at=float(chosen.sum() / n) if n else float("nan"),
        precision_at=float(chosen.mean()) if len(chosen) else float("nan"),
        truths=n,
        detections=len(score),
    )


def operating_point(hit: np.ndarray, score: np.ndarray, truths: int) -> tuple[float, float, float, float]:
    """Precision, recall, F1 and confidence where F1 is largest; zeros where nothing was found."""
    if not truths or not hit.any():
        return 0.0, 0.0, 0.0, 0.0
    found = np.cumsum(hit)
    precision, recall = found / np.arange(1, len(hit) + 1), found / truths
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    # equal scores stand or fall together: only the last of them is a threshold
    f1 = np.where(np.append(score[1:] != score[:-1], True), f1, -1.0)
    i = int(f1.argmax())
    return float(precision[i]), float(recall[i]), float(f1[i]), float(score[i])
