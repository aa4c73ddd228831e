"""What each proposed module of DWTMA-Net adds: the rows of the paper's Tables 5 and 6, trained by ours.

``python benchmarks/dehazing_ablations.py PACK --out FOLDER`` trains every row from random numbers with the
same number of steps, seeds and crops, two trainings at a time on one thread each, and prints a Markdown
table. PACK is the folder of scripts/pack_dehazing.py. A finished training is kept in FOLDER, so the same
command goes on where it was stopped; rows without all seeds are named.

Ours in every respect but the switches: preset ``small``, simulated haze alone, far fewer steps than a
paper's. PSNR in 8-bit DN over simulated test scenes, whose haze comes from other ranges than training's;
the figure of a row is the mean over seeds, +- is their standard deviation.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.dehazing.data import TESTING, TRAINING, Sampler, load_scenes, simulated_pairs  # noqa: E402
from kestrel.models.dehazing.metrics import evaluate  # noqa: E402
from kestrel.models.dehazing.network import ABLATIONS, PRESETS  # noqa: E402
from kestrel.models.dehazing.restore import restore  # noqa: E402
from kestrel.models.dehazing.simulate import TEST, TRAIN  # noqa: E402
from kestrel.models.dehazing.trainer import TrainConfig, train  # noqa: E402

FULL = "Base+DWB+MAB+WDM"
#: The paper's crops for its ablations.
CROP = 80
BATCH = 4
SCENES = 40
AT_ONCE = 2


def one(pack: Path, out: Path, row: str, seed: int, steps: int) -> None:
    """Train one row with one seed and write FOLDER/<row>-<seed>/result.json."""
    torch.set_num_threads(1)
    scenes = load_scenes(pack)
    network = {**PRESETS["small"], **ABLATIONS[row]}
    # the average is scored as it ends: nothing is chosen
    config = TrainConfig(network=network, steps=steps, lr=2e-3, seed=seed, validations=0)
    sampler = Sampler([scenes.part(TRAINING)], None, CROP, BATCH, seed, 0.0, TRAIN)
    folder = out / f"{row}-{seed}".replace(" ", "_")
    result = train(sampler, config, folder)
    tests = scenes.part(TESTING)
    pairs = simulated_pairs(tests[:: max(len(tests) // SCENES, 1)][:SCENES], TEST)
    scores = evaluate(functools.partial(restore, result.net), zip(pairs.hazy, pairs.clear, strict=True))
    before = evaluate(lambda image: image, zip(pairs.hazy, pairs.clear, strict=True))
    found = {
        "row": row,
        "seed": seed,
        "steps": result.step,
        "seconds": round(result.seconds),
        "parameters": sum(p.numel() for p in result.net.parameters()),
        "psnr": float(scores.psnr.mean()),
        "ssim": float(scores.ssim.mean()),
        "psnr_hazy": float(before.psnr.mean()),
        "scenes": len(pairs),
    }
    part = folder / "result.part"
    part.write_text(json.dumps(found), encoding="utf-8")
    os.replace(part, folder / "result.json")


def table(results: list[dict[str, float]], seeds: list[int]) -> None:
    """Print the rows that have all seeds, and name the others."""
    write = sys.stdout.write
    by_row = {row: [r for r in results if r["row"] == row] for row in ABLATIONS}
    full = [r["psnr"] for r in by_row[FULL]]
    write("| `small`, ours | parameters | PSNR dB | SSIM | beside the full network dB |\n")
    write("|---|---:|---:|---:|---:|\n")
    missing = []
    for row, runs in by_row.items():
        if len(runs) < len(seeds):
            missing.append(row)
            continue
        psnr = [r["psnr"] for r in runs]
        spread = statistics.stdev(psnr) if len(psnr) > 1 else 0.0
        beside = statistics.mean(psnr) - statistics.mean(full) if full else float("nan")
        write(
            f"| {row} | {runs[0]['parameters']:,} | {statistics.mean(psnr):.2f} +- {spread:.2f} "
            f"| {statistics.mean(r['ssim'] for r in runs):.4f} | {beside:+.2f} |\n"
        )
    if results:
        first = results[0]
        write(
            f"\n{first['steps']} steps of {BATCH} crops of {CROP} px, seeds {', '.join(map(str, seeds))}; "
            f"{first['scenes']} simulated test scenes, hazy {first['psnr_hazy']:.2f} dB.\n"
        )
    if missing:
        write(f"Not trained: {', '.join(missing)}.\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=list(ABLATIONS), default=list(ABLATIONS))
    parser.add_argument("--one", action="store_true", help="train one row with one seed, print nothing")
    args = parser.parse_args()
    if args.one:
        one(args.pack, args.out, args.rows[0], args.seeds[0], args.steps)
        return

    def run(job: tuple[str, int]) -> None:
        row, seed = job
        if (args.out / f"{row}-{seed}".replace(" ", "_") / "result.json").exists():
            return
        typed = [args.pack, "--out", args.out, "--steps", args.steps, "--one", "--rows", row, "--seeds", seed]
        command = [sys.executable, __file__, *map(str, typed)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    # all rows of one seed first: what is stopped early can still be compared
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(run, [(row, seed) for seed in args.seeds for row in args.rows]))
    files = sorted(args.out.glob("*/result.json"))
    found = [json.loads(path.read_text("utf-8")) for path in files]
    table([r for r in found if r["seed"] in args.seeds and r["steps"] == args.steps], args.seeds)


if __name__ == "__main__":
    main()
