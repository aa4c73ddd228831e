"""How much urban change at 10 m is found in cities that were not learned from: Sentinel-2, OSCD.

``python benchmarks/urban_change_accuracy.py FOLDER`` reads FOLDER/pack/oscd.npz and the trainings of
scripts/train_urban_change.py (FOLDER/urban/fold_N) and prints a Markdown table; ``--json FILE`` keeps the
figures. Each city is scored by a network that never saw it, nor the other cities of its fold, at the
threshold of two other folds. Change vectors are tuned for it on all other cities, which is more than the
network gets.

All pixels of all cities are one confusion matrix. Intervals are 95 %, by drawing whole folds again. Objects
are connected pixels, of 400 m2 or more, matched from IoU 0.3 on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from building_change_accuracy import (
    Method,
    Row,
    as_table,
    grey,
    measured,
    network,
    raw,
    smoothed,
    standardised,
)
from kestrel.models.building_change.cities import FOLDS, city_of
from kestrel.models.building_change.data import Site, load_sites
from kestrel.models.building_change.metrics import Confusion, Curve
from kestrel.models.building_change.trainer import CHECKPOINT
from kestrel.models.training.checkpoint import read_state

PIXEL_M, LEAST_M2 = 10.0, 400.0
BASELINE = "CVA standardised, 5x5 mean, tuned"
#: The row of the network in the table.
ROW = "network"


def tuned(method: Method, sites: Sequence[Site]) -> float | str:
    """Return the method's threshold: given, Otsu, or the best over ``sites``."""
    if method.threshold is not None:
        return method.threshold
    curves = [Curve.of(method.score(site.before, site.after), site.label) for site in sites]
    return sum(curves[1:], curves[0]).best()[0]


def methods(run: Path) -> dict[str, Method]:
    """Return all rows of the table; ``run``: the folder of the fold's training."""
    score, threshold = network(str(run))
    return {
        "no change": Method(lambda before, after: np.zeros(before.shape[1:]), 0.5),
        "grey difference, Otsu": Method(grey, "otsu"),
        "CVA standardised, Otsu": Method(standardised, "otsu"),
        "CVA raw, 5x5 mean, tuned": Method(smoothed(raw)),
        BASELINE: Method(smoothed(standardised)),
        ROW: Method(score, threshold),
        f"{ROW}, dates swapped": Method(lambda b, a: score(a, b), threshold),
    }


def joined(rows: Sequence[Row]) -> Row:
    """Return one row of all folds; each fold is one witness for the interval."""
    images = [sum(row.images, Confusion()) for row in rows]
    objects = sum((row.objects for row in rows), Confusion())
    thresholds = [row.threshold for row in rows]
    mean = "otsu" if isinstance(thresholds[0], str) else float(np.mean(thresholds))  # type: ignore[arg-type]
    return Row(images, objects, mean)


def _is_complete(run: Path) -> bool:
    """Whether a training came to its end."""
    if not (run / CHECKPOINT).exists():
        return False
    state = read_state(run / CHECKPOINT)
    return int(state["step"]) >= int(state["config"]["steps"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder given to scripts/train_urban_change.py")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sites = load_sites(args.folder / "pack" / "oscd.npz")
    rows: dict[str, list[Row]] = {}
    missing = []
    for number, cities in enumerate(FOLDS):
        if not _is_complete(args.folder / "urban" / f"fold_{number}"):
            missing += cities
            continue
        scored = [site for site in sites if city_of(site.name) in cities]
        others = [site for site in sites if city_of(site.name) not in cities]
        for name, method in methods(args.folder / "urban" / f"fold_{number}").items():
            row = measured(method, tuned(method, others), scored, PIXEL_M, LEAST_M2)
            rows.setdefault(name, []).append(row)
    whole = {name: joined(found) for name, found in rows.items()}
    folds = len(next(iter(rows.values()), []))
    if not folds:
        raise SystemExit(f"{args.folder / 'urban'} holds no training that came to its end.")
    title = f"OSCD, {len(sites) - len(missing)} cities in {folds} folds, each left out (threshold: mean)"
    results: dict[str, Any] = {name: row.figures(whole[BASELINE]) for name, row in whole.items()}
    sys.stdout.write(as_table(title, results) + "\n")
    if missing:
        sys.stdout.write(f"Not trained without: {', '.join(missing)}.\n")
    if args.json:
        args.json.write_text(json.dumps({title: results}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
