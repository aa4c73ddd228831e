#!/usr/bin/env python3
"""Turn trainings on urban change at 10 m into a weight file: ``release_urban_change.py FOLDER``.

FOLDER is that of scripts/train_urban_change.py. The figures are those of the folds, which are other networks,
trained alike; the file holds the one that learned from most cities (FOLDER/urban/all). Writes
resources/weights/building_change_sentinel2.safetensors, its card, manifest and docs/models. The status is
``preliminary`` whatever comes out: nobody has looked at real stretched Sentinel-2 layers yet.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.building_change.cities import (  # noqa: E402
    CHOOSING,
    FOLDS,
    GSD,
    MIN_AREA_M2,
    as_pairs,
    choosing,
)
from kestrel.models.building_change.data import VALIDATION, load_sites  # noqa: E402
from kestrel.models.building_change.network import SSANet  # noqa: E402
from kestrel.models.building_change.predict import STRIDE, TILE  # noqa: E402
from kestrel.models.building_change.trainer import BEST, CHECKPOINT, load_best, measure  # noqa: E402
from kestrel.models.building_change.weights import as_stored, describe, preset_of, write_weights  # noqa: E402
from kestrel.models.manifest import FOLDER  # noqa: E402
from kestrel.models.training.checkpoint import read_state  # noqa: E402
from kestrel.models.weights import update_manifest  # noqa: E402

LOG = logging.getLogger("release_urban_change")
NAME = "building_change_sentinel2"
CITIES = [city for cities in FOLDS for city in cities]
SOURCE: dict[str, Any] = {
    "source": "OSCD, Onera Satellite Change Detection (Daudt et al., IGARSS 2018), ten cities",
    "what": "Sentinel-2 L1C at 10 m, two dates of 2015 to 2018, outlined urban change",
    "bands": "red, green, blue (B04, B03, B02), 8-bit pictures of unknown stretch",
    "licence": "imagery: modified Copernicus data 2015-2018; change maps CC BY-NC-SA",
    "images": len(CITIES),
    "real": True,
}
LIMITS = (
    "Urban change, 10 m, preliminary: new quarters, roads and building sites, not single houses. Trained on "
    "{count} cities, shown as 8-bit pictures whose stretch is not known; your own layers are stretched "
    "otherwise, so look at the result and set STRETCH_MIN and STRETCH_MAX. {reached} The change maps "
    "it learned from are for non-commercial use (CC BY-NC-SA). Where a building appeared or went is not told "
    "apart, and the earlier date must be BEFORE."
)
SHOWN = tuple(
    "precision recall f1 f1_interval iou kappa lead lead_interval object_precision object_recall object_f1 "
    "threshold".split()
)


def measured(folder: Path, threads: int) -> dict[str, Any]:
    """Return the figures of the folds."""
    out = folder / "urban" / "folds.json"
    command = [sys.executable, ROOT / "benchmarks" / "urban_change_accuracy.py", folder, "--json", out]
    subprocess.run([str(word) for word in [*command, "--threads", threads]], check=True)
    found = json.loads(out.read_text("utf-8"))
    return {
        split: {method: {key: row[key] for key in SHOWN} for method, row in rows.items()}
        for split, rows in found.items()
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder given to train_urban_change.py")
    parser.add_argument("--version", default="1")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    run = args.folder / "urban" / "all"
    state = read_state(run / CHECKPOINT)
    net = SSANet(**state["network"])
    load_best(run / BEST, net)
    net = net.eval()
    stored = as_stored(net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    held_out = as_pairs(load_sites(args.folder / "pack" / "oscd.npz"), (), choosing(0)).only(VALIDATION)
    threshold, _ = measure(stored, held_out, state["mean"], state["std"], TILE, STRIDE).best()
    figures = measured(args.folder, args.threads)
    (rows,) = figures.values()
    row = rows["network"]
    low, high = row["f1_interval"]
    reached = (
        f"In cities that networks trained alike never saw, they find {row['recall']:.0%} of the changed "
        f"pixels, and {row['precision']:.0%} of what they mark is change (F1 {row['f1']:.2f}, 95 % {low:.2f} "
        f"to {high:.2f})."
    )
    config, crops = state["config"], state["data"]
    card = describe(
        net,
        name=NAME,
        data=[SOURCE],
        training=state,
        threshold=threshold,
        command=f"python scripts/train_urban_change.py FOLDER --steps {config['steps']} --crop "
        f"{crops['crop']} --preset {preset_of(state['network'])} --seed {config['seed']}; python "
        "scripts/release_urban_change.py FOLDER",
        limits=LIMITS.format(count=len(CITIES) - len(choosing(0)), reached=reached),
        version=args.version,
        figures=figures,
        gsd=GSD,
        note=f"The figures are of {len(FOLDS)} networks, each without the cities it is scored on and with "
        f"epoch and threshold of {CHOOSING} other folds; this one chose them on {', '.join(choosing(0))}.",
    )
    card = dataclasses.replace(card, extra={**card.extra, "min_area_m2": MIN_AREA_M2})
    path = FOLDER / f"{NAME}.safetensors"
    sha256 = write_weights(path, net, card)
    update_manifest(path, NAME)
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make_cards.py")], check=True)
    LOG.info("%s %s %d bytes %s", path.name, card.status, path.stat().st_size, sha256)


if __name__ == "__main__":
    main()
