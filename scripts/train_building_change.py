#!/usr/bin/env python3
"""Make the shipped building change weights again: ``train_building_change.py FOLDER --seed 0``.

Packs the data (FOLDER/pack), trains (FOLDER/first, then FOLDER/paper, an hour and a half on two busy cores),
measures, and writes resources/weights/building_change.safetensors with its card. ``--until ablation`` trains
the paper's modules one by one at half width (FOLDER/ablation) instead. The same command goes on where it was
stopped; what is finished is kept.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.building_change.recipe import Stage, ablations, shipped  # noqa: E402

LOG = logging.getLogger("train_building_change")
ENDS = ("pack", "train", "release", "ablation")
#: One thread each: two small trainings side by side get more done than one on both cores.
AT_ONCE = 2


def python(*arguments: object, threads: int = 2) -> None:
    """Run Python with the package at hand; raises CalledProcessError where it fails."""
    paths = [str(ROOT / ".kestrel" / "python"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, *map(str, arguments)], check=True, cwd=ROOT, env=environment)


def run_stage(folder: Path, pack: Path, stage: Stage) -> None:
    """Train one stage; its checkpoint says whether there is anything left to do."""
    LOG.info("%s: %s", stage.name, " ".join(stage.arguments))
    typed: list[object] = [pack, "--out", folder / stage.name, "--threads", stage.threads, *stage.arguments]
    if "--init" in stage.arguments:  # what it names lies in the folder
        typed[-1] = folder / stage.arguments[-1]
    python("-m", "kestrel.models.building_change.train", *typed, threads=stage.threads)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, help="where data, checkpoints and logs go, such as build/building_change"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of the shipped training")
    parser.add_argument("--until", choices=ENDS, default="release", help="the last stage to run")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = args.folder.resolve()
    pack = folder / "pack"

    python("scripts/pack_building_change.py", pack)
    if args.until == "ablation":
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda stage: run_stage(folder / "ablation", pack, stage), ablations()))
        return
    if args.until != "pack":
        for stage in shipped(args.seed, args.threads):
            run_stage(folder, pack, stage)
    if args.until == "release":
        python("scripts/release_building_change.py", folder, "--threads", args.threads)


if __name__ == "__main__":
    main()
