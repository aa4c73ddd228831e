#!/usr/bin/env python3
"""Train SSA-Net on urban change at 10 m, leaving cities out: ``train_urban_change.py FOLDER``.

FOLDER/pack holds oscd.npz (scripts/pack_building_change.py). For each fold of
kestrel.models.building_change.cities one training (FOLDER/urban/fold_N) that never sees the fold, by default
of the small preset. The same command goes on where it was stopped; benchmarks/urban_change_accuracy.py
measures. No weights are made of it: they do no better than tuned change vectors.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.building_change.cities import FOLDS, SENTINEL2, as_pairs, choosing  # noqa: E402
from kestrel.models.building_change.data import TRAINING, VALIDATION, Sampler, load_sites  # noqa: E402
from kestrel.models.building_change.network import PRESETS  # noqa: E402
from kestrel.models.building_change.trainer import TrainConfig, train  # noqa: E402

LOG = logging.getLogger("train_urban_change")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder given to train_building_change.py")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    sites = load_sites(args.folder / "pack" / "oscd.npz")
    for number, scored in enumerate(FOLDS):
        pairs = as_pairs(sites, scored, choosing(number))
        sampler = Sampler(pairs.only(TRAINING), args.crop, 8, args.seed, SENTINEL2)
        config = TrainConfig(network=PRESETS[args.preset], steps=args.steps, seed=args.seed, validations=3)
        result = train(
            sampler, config, args.folder / "urban" / f"fold_{number}", validation=pairs.only(VALIDATION)
        )
        LOG.info("without %s: %.0f s, best %s", ", ".join(scored), result.seconds, result.best)


if __name__ == "__main__":
    main()
