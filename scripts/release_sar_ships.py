#!/usr/bin/env python3
"""Turn a training's checkpoint into the shipped weights of the ship detector.

``release_sar_ships.py CHECKPOINT PACKED --command "..."``: takes the last averaged weights, writes
resources/weights/sar_ships.safetensors in half precision, measures that file on the val_*.npz in
PACKED with benchmarks/sar_ships_accuracy.py, writes card and manifest. ``released`` only where it beats
the CFAR's AP50 on every validation part that has one.
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

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.manifest import FOLDER  # noqa: E402
from kestrel.models.sar_ships.complexity import parameters  # noqa: E402
from kestrel.models.sar_ships.dataset import load_packed  # noqa: E402
from kestrel.models.sar_ships.network import SarShipNet  # noqa: E402
from kestrel.models.task import Card  # noqa: E402
from kestrel.models.training.checkpoint import load_average, read_state  # noqa: E402
from kestrel.models.weights import save_weights, update_manifest  # noqa: E402

LOG = logging.getLogger("release_sar_ships")
NAME = "sar_ships"
#: What each source of the training chips is, and its licence as found beside the data.
SOURCES = {
    "simulated": {
        "what": "SAR scenes of 1 to 20 m simulated by kestrel.models.sar_ships.simulate",
        "licence": "GPL-2.0-or-later (own)",
        "real": False,
    },
    "opensarship": {
        "what": "Sentinel-1 ships of the OpenSARShip scenes 20160131T204259 and 20150902T102505, cut out and "
        "pasted on simulated clutter at 10 m; contains Copernicus Sentinel data 2015-2016",
        "licence": "none stated in the repository; OpenSARShip is free for research (Huang et al. 2018)",
        "real": True,
    },
    "hrsid_mini36": {
        "what": "crops of HRSID chips of the scenes P0001 to P0016, boxes from masks",
        "licence": "repository Apache-2.0; the original HRSID repository carries GPL-3.0",
        "real": True,
    },
}
LIMITS = (
    "A first, short training on a CPU, mostly on simulated scenes. At 10 m it finds most ships from 14 px "
    "(140 m) on, but misses half of those under 9 px. Open sea at 10 m is tested on real ships "
    "pasted on simulated clutter only; harbours and coasts on four HRSID chips, where it misses more than "
    "half and reports many bright structures on land and quays: use LAND_MASK. Boxes lie along the pixel "
    "axes, so their sides are not a ship's length and beam. Not tested on Gaofen-3, ALOS or sea ice."
)


def data_of(paths: list[Path]) -> tuple[dict[str, Any], ...]:
    """The card's ``data``: each source with its number of chips and ships in the training files."""
    entries: dict[str, dict[str, Any]] = {}
    for path in paths:
        packed = load_packed(path)
        for index, name in enumerate(packed.sources):
            chips = np.nonzero(packed.source == index)[0]
            ships = int(sum(len(packed.boxes_of(int(i))) for i in chips))
            entry = entries.setdefault(name, {"source": name, **SOURCES[name], "chips": 0, "ships": 0})
            entry["chips"], entry["ships"] = max(entry["chips"], len(chips)), max(entry["ships"], ships)
    return tuple(entries.values())


def measure(packed: Path, weights: Path, out: Path) -> dict[str, Any]:
    """Run the accuracy benchmark on the weight file and return its figures."""
    command = [sys.executable, str(ROOT / "benchmarks" / "sar_ships_accuracy.py"), str(packed)]
    subprocess.run([*command, "--weights", str(weights), "--json", str(out)], check=True)
    return json.loads(out.read_text("utf-8"))


def beats_baseline(figures: dict[str, Any]) -> bool:
    """Whether the network's AP50 is above the CFAR's on every whole part that has one."""
    parts = [s for s, f in figures["network"].items() if f["ap50"] is not None and ", chip " not in s]
    return bool(parts) and all(figures["network"][s]["ap50"] > figures["cfar"][s]["ap50"] for s in parts)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="checkpoint.safetensors of the training")
    parser.add_argument("packed", type=Path, help="folder with the val_*.npz")
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="the training files")
    parser.add_argument("--command", required=True, help="how to make these weights again")
    parser.add_argument("--note", default="", help="what the command does not say")
    parser.add_argument("--version", default="1")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    state = read_state(args.checkpoint)
    net = SarShipNet(**state["network"])
    load_average(args.checkpoint, net)
    config = state["config"]
    card = Card(
        name=NAME,
        version=args.version,
        paper="01: An Enhanced Shuffle Attention with Context Decoupling Head with Wise IoU Loss for SAR "
        "Ship Detection",
        preset="paper",
        parameters=parameters(net),
        classes=("ship",),
        bands=1,
        gsd=(1.0, 20.0),
        scaling="grey 0..1: 8 bit as is, or the whole scene's 1-99.5 % stretch, or decibels -25..5",
        tile=640,
        data=data_of(args.train),
        seed=int(config["seed"]),
        command=args.command,
        figures={},
        limits=LIMITS,
        status="preliminary",
        extra={
            "config": net.config,
            "training": config,
            "steps": state["step"],
            "images_seen": state["step"] * config["batch"],
            "seconds": round(state["seconds"]),
            "note": args.note,
        },
    )
    path = FOLDER / f"{NAME}.safetensors"
    buffers = dict(net.named_buffers())
    save_weights(path, net.state_dict(), card, buffers)
    figures = measure(args.packed, path, args.checkpoint.with_name("accuracy.json"))
    status = "released" if beats_baseline(figures) else "preliminary"
    # the same numbers again: only the card gains its figures
    sha256 = save_weights(
        path, net.state_dict(), dataclasses.replace(card, figures=figures, status=status), buffers
    )
    update_manifest(path, NAME)
    LOG.info("%s %s %d bytes %s", path.name, status, path.stat().st_size, sha256)


if __name__ == "__main__":
    main()
