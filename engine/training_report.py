"""The report on a training: what it reached, how it got there, what it looks like, what it was made from."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imsave

from ..models.trainable import Trained
from .errors import EngineError
from .report import Report

#: Small crops are shown enlarged to at least so many pixels, every pixel as a square of its own.
SHOWN_PX, GAP_PX = 256, 8
COLOURS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce")
LINES = ("#7a8794", "#a16207", "#0f766e")
#: A legend that covers no curve.
ABOVE: dict[str, Any] = {
    "loc": "lower right",
    "bbox_to_anchor": (1, 1),
    "ncol": 4,
    "frameon": False,
    "borderaxespad": 0.1,
}
#: What the engine counts, in the words of a page.
CROPS = {
    "learned from": "crops learned from",
    "validated on": "crops validated on",
    "side": "side of a crop, px",
    "block": "side of a block, px",
    "with invalid pixels": "crops left out for invalid pixels",
    "looked at": "crops looked at",
    "places": "crops that the layers have room for",
    "marked pixels": "share of labelled pixels",
    "without a mark": "crops without a labelled pixel, all kept",
}
#: Files listed one by one; a folder of tiles has thousands, which the history tells.
FILES = 30


def write_report(path: Path, figures: Mapping[str, Any], trained: Trained, warnings: Sequence[str]) -> None:
    """Write the HTML report of one training; ``figures``: those of engine/train_run.py."""
    report = Report(f"Training of {trained.card.name}", f"Model {figures['model']['id']}")
    _reached(report, figures, trained)
    if warnings:
        report.section("Warnings")
        report.warnings(warnings)
    _curves(report, trained)
    _examples(report, trained)
    _made(report, figures, trained)
    try:
        report.write(path)
    except OSError as error:
        raise EngineError(
            "output",
            f"The report cannot be written: {str(error.strerror).lower()}.",
            "Free some space or choose another folder.",
        ) from error


def _reached(report: Report, figures: Mapping[str, Any], trained: Trained) -> None:
    report.section("Validation")
    header, *rows = trained.summary
    report.table([str(name) for name in header], rows)
    for note in trained.notes:
        report.paragraph(note)
    crops = figures["crops"]
    where, risk = "whole images", "Images of one scene look alike, so others may come out worse."
    if crops["block"]:
        where = f"spatial blocks of {crops['block']} pixels"
        risk = "Neighbouring blocks touch, so other ground may come out worse."
    report.paragraph(
        f"{crops['validated on']} crops of {crops['side']} x {crops['side']} pixels that were never learned "
        f"from, in {where}; {crops['learned from']} crops were learned from. {risk}"
    )


def _curves(report: Report, trained: Trained) -> None:
    report.section("Curves")
    report.picture(
        _losses(trained), "Loss of the crops that are learned from, mean over some steps; logarithmic."
    )
    if trained.scores and any(name in row for row in trained.history for name in trained.scores):
        report.picture(
            _scores(trained), "Validation by epoch; dashed: without the network, on the same crops."
        )


def _losses(trained: Trained) -> bytes:
    figure = Figure(figsize=(8.5, 3.2), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for colour, (name, label) in zip(COLOURS, trained.losses.items(), strict=False):
        _line(axes, trained.history, name, color=colour, label=label)
    axes.set(xlabel="epoch", ylabel="loss", yscale="log")
    axes.legend(**ABOVE)
    return _png(figure)


def _scores(trained: Trained) -> bytes:
    figure = Figure(figsize=(8.5, 2.9 * len(trained.scores)), dpi=100, layout="constrained")
    rows = figure.subplots(len(trained.scores), 1, squeeze=False)[:, 0]
    for axes, (name, label) in zip(rows, trained.scores.items(), strict=True):
        _line(axes, trained.history, name, color=COLOURS[0], label="network")
        for colour, (line, value) in zip(LINES, trained.lines.get(name, {}).items(), strict=False):
            axes.axhline(value, color=colour, linestyle="--", linewidth=1.0, label=line)
        axes.set(xlabel="epoch", ylabel=label)
        axes.legend(**ABOVE)
    return _png(figure)


def _line(axes: Any, history: Sequence[Mapping[str, float]], name: str, **look: Any) -> None:
    rows = [row for row in history if name in row]
    few = len(rows) <= 30  # one epoch alone would be no line at all
    epochs = [row["epoch"] for row in rows]
    axes.plot(epochs, [row[name] for row in rows], marker="o" if few else "", markersize=3, **look)


def _examples(report: Report, trained: Trained) -> None:
    if not trained.examples:
        return
    report.section("Validation crops")
    for example in trained.examples:
        row = _picture((example.before, example.after, example.truth))
        report.picture(row, example.caption)


def _made(report: Report, figures: Mapping[str, Any], trained: Trained) -> None:
    card = trained.card
    report.section("Layers")
    report.table(("role", "file", "bands"), [
        (role, path, ", ".join(map(str, figures["params_used"]["bands"][role])))
        for role, path in figures["layers"].items()
    ])  # fmt: skip
    found = {name: value for name, value in figures["crops"].items() if name != "block" or value}
    crops = {words: found[name] for name, words in CROPS.items() if name in found}
    shares = {words: f"{value:.2%}" for words, value in crops.items() if isinstance(value, float)}
    report.pairs({**crops, **shares})
    stretch = figures["stretch"]
    report.section("Stretch")
    report.table(
        ("band", "low", "high"), list(zip(figures["bands"], stretch["low"], stretch["high"], strict=True))
    )
    report.paragraph(f"From {stretch['source']}.")
    report.section("Network and parameters")
    report.pairs({"preset": card.preset, "parameters": card.parameters, "seed": card.seed})
    used = {name: value for name, value in figures["params_used"].items() if name != "bands"}
    report.pairs({name: _plain(value) for name, value in used.items()})
    report.section("Seconds by stage")
    report.pairs({name: float(f"{value:.3g}") for name, value in figures["seconds"].items()})
    report.section("Made with")
    report.pairs({"model": figures["model"], "versions": figures["versions"], "command": card.command})
    files = [(f["path"], f["size"], f["modified"]) for f in figures["inputs"]]
    report.table(("file", "bytes", "modified"), files[:FILES])
    if len(files) > FILES:
        report.paragraph(f"And {len(files) - FILES} more files, listed in the history beside the weights.")


def _plain(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _picture(images: Sequence[np.ndarray]) -> bytes:
    """Return a PNG of several float32 (3, S, S) in 0..1 side by side."""
    side = images[0].shape[1]
    times = max(1, -(-SHOWN_PX // side))
    gap = np.full((side * times, GAP_PX, 3), 255, np.uint8)
    parts: list[np.ndarray] = []
    for image in images:
        rgb = (np.clip(image, 0, 1).transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)
        parts += [gap, rgb.repeat(times, 0).repeat(times, 1)]
    rgb = np.concatenate(parts[1:], axis=1)
    stream = io.BytesIO()
    imsave(stream, rgb, format="png")
    return stream.getvalue()


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
