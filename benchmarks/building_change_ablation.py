"""What CSHConv and SSIF add: the rows of the paper's Table 3, trained by ours.

``python benchmarks/building_change_ablation.py FOLDER`` reads what ``scripts/train_building_change.py FOLDER
--until ablation`` trained - every row from random numbers with the same steps, seeds and crops - and prints a
Markdown table. Rows without all seeds are named.

Ours in every respect but the switches: preset ``small`` (half the widths), crops of 64 px, far fewer steps
than a paper's, LEVIR. Figures are those of the averaged weights after the last step, on the 8 validation
quadrants at the threshold that does best there; the scored quadrants are not looked at. +- is the standard
deviation over seeds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.building_change.complexity import parameters  # noqa: E402
from kestrel.models.building_change.network import SSANet  # noqa: E402
from kestrel.models.building_change.recipe import ABLATION_SEEDS, ABLATIONS  # noqa: E402
from kestrel.models.building_change.trainer import CHECKPOINT, LOG  # noqa: E402
from kestrel.models.training.checkpoint import read_state  # noqa: E402
from kestrel.models.training.log import read_rows  # noqa: E402

FULL = "ssanet"
#: The rows as the paper's Table 3 calls them.
NAMES = {
    "backbone": "Backbone",
    "csh": "Backbone + CSHConv",
    "ssif": "Backbone + SSIF",
    FULL: "SSA-Net",
}
KEYS = ("f1", "precision", "recall")


def last_scores(folder: Path) -> dict[str, float] | None:
    """Return the last validation of a training that came to its end, else None."""
    if not (folder / CHECKPOINT).exists():
        return None
    state = read_state(folder / CHECKPOINT)
    if int(state["step"]) < int(state["config"]["steps"]):
        return None
    row = read_rows(folder / LOG)[-1]
    network = SSANet(**state["network"])
    return {
        **{key: row[key] for key in KEYS},
        "seconds": float(state["seconds"]),
        "parameters": parameters(network),
        "steps": int(state["step"]),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder given to train_building_change.py")
    folder = parser.parse_args().folder / "ablation"
    write = sys.stdout.write
    rows, missing = {}, []
    for name in ABLATIONS:
        found = [scores for seed in ABLATION_SEEDS if (scores := last_scores(folder / f"{name}_{seed}"))]
        if len(found) < len(ABLATION_SEEDS):
            missing.append(NAMES[name])
        else:
            rows[name] = found
    write("| `small`, ours | parameters | F1 | precision | recall | F1 beside SSA-Net | s per training |\n")
    write("|---|---:|---:|---:|---:|---:|---:|\n")
    full = [scores["f1"] for scores in rows.get(FULL, [])]
    for name, found in rows.items():
        mean = {key: statistics.mean(scores[key] for scores in found) for key in (*KEYS, "seconds")}
        spread = statistics.stdev(scores["f1"] for scores in found)
        beside = f"{mean['f1'] - statistics.mean(full):+.3f}" if full else "-"
        write(
            f"| {NAMES[name]} | {int(found[0]['parameters']):,} | {mean['f1']:.3f} +- {spread:.3f} "
            f"| {mean['precision']:.3f} | {mean['recall']:.3f} | {beside} | {mean['seconds']:.0f} |\n"
        )
    if missing:
        write(f"Not trained with all seeds: {', '.join(missing)}.\n")


if __name__ == "__main__":
    main()
