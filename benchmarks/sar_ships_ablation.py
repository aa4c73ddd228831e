"""The paper's ablations as short runs of equal length, so that its switches can be compared here.

``python benchmarks/sar_ships_ablation.py FOLDER --out DIR`` reads train.npz and the val_*.npz of
scripts/pack_sar_ships.py, trains every row of the paper's tables 2, 6 and 8 and of our own switches with
the same number of steps, the same crops (the batches of a seed are the same in all rows) and three seeds,
and prints a Markdown table of mean and standard deviation over the seeds.

What this can and cannot say: the paper trained 400 epochs on all of HRSID; these are some hundred steps
from a random start on small, mostly simulated data. The paper's AP50 stands beside each row only to show
what it claims. A difference between two rows that is smaller than the spread over the seeds is none.

Every finished run is kept in DIR/results.json under its row and seed; called again, only what is missing
runs, and a run that was interrupted goes on from its checkpoint. Results of other steps, sizes or data
are refused, not mixed.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import math
import os
import shutil
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.sar_ships.dataset import Packed, load_packed  # noqa: E402
from kestrel.models.sar_ships.train import TrainConfig, train, validate  # noqa: E402

log = logging.getLogger("ablation")


@dataclass(frozen=True)
class Row:
    """One network and loss. ``paper_ap50``: HRSID, as printed in the paper's table, or None."""

    table: str
    box_loss: str = "wiou3"
    attention: str = "shuffle"
    head: str = "context"
    obj_branch: str = "sce"
    paper_ap50: float | None = None

    @property
    def name(self) -> str:
        """The row's key in results.json."""
        branch = "" if self.obj_branch == "sce" else f"-{self.obj_branch}"
        return f"{self.box_loss}-{self.attention}-{self.head}{branch}"


ROWS = (
    Row("2", "ciou", "none", "coupled", paper_ap50=93.4),
    Row("2", "wiou3", "none", "coupled", paper_ap50=93.8),
    Row("2", "ciou", "shuffle", "coupled", paper_ap50=93.8),
    Row("2", "ciou", "none", "context", paper_ap50=94.1),
    Row("2", "wiou3", "shuffle", "coupled", paper_ap50=94.2),
    Row("2", "wiou3", "none", "context", paper_ap50=94.3),
    Row("2", "ciou", "shuffle", "context", paper_ap50=94.3),
    Row("2", "wiou3", "shuffle", "context", paper_ap50=94.5),
    Row("6", attention="se", paper_ap50=94.1),
    Row("6", attention="cbam", paper_ap50=94.2),
    Row("6", attention="eca", paper_ap50=94.1),
    Row("6", attention="coord", paper_ap50=94.3),
    Row("6", attention="sim", paper_ap50=94.1),
    Row("8", head="decoupled", paper_ap50=94.2),
    Row("own", box_loss="wiou1"),
    Row("own", box_loss="wiou2"),
    Row("own", obj_branch="dpe"),
)

#: Validation file -> how it is called. mini36 is missing: its labels do not allow AP.
PARTS = {
    "val_sim10.npz": "simulated 10 m",
    "val_sim3.npz": "simulated 3 m",
    "val_opensar.npz": "OpenSARShip on simulated clutter",
    "val_hrsid4.npz": "HRSID official4 (4 chips)",
}


def run_row(
    row: Row, base: TrainConfig, data: Packed, parts: Mapping[str, Packed], out: Path
) -> dict[str, Any]:
    """Train one row with one seed (of ``base``) and return its figures by validation part."""
    switches = {k: getattr(row, k) for k in ("box_loss", "attention", "head", "obj_branch")}
    config = dataclasses.replace(base, **switches)
    folder = out / f"{row.name}-{base.seed}"
    started = time.monotonic()
    net, state = train(config, data, None, folder)
    trained = time.monotonic() - started
    figures: dict[str, Any] = {}
    for name, part in parts.items():
        scores = validate(net, part, base.device)
        figures[name] = {"ap50": scores.ap50, "ap50_95": scores.ap, "f1": scores.f1}
    shutil.rmtree(folder)  # the checkpoint: only an interrupted run needs it
    return {
        "figures": figures,
        "seconds": round(trained),
        "step": state["step"],
        "anchors": net.config["anchors"],
    }


def protocol(base: TrainConfig, folder: Path, parts: Mapping[str, Packed]) -> dict[str, Any]:
    """What must be equal for two runs to be comparable: settings but the seed, and the data's hashes."""
    settings = {k: v for k, v in dataclasses.asdict(base).items() if k != "seed"}
    files = ["train.npz", *parts]
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()[:16] for name in files}
    return json.loads(json.dumps({"settings": settings, "data": hashes, "torch": torch.__version__}))


def read_results(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the results so far; leaves with a sentence where they followed another protocol."""
    if not path.exists():
        return {"protocol": wanted, "runs": {}}
    results = json.loads(path.read_text("utf-8"))
    if results["protocol"] != wanted:
        sys.exit(f"{path} was measured with other settings or data; choose another --out.")
    return results


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Replace results.json in one step, so that an interruption cannot damage it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1), encoding="utf-8")
    os.replace(part, path)


def as_table(results: dict[str, Any], parts: Mapping[str, Any]) -> str:
    """Markdown: one line a row, mean and standard deviation (n - 1) over its seeds, AP50 in percent."""
    heads = " | ".join(f"AP50 {PARTS[name]}" for name in parts)
    lines = [
        f"| table | loss | attention | head | seeds | {heads} | paper, HRSID, 400 epochs |",
        "|---|---|---|---|---:|" + "---:|" * (len(parts) + 1),
    ]
    for row in ROWS:
        runs = list(results["runs"].get(row.name, {}).values())
        cells = [_spread([100 * run["figures"][name]["ap50"] for run in runs]) for name in parts]
        head = row.head if row.obj_branch == "sce" else f"{row.head}, objectness in {row.obj_branch}"
        paper = "-" if row.paper_ap50 is None else f"{row.paper_ap50:.1f}"
        lines.append(
            f"| {row.table} | {row.box_loss} | {row.attention} | {head} | {len(runs)} | "
            f"{' | '.join(cells)} | {paper} |"
        )
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return "-"
    if len(known) == 1:
        return f"{known[0]:.1f}"
    return f"{statistics.mean(known):.1f} ± {statistics.stdev(known):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, help="holds train.npz and val_*.npz of scripts/pack_sar_ships.py"
    )
    parser.add_argument("--out", type=Path, required=True, help="results.json and checkpoints go here")
    parser.add_argument("--steps", type=int, default=600, help="steps of every run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], metavar="ROW", help="names as in results.json")
    args = parser.parse_args()
    unknown = sorted(set(args.only) - {row.name for row in ROWS})
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(row.name for row in ROWS)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    data = load_packed(args.folder / "train.npz")
    parts = {name: load_packed(args.folder / name) for name in PARTS if (args.folder / name).exists()}
    base = TrainConfig(
        image_size=args.image_size, batch=args.batch, steps=args.steps, device=args.device, validations=1
    )
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.json"
    results = read_results(path, protocol(base, args.folder, parts))
    # all rows with the first seed before any with the second: an unfinished table is still a table
    for seed in range(args.seeds):
        for row in ROWS:
            done = results["runs"].setdefault(row.name, {})
            if str(seed) in done or (args.only and row.name not in args.only):
                continue
            log.info("%s, seed %d", row.name, seed)
            done[str(seed)] = run_row(row, dataclasses.replace(base, seed=seed), data, parts, args.out)
            write_results(path, results)
    sys.stdout.write(as_table(results, parts) + "\n")


if __name__ == "__main__":
    main()
