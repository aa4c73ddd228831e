"""The report on detections: counts, scores, the scene with its boxes, how it was made."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from .boxes import Boxes
from .features import Features
from .quicklook import Quicklook
from .report import Report

#: More rows do not help a reader; the layer has them all.
TABLE_ROWS = 50
#: Pixels of the picture between an object and its frame, and half the side of the smallest frame.
STAND_OFF, SMALLEST_FRAME = 3.0, 7.0


def write_report(
    path: Path,
    figures: dict[str, Any],
    features: Features,
    boxes: Boxes,
    quicklook: Quicklook,
    warnings: Sequence[str],
) -> None:
    """Write the HTML report of one run."""
    source = figures["inputs"][0]["path"]
    report = Report(f"{figures['count']} objects in {Path(source).name}", f"Model {figures['model']['id']}")
    report.section("Scene")
    image = np.sqrt(quicklook.image) if figures["scaling"]["to"] == "power" else quicklook.image
    report.picture(_scene(image, quicklook.step, boxes), "The scene as the model sees it; detections in red.")
    report.section("Objects")
    _objects(report, features)
    if warnings:
        report.section("Warnings")
        report.warnings(warnings)
    report.section("Pixels and tiles")
    names = ("tiles_total", "tiles_run", "tiles_skipped", "tiles_nodata", "valid_pixels", "invalid_pixels")
    report.pairs({**{name: figures[name] for name in names}, "dropped": figures["dropped"]})
    report.section("Parameters as used")
    report.pairs({**figures["params_used"], "scaling": figures["scaling"]})
    report.section("Seconds by stage")
    report.pairs(figures["seconds"])
    report.section("Made with")
    report.pairs({"model": figures["model"], "versions": figures["versions"]})
    report.table(
        ("file", "bytes", "modified"), [(f["path"], f["size"], f["modified"]) for f in figures["inputs"]]
    )
    report.write(path)


def _objects(report: Report, features: Features) -> None:
    columns = features.columns
    if not len(features):
        report.paragraph("Nothing was found with these parameters.")
        return
    names, counts = np.unique(columns["class"].astype(str), return_counts=True)
    report.table(("class", "count"), zip(names.tolist(), counts.tolist(), strict=True))
    report.picture(_histogram(columns["score"]), "Scores of all objects.")
    shown = ("id", "score", "class", "x_px", "y_px", "long_m", "short_m", "lon", "lat", "edge")
    rows = zip(*(columns[name][:TABLE_ROWS].tolist() for name in shown), strict=True)
    report.table(shown, ([None if value != value else value for value in row] for row in rows))
    if len(features) > TABLE_ROWS:
        report.paragraph(f"The {TABLE_ROWS} best of {len(features)} are shown; the layer holds all.")


def _scene(image: np.ndarray, step: int, boxes: Boxes) -> bytes:
    """Draw the quicklook, stretched for the eye, with boxes on it; ``step``: scene pixels in one."""
    values = image[np.isfinite(image)]
    low, high = np.percentile(values, (1, 99.5)) if len(values) else (0, 1)
    figure = Figure(figsize=(9, min(14, max(2, 9 * image.shape[0] / image.shape[1]))), dpi=130)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_facecolor("#dde4ee")  # nodata and tiles that did not run
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
    # frames stand off their ship and have a size that is seen; pictures count from pixel centres
    centre = (boxes.xyxy[:, :2] + boxes.xyxy[:, 2:]) / 2 / step - 0.5
    half = np.maximum((boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]) / 2 / step + STAND_OFF, SMALLEST_FRAME)
    x1, y1, x2, y2 = np.concatenate([centre - half, centre + half], axis=1).T
    rings = np.stack([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]]).transpose(2, 0, 1)
    axes.add_collection(LineCollection(rings, colors="#e03131", linewidths=1.2))
    axes.set_axis_off()
    return _png(figure)


def _histogram(scores: np.ndarray) -> bytes:
    figure = Figure(figsize=(6, 2.4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.hist(scores, bins=20, range=(0, 1), color="#3b5b7a")
    axes.set(xlabel="score", ylabel="objects", xlim=(0, 1))
    return _png(figure)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
