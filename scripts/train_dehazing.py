#!/usr/bin/env python3
"""Make the shipped dehazing weights again: ``train_dehazing.py FOLDER --seed 0``.

Packs the data (FOLDER/pack), trains on simulated haze (FOLDER/pretrain), fine-tunes six times, two at a
time (FOLDER/fold0 to fold4, each without one block of real pairs, and FOLDER/all), measures, and writes
resources/weights/dehazing.safetensors with its card. 75 minutes on two busy cores. The same command
goes on where it was stopped; finished stages are kept. ``--until pretrain`` stops after that stage.
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

from kestrel.models.dehazing.recipe import Stage, fine_tunings, pretraining  # noqa: E402
from kestrel.models.dehazing.train import AVERAGE  # noqa: E402

LOG = logging.getLogger("train_dehazing")
ENDS = ("pack", "pretrain", "fine-tune", "release")
#: One thread each: two small trainings side by side get more done than one on both cores.
AT_ONCE = 2


def python(*arguments: object, threads: int = 2) -> None:
    """Run Python with the package at hand; raises CalledProcessError where it fails."""
    paths = [str(ROOT / ".kestrel" / "python"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, *map(str, arguments)], check=True, cwd=ROOT, env=environment)


def run_stage(folder: Path, stage: Stage) -> None:
    """Train one stage; its checkpoint says whether there is anything left to do.

    One of other data, settings or weights to start from is refused rather than taken up.
    """
    out = folder / stage.name
    start = ["--init", folder / stage.after / AVERAGE] if stage.after else []
    threads = ["--threads", stage.threads]
    LOG.info("%s: %s", stage.name, " ".join(stage.arguments))
    typed = [folder / "pack", "--out", out, *threads, *stage.arguments, *start]
    python("-m", "kestrel.models.dehazing.train", *typed, threads=stage.threads)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, help="where data, checkpoints and logs go, such as build/dehazing"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until", choices=ENDS, default=ENDS[-1], help="the last stage to run")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder, last = args.folder.resolve(), ENDS.index(args.until)

    python("scripts/pack_dehazing.py", folder / "pack")
    if last >= ENDS.index("pretrain"):
        run_stage(folder, pretraining(args.seed))
    if last >= ENDS.index("fine-tune"):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda stage: run_stage(folder, stage), fine_tunings(args.seed)))
    if last >= ENDS.index("release"):
        command = f"python scripts/train_dehazing.py FOLDER --seed {args.seed}"
        python("scripts/release_dehazing.py", folder, "--command", command)


if __name__ == "__main__":
    main()
