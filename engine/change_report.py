"""The report on change between two dates: how much, how large, the largest with chips of both dates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from matplotlib.figure import Figure
from matplotlib.image import imsave
from rasterio.features import rasterize

from .features import Features
from .joined import Joined
from .raster_prepare import Prepared
from .raster_report import NODATA, small, tell_making
from .report import Report
from .scene import Reader

#: A chip shows so much around a change, at least so many pixels a side and at most so many.
AROUND, LEAST_PX, MOST_PX = 0.5, 64, 1024
#: Longer side of a chip in the report; beyond that every n-th pixel is shown.
SHOWN_PX = 256
OUTLINE = (220, 30, 30)
SIEVE = "MIN_AREA filters polygons, the mask is never sieved."


def write_change_report(
    path: Path, ready: Prepared, figures: Mapping[str, Any], features: Features, warnings: Sequence[str]
) -> None:
    """Write the HTML report; ``figures``: of change_run.py. Raises OSError."""
    scene = ready.scene
    assert isinstance(scene, Joined)
    width, height = figures["size"]
    first, second = (layer.scene.path.name for layer in scene.layers[:2])
    report = Report(
        f"Change from {first} to {second}",
        f"Model {figures['model']['id']}; output of {width} x {height} pixels",
    )
    _summary(report, figures)
    if warnings:
        report.section("Warnings")
        report.warnings(warnings)
    if figures["change"]["sizes"] is not None and figures["count"]:
        report.section("Sizes")
        report.picture(_histogram(figures["change"]["sizes"]), "Number of polygons by area.")
    _zones(report, figures["change"].get("zones"))
    _largest(report, ready, scene, figures, features)
    _registration(report, figures)
    if "quality" in figures:
        _quality(report, figures["quality"])
    tell_making(report, figures)
    report.write(path)


def _summary(report: Report, figures: Mapping[str, Any]) -> None:
    change = figures["change"]
    report.section("Change")
    sources = {"parameter": "given", "model": "the model's", "otsu": "Otsu's over the scene"}
    pairs = {
        "polygons": figures["count"],
        "their area in m2": change["area_m2"],
        "their area in ha": None if change["area_m2"] is None else change["area_m2"] / 1e4,
        "changed pixels of the mask": change["changed_pixels"],
        "share of the valid pixels, %": 100 * change["share"],
        "threshold": change["threshold"],
        "where it comes from": sources[change["threshold_source"]],
        "smallest polygon in m2": change["min_area_m2"],
        "simplified by m": change["simplify_m"],
        "right angles": "yes" if change["regularise"] else "no",
        **{f"date of {role}": date or "unknown" for role, date in figures["dates"].items()},
    }
    report.pairs(pairs)
    report.paragraph(SIEVE)


def _zones(report: Report, zones: Sequence[Mapping[str, Any]] | None) -> None:
    if not zones:
        return
    report.section("Change by zone")
    header = ("zone of AOI", "its area on the raster, m2", "polygons", "their area in it, m2", "share, %")
    rows = [
        (
            zone["name"],
            zone["area_m2"],
            zone["count"],
            zone["changed_m2"],
            None if zone["share"] is None else 100 * zone["share"],
        )
        for zone in zones
    ]
    report.table(header, rows)
    report.paragraph("A polygon that reaches into several zones counts in each, with what lies in it.")


def _histogram(sizes: Mapping[str, Any]) -> bytes:
    edges, counts = sizes["edges_m2"], sizes["counts"]
    names = [f"up to {edge:g}" for edge in edges[:-1]] + [f"over {edges[-2]:g}"]
    figure = Figure(figsize=(8, 2.6), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.bar_label(axes.bar(range(len(counts)), counts, color="#c2410c"), fontsize=8)
    axes.set_xticks(range(len(counts)), names, rotation=25, ha="right", fontsize=8)
    axes.set(ylabel="polygons", xlabel="area in m²")
    axes.margins(y=0.15)
    return small(figure.savefig)


def _largest(
    report: Report, ready: Prepared, scene: Joined, figures: Mapping[str, Any], features: Features
) -> None:
    largest = figures["change"]["largest"]
    if not largest:
        report.paragraph("No polygon is left, so there is nothing to show.")
        return
    report.section("The largest changes")
    header = ("id", "area, m2", "p_mean", "x", "y", "longitude", "latitude")
    rows = []
    for each in largest:
        # six digits would put a projected coordinate 10 m beside its place
        place = (f"{each['x']:.2f}", f"{each['y']:.2f}")
        degrees = ("" if each[k] is None else f"{each[k]:.6f}" for k in ("lon", "lat"))
        rows.append((each["id"], each["area_m2"], each["p_mean"], *place, *degrees))
    report.table(header, rows)
    with scene.reader() as reader:
        for each in largest:
            outline = shapely.transform(features.polygons[each["id"] - 1], scene.georef.to_pixel)
            before, after = _chips(ready, scene, reader, outline)
            title = f"{each['id']}: {each['x']:.2f}, {each['y']:.2f}"
            report.side_by_side([(before, f"{title}, before"), (after, f"{title}, after")])


def _chips(ready: Prepared, scene: Joined, reader: Reader, outline: shapely.Geometry) -> list[bytes]:
    """Return pictures of the first two layers around an outline in scene pixels."""
    row, col, height, width = _window(outline, scene.height, scene.width)
    step = -(-max(height, width) // SHOWN_PX)
    values, valid = reader.read_bands(row, col, height, width)
    values, valid = values[:, ::step, ::step], valid[:, ::step, ::step]
    line = rasterize(
        [shapely.boundary(outline)],
        out_shape=values.shape[1:],
        transform=Affine(step, 0, col, 0, step, row),
        dtype=np.uint8,
        all_touched=True,
    ).astype(bool)
    larger = max(1, SHOWN_PX // max(line.shape))
    pictures = []
    for layer in scene.layers[:2]:
        place = scene.parts[layer.role]
        shown = np.full((*values.shape[1:], 3), NODATA, np.float32)
        there = valid[place].all(axis=0)
        bands = [
            scaling.apply(band[there])
            for scaling, band in zip(ready.scalings[place], values[place], strict=True)
        ]
        grey = len(bands) != 3
        for i in range(3):
            shown[there, i] = np.clip(np.mean(bands, axis=0) if grey else bands[i], 0, 1)
        picture = (shown * 255 + 0.5).astype(np.uint8)
        picture[line] = OUTLINE
        picture = picture.repeat(larger, axis=0).repeat(larger, axis=1)  # pixels, not a blur
        pictures.append(small(lambda stream, picture=picture, **how: imsave(stream, picture, **how)))
    return pictures


def _window(outline: shapely.Geometry, rows: int, cols: int) -> tuple[int, int, int, int]:
    """Return the window of the scene around an outline: row, column, height, width."""
    left, top, right, bottom = shapely.bounds(outline)
    side = min(max(LEAST_PX, (1 + 2 * AROUND) * max(right - left, bottom - top)), MOST_PX)
    found = []
    for middle, size in (((top + bottom) / 2, rows), ((left + right) / 2, cols)):
        length = min(int(side), size)
        found.append((min(max(0, int(middle - length / 2)), size - length), length))
    (row, height), (col, width) = found
    return row, col, height, width


def _registration(report: Report, figures: Mapping[str, Any]) -> None:
    report.section("How the dates lie on each other")
    found = figures["registration"]
    if found is None:
        report.paragraph("They share too little to measure it.")
    else:
        report.pairs(
            {
                "the later date lies beside the earlier by, pixels": _plain(found["shift_px"]),
                "it was moved by, pixels": _plain(found["moved_px"]) if found["moved_px"] else "not moved",
                **({"what was left then, pixels": _plain(found["left_px"])} if found["left_px"] else {}),
                "height of the peak in standard deviations": found["quality"],
                "clear enough to rely on": "yes" if found["clear"] else "no",
                "patches compared": found["patches"],
                "of them within a pixel of this": found["agreeing"],
            }
        )
        report.paragraph("Pixels of the earlier date's grid, right and down.")
    layers = figures["layers"]
    header = ("", "bands", "type", "resampled")
    report.table(
        header,
        [
            (role, _plain(each["bands"]), each["dtype"], "yes" if each["resampled"] else "no")
            for role, each in layers.items()
        ],
    )
    grid = figures["network_grid"]
    if grid is not None:
        width, height = grid["size"]
        report.paragraph(
            f"The network ran on {width} x {height} pixels of {grid['pixel_m']:.3g} m over the common "
            "ground; its probabilities were resampled to the earlier date's grid."
        )
    if figures["radiometry_matched"]:
        report.paragraph("The later date's values were matched to the earlier one's, over the whole overlap.")


def _quality(report: Report, quality: Mapping[str, Any]) -> None:
    report.section("Against the reference")
    measures = ("precision", "recall", "f1", "iou", "kappa")
    names = ("precision", "recall", "F1", "IoU", "kappa")
    report.table(names, [["" if quality[name] is None else f"{quality[name]:.3f}" for name in measures]])
    report.table(
        ("", "change in the reference", "no change"),
        [("change found", quality["tp"], quality["fp"]), ("none found", quality["fn"], quality["tn"])],
    )
    report.paragraph(
        f"Reference: {quality['reference']} ({quality['kind']}); {quality['pixels']} pixels of the mask, "
        "inside the reference only."
    )
    for note in quality["notes"]:
        report.paragraph(note)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return ", ".join(f"{each:.3g}" if isinstance(each, float) else str(each) for each in value)
    return value
