"""How much building change is found: the network against doing nothing, differences and change vectors.

``python benchmarks/building_change_accuracy.py PACK --network NAME=FILE`` reads the files of
scripts/pack_building_change.py and prints Markdown tables; ``--json FILE`` keeps the figures. FILE is a
weight file or the folder of a training. By default the validation images are measured; ``--part scored``
is for released weights alone, once: nothing may be chosen by those images.

All pixels of all images are one confusion matrix. Intervals are 95 %, by drawing whole images again
(quadrants of an image together). Thresholds come from the validation images, or where a row says Otsu from
each pair itself. Objects are connected pixels, of 50 m2 or more, matched from IoU 0.3 on. ``SZTAKI``: aerial
pictures of another country whose label is not buildings alone: what is left outside the training's domain.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.building_change.data import (  # noqa: E402
    SCORED,
    VALIDATION,
    Pairs,
    Site,
    load_pairs,
    load_sites,
    unit,
)
from kestrel.models.building_change.metrics import (  # noqa: E402
    Confusion,
    Curve,
    confusion,
    interval,
    match_objects,
)
from kestrel.models.building_change.network import SSANet  # noqa: E402
from kestrel.models.building_change.predict import change_map  # noqa: E402
from kestrel.models.building_change.trainer import BEST, CHECKPOINT, load_best  # noqa: E402
from kestrel.models.classical.change_vector import (  # noqa: E402
    Moments,
    histogram,
    magnitude,
    otsu,
)
from kestrel.models.training.checkpoint import read_state  # noqa: E402
from kestrel.models.weights import find_weights, load_weights  # noqa: E402

PARTS = {"validation": VALIDATION, "scored": SCORED}
#: A house of 50 m2, the smallest that is asked for, at LEVIR's 0.5 m and SZTAKI's 1.5 m.
LEAST_M2, LEVIR_M, SZTAKI_M = 50.0, 0.5, 1.5
#: Window of the smoothed magnitude: single pixels that differ are noise and edges.
SMOOTH = 5
#: The baseline a network must beat: chosen by the validation images among those below.
BASELINE = "CVA standardised, 5x5 mean, tuned"

#: before, after (3, H, W) uint8 -> score float (H, W) in 0..1.
Scorer = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Method:
    """A way to score pixels. ``threshold``: given, None to tune, or Otsu's for each pair."""

    score: Scorer
    threshold: float | str | None = None


def grey(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the absolute difference of the bands' means."""
    return np.abs(unit(after).mean(axis=0) - unit(before).mean(axis=0))


def raw(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the magnitude of the change vectors as they are."""
    return magnitude(unit(before), unit(after))


def standardised(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the magnitude after each date was standardised over the picture."""
    dates = unit(before), unit(after)
    valid = np.ones(before.shape[1:], bool)
    return magnitude(*dates, (Moments.of(dates[0], valid), Moments.of(dates[1], valid)))


def smoothed(score: Scorer) -> Scorer:
    """Return a scorer's mean over :data:`SMOOTH` pixels."""
    return lambda before, after: ndimage.uniform_filter(score(before, after), SMOOTH, mode="nearest")


def network(path: str) -> tuple[Scorer, float]:
    """Return the scorer of a weight file or of a training's folder, and its threshold."""
    folder = Path(path)
    if folder.is_dir():
        state = read_state(folder / CHECKPOINT)
        net = SSANet(**state["network"])
        threshold, extra = load_best(folder / BEST, net).threshold, state
    else:
        loaded = load_weights(*find_weights(path, "building_change"))
        extra = loaded.card.extra
        net = SSANet(**extra["config"])
        net.load_state_dict({name: value.float() for name, value in loaded.tensors.items()})
        threshold = float(extra["threshold"])
    net = net.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda before, after: change_map(net, before, after, extra["mean"], extra["std"]), threshold


def methods(networks: Mapping[str, str]) -> dict[str, Method]:
    """Return all rows of the tables."""
    found = {
        "no change": Method(lambda before, after: np.zeros(before.shape[1:]), 0.5),
        "grey difference, Otsu": Method(grey, "otsu"),
        "CVA raw, Otsu": Method(raw, "otsu"),
        "CVA standardised, Otsu": Method(standardised, "otsu"),
        "CVA raw, tuned": Method(raw),
        "CVA standardised, tuned": Method(standardised),
        BASELINE: Method(smoothed(standardised)),
    }
    for name, path in networks.items():
        score, threshold = network(path)
        found[name] = Method(score, threshold)
        found[f"{name}, dates swapped"] = Method(lambda b, a, score=score: score(a, b), threshold)
    return found


def threshold_of(method: Method, validation: Pairs) -> float | str:
    """Return the method's threshold, tuned for F1 on the validation images where it has none."""
    if method.threshold is not None:
        return method.threshold
    pairs = list(zip(validation.before, validation.after, validation.label, strict=True))
    curves = [Curve.of(method.score(before, after), label) for before, after, label in pairs]
    return sum(curves[1:], curves[0]).best()[0]


def objects(mask: np.ndarray, least_px: float) -> np.ndarray:
    """Return connected pixels (by side or corner) of at least ``least_px``, numbered from 1."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    keep = sizes >= least_px
    keep[0] = False
    return np.where(keep, keep.cumsum(), 0)[labels]


@dataclass(frozen=True)
class Row:
    """A method on a set of pictures: one matrix for each image, objects of all."""

    images: list[Confusion]
    objects: Confusion
    threshold: float | str

    def figures(self, baseline: Row) -> dict[str, Any]:
        """Return the row's numbers."""
        whole = sum(self.images, Confusion())
        many = len(self.images) > 1
        return {
            **{key: round(getattr(whole, key), 4) for key in ("precision", "recall", "f1", "iou", "kappa")},
            "f1_interval": [round(v, 4) for v in interval(self.images)] if many else None,
            "lead": round(whole.f1 - sum(baseline.images, Confusion()).f1, 4),
            "lead_interval": [round(v, 4) for v in interval(self.images, baseline.images)] if many else None,
            "object_f1": round(self.objects.f1, 4),
            "object_precision": round(self.objects.precision, 4),
            "object_recall": round(self.objects.recall, 4),
            "threshold": self.threshold if isinstance(self.threshold, str) else round(self.threshold, 4),
            "pixels": asdict(whole),
            "f1_by_image": [round(image.f1, 4) for image in self.images],
        }


def measured(
    method: Method, threshold: float | str, sites: list[Site], pixel_m: float, least_m2: float = LEAST_M2
) -> Row:
    """Return the row over pictures; those of one name count as one image."""
    images: dict[str, Confusion] = {}
    found_objects = Confusion()
    for site in sites:
        score = method.score(site.before, site.after)
        cut = otsu(histogram(score)) if isinstance(threshold, str) else threshold
        found = score >= cut
        images[site.name] = images.get(site.name, Confusion()) + confusion(found, site.label)
        least = least_m2 / pixel_m**2
        found_objects = found_objects + match_objects(objects(found, least), objects(site.label, least))
    return Row(list(images.values()), found_objects, threshold)


def as_sites(pairs: Pairs) -> list[Site]:
    """Return the pairs one by one, named by their image."""
    return [
        Site(f"image {image}", before, after, label)
        for image, before, after, label in zip(
            pairs.image, pairs.before, pairs.after, pairs.label, strict=True
        )
    ]


def as_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return Markdown."""
    lines = [
        f"{title}\n",
        "| | P | R | F1 | 95 % | IoU | kappa | F1 over the tuned CVA | object F1 | threshold |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        lead = f"{row['lead']:+.3f} {_span(row['lead_interval'])}"
        lines.append(
            f"| {name} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} "
            f"| {_span(row['f1_interval'])} | {row['iou']:.3f} | {row['kappa']:.3f} | {lead} "
            f"| {row['object_f1']:.3f} | {row['threshold']} |"
        )
    return "\n".join(lines) + "\n"


def _span(ends: list[float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.3f} .. {ends[1]:.3f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack", type=Path, help="folder of scripts/pack_building_change.py")
    parser.add_argument(
        "--network",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="weights or a training's folder",
    )
    parser.add_argument("--part", choices=PARTS, default="validation")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pairs = load_pairs(args.pack)
    rows = methods(dict(entry.split("=", 1) for entry in args.network))
    thresholds = {name: threshold_of(method, pairs.only(VALIDATION)) for name, method in rows.items()}
    part = pairs.only(PARTS[args.part])
    sets = {
        f"LEVIR, {len(set(part.image.tolist()))} {args.part} images, {len(part)} quadrants": (
            as_sites(part),
            LEVIR_M,
        ),
        "SZTAKI, 5 sites, out of domain: its label is not buildings": (
            load_sites(args.pack / "sztaki.npz"),
            SZTAKI_M,
        ),
    }
    results = {}
    for title, (sites, pixel_m) in sets.items():
        found = {name: measured(method, thresholds[name], sites, pixel_m) for name, method in rows.items()}
        results[title] = {name: row.figures(found[BASELINE]) for name, row in found.items()}
        sys.stdout.write(as_table(title, results[title]) + "\n")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
