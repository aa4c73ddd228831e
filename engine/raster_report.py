"""The report on a restored raster: before and after, what changed where, by how much, how it was made."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imsave

from .raster_tally import Tally
from .report import Report

#: Pixels without data in pictures; no restored ground has that even blue-grey.
NODATA = (0.867, 0.894, 0.933)
#: Bytes of a picture, so that a report can be mailed, and JPEG qualities tried until it fits.
PICTURE_BYTES, QUALITIES = 300_000, (88, 75, 60, 40, 20)
#: Share of pixels whose change is within the colours of the difference picture.
WITHIN = 99.5
#: A histogram is cut at so many times the share of the bin that has so many larger ones.
TOWER, TOWERS = 2, 4
#: Times that are part of the stage "tiles", so that they are not added up.
WITHIN_TILES = ("prepare", "predict")
COLOURS = ("red", "green", "blue")


def write_report(
    path: Path,
    figures: Mapping[str, Any],
    tally: Tally | None,
    warnings: Sequence[str],
    title: str = "",
) -> None:
    """Write the HTML report of one run; without a tally (scores, classes) it has no pictures.

    ``figures``: those of CONTRACTS.md, section 5, with ``quality`` where a reference was given.
    """
    source = Path(figures["inputs"][0]["path"]).name
    width, height = figures["size"]
    report = Report(
        title or f"{source}, before and after",
        f"Model {figures['model']['id']}; output of {width} x {height} pixels",
    )
    if tally is not None and tally.seen is not None and tally.seen.any():
        _pictures(report, figures, tally)
    elif tally is not None:
        report.paragraph("No pixel is valid in all chosen bands, so nothing was changed.")
    if warnings:
        report.section("Warnings")
        report.warnings(warnings)
    if tally is not None:
        _bands(report, figures, tally)
    if "quality" in figures:
        _quality(report, figures["quality"], _names(figures))
    tell_making(report, figures)
    report.write(path)


def _pictures(report: Report, figures: Mapping[str, Any], tally: Tally) -> None:
    before, after = tally.stretched()
    every = "every pixel" if tally.step == 1 else f"every {_ordinal(tally.step)} pixel"
    report.section("Before and after")
    stretch = f"same stretch, {every}" + (", mean of bands" if len(before) != 3 else "")
    report.side_by_side([(_image(before), f"Before: {stretch}"), (_image(after), f"After: {stretch}")])
    report.section("What changed")
    change = (after - before).mean(0)
    known = change[np.isfinite(change)]
    report.picture(
        _difference(change),
        "After minus before, mean over bands, in stretched units: 1 is the whole range from low to high. "
        f"Mean {known.mean():+.4f}, smallest {known.min():+.4f}, largest {known.max():+.4f}.",
    )
    report.picture(
        _histograms(tally, _names(figures)),
        "Share of pixels by value before and after; dashed: low and high of the stretch. "
        + ("All valid pixels. " if tally.before[0].counts is not None else f"Of {every}. ")
        + "The first and last bin hold what lies beyond; single bins may be cut at the top.",
    )


def _bands(report: Report, figures: Mapping[str, Any], tally: Tally) -> None:
    found = figures.get("tally") or tally.figures()
    report.section("Bands")
    measures = {"mean": "", "std": "", "clipped": ", %", "saturated": ", %"}
    whens = ("before", "after")
    header = [f"{name} {when}{unit}" for name, unit in measures.items() for when in whens]
    rows = []
    for name, band in zip(_names(figures), found["bands"], strict=True):
        values = [band[f"{measure}_{when}"] for measure in measures for when in whens]
        rows.append([name, *values[:4], *map(_percent, values[4:])])
    report.table(("band", *header), rows)
    report.paragraph(
        "Of all pixels valid in all chosen bands. std: standard deviation. clipped: at or beyond low or high "
        "of the stretch. saturated: at the smallest or largest value of the data type; empty for floats."
    )
    look = found.get("look")
    if look:
        report.section("Haze, contrast, detail")
        looks = [
            ("mean of the dark channel", look["dark_channel_before"], look["dark_channel_after"]),
            ("contrast", look["contrast_before"], look["contrast_after"]),
            ("entropy in bits", look["entropy_before"], look["entropy_after"]),
        ]
        report.table(("", "before", "after"), looks)
        around = (
            "the pixel alone" if look["patch"] == 1 else f"{look['patch']} x {look['patch']} of its pixels"
        )
        report.paragraph(
            "Of the pictures above, in stretched units, 0 to 1. Dark channel: the least value over bands "
            f"and {around}; haze lifts it. Contrast: standard deviation of luminance. Entropy: of it in "
            "256 levels."
        )


def _quality(report: Report, quality: Mapping[str, Any], names: Sequence[str]) -> None:
    report.section("Against the reference")
    sides = quality["input"], quality["output"]
    psnr = [("infinite" if side["mse"] == 0 else side["psnr"], *side["psnr_bands"]) for side in sides]
    ssim = [(side["ssim"], *side["ssim_bands"]) for side in sides]
    header = ("", "PSNR of input, dB", "PSNR of output, dB", "SSIM of input", "SSIM of output")
    report.table(header, zip(("all bands", *names), *psnr, *ssim, strict=True))
    if quality["units"] == "8-bit DN":
        units = "8-bit digital numbers with a peak of 255"
    else:
        ends = zip(names, quality["lows"], quality["highs"], strict=True)
        ranges = ", ".join(f"{name} {low:.6g} to {high:.6g}" for name, low, high in ends)
        units = f"stretched units with a peak of 1, not clipped ({ranges})"
    bands = ", ".join(map(str, quality["reference_bands"]))
    report.paragraph(
        f"Reference: {quality['reference']}, bands {bands}. In {units}; {quality['pixels']} pixels valid in "
        f"input, output and reference, {quality['windows']} whole windows of 11 x 11 for SSIM (Gaussian, "
        "sigma 1.5)."
    )
    for note in quality["notes"]:
        report.paragraph(note)


def tell_making(report: Report, figures: Mapping[str, Any]) -> None:
    """Add pixels, stretch, parameters, seconds and versions of a run."""
    report.section("Pixels and tiles")
    names = ("valid_pixels", "invalid_pixels", "tiles_total", "tiles_run", "tiles_skipped", "tiles_nodata")
    report.pairs({name: figures[name] for name in names if name in figures})
    stretch = figures["stretch"]
    report.section("Stretch")
    report.table(
        ("band", "low", "high"), list(zip(_names(figures), stretch["low"], stretch["high"], strict=True))
    )
    report.paragraph(f"From {stretch['source']}.")
    report.section("Parameters as used")
    report.pairs({name: _plain(value) for name, value in figures["params_used"].items()})
    report.section("Seconds by stage")
    seconds = figures["seconds"]
    stages = {name: value for name, value in seconds.items() if name not in WITHIN_TILES}
    within = {f"{name} (within tiles)": seconds[name] for name in WITHIN_TILES if name in seconds}
    total = sum(stages.values())
    mpx = figures["size"][0] * figures["size"][1] / 1e6
    told = {**stages, **within, "all": total, "all, for each Mpx of output": total / mpx}
    report.pairs({name: float(f"{value:.3g}") for name, value in told.items()})
    report.section("Made with")
    report.pairs({"model": figures["model"], "versions": figures["versions"]})
    files = [(f["path"], f["size"], f["modified"]) for f in figures["inputs"]]
    report.table(("file", "bytes", "modified"), files)


def _names(figures: Mapping[str, Any]) -> list[str]:
    bands = figures["bands"]
    if len(bands) == len(COLOURS):
        return [f"{colour} (band {band})" for colour, band in zip(COLOURS, bands, strict=True)]
    return [f"band {band}" for band in bands]


def _percent(share: float | None) -> float | None:
    return None if share is None else float(f"{100 * share:.3g}")


def _plain(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _image(image: np.ndarray) -> bytes:
    """Return a picture of (C, h, w) in stretched units: three bands in colour, else their mean in grey."""
    shown = image if len(image) == 3 else np.repeat(image.mean(0)[None], 3, axis=0)
    shown = np.clip(shown, 0, 1).transpose(1, 2, 0)
    rgb = np.where(np.isfinite(shown), shown, NODATA)
    rgb = (rgb * 255 + 0.5).astype(np.uint8)
    return small(lambda stream, **how: imsave(stream, rgb, **how))


def small(save: Callable[..., None]) -> bytes:
    """Return a PNG where it is small enough, else the best JPEG that is."""
    ways: list[dict[str, Any]] = [{"format": "png"}]
    ways += [{"format": "jpg", "pil_kwargs": {"quality": quality}} for quality in QUALITIES]
    for way in ways:
        stream = io.BytesIO()
        save(stream, **way)
        if stream.tell() <= PICTURE_BYTES:
            break
    return stream.getvalue()


def _difference(change: np.ndarray) -> bytes:
    known = np.abs(change[np.isfinite(change)])
    limit = max(float(np.percentile(known, WITHIN)), 1 / 255)
    height = 8 * change.shape[0] / change.shape[1] + 0.9
    figure = Figure(figsize=(8, min(12, max(2, height))), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor(NODATA)
    shown = axes.imshow(change, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    scale = figure.colorbar(shown, location="bottom", aspect=40, extend="both", fraction=0.05, pad=0.02)
    scale.set_label("darker  ←  change in stretched units  →  brighter")
    return small(figure.savefig)


def _histograms(tally: Tally, names: Sequence[str]) -> bytes:
    found = tally.histograms()
    figure = Figure(figsize=(8.5, 2.0 * len(found)), dpi=100, layout="constrained")
    rows = figure.subplots(len(found), 1, squeeze=False)[:, 0]
    for axes, name, side, (edges, before, after) in zip(rows, names, tally.before, found, strict=True):
        highest = 0.0
        for counts, colour, label in ((before, "#7a8794", "before"), (after, "#c2410c", "after")):
            share = 100 * counts / max(1, counts.sum())
            axes.stairs(share, edges, color=colour, label=label, fill=label == "before", alpha=0.8)
            # a few full bins - clipped pixels, a flat lake - may tower above all that is to be seen
            ordered = np.sort(share)[::-1]
            highest = max(
                highest, min(ordered[0], TOWER * ordered[min(TOWERS, len(share) - 1)] or ordered[0])
            )
        for end in (side.low, side.high):
            axes.axvline(end, color="#1c2733", linestyle="--", linewidth=0.8)
        left, right = edges[0], edges[-1]
        if side.dtype.kind in "iu":  # nothing lies beyond the data type
            ends, margin = np.iinfo(side.dtype), 0.02 * (right - left)
            left, right = max(left, ends.min - margin), min(right, ends.max + margin)
        axes.set(xlim=(left, right), ylim=(0, 1.1 * highest or 1), ylabel="% of pixels")
        axes.set_title(name, loc="left")
    rows[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncol=2, frameon=False)
    return small(figure.savefig)
