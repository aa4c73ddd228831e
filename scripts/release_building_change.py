#!/usr/bin/env python3
"""Turn a training into the shipped building change weights: ``release_building_change.py FOLDER``.

FOLDER is that of scripts/train_building_change.py.

Takes the average that did best on the validation images (FOLDER/paper/best.safetensors; the training need
not have come to its end, the card says how far it came), sets the threshold on those images with the
numbers and tiles of the file, measures with benchmarks/building_change_accuracy.py and writes
resources/weights/building_change.safetensors, its card, manifest and docs/models/building_change.md.
``released`` only where F1 on the validation images leads the tuned change vectors with a 95 % interval
above 0. The scored quadrants are looked at once: a second run takes their figures from FOLDER.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.building_change.data import VALIDATION, load_pairs  # noqa: E402
from kestrel.models.building_change.network import SSANet  # noqa: E402
from kestrel.models.building_change.predict import STRIDE, TILE  # noqa: E402
from kestrel.models.building_change.recipe import SOURCES  # noqa: E402
from kestrel.models.building_change.trainer import (  # noqa: E402
    BEST,
    CHECKPOINT,
    Score,
    load_best,
    measure,
)
from kestrel.models.building_change.weights import (  # noqa: E402
    as_stored,
    describe,
    preset_of,
    write_weights,
)
from kestrel.models.manifest import FOLDER  # noqa: E402
from kestrel.models.training.checkpoint import read_state  # noqa: E402
from kestrel.models.weights import update_manifest  # noqa: E402

LOG = logging.getLogger("release_building_change")
NAME = "building_change"
#: The row of the benchmark's tables that is this file.
ROW = "network"
LIMITS = (
    "Where a building appeared or went, not which of both; the earlier date must be BEFORE. A short training "
    "on a CPU on 48 pictures of one region: suburbs in Texas at 0.5 m, 2002 to 2018, mostly new houses. "
    "Elsewhere, as on aerial pictures of Hungary (SZTAKI, whose label is not buildings alone), expect far "
    "less. Other seasons, deep shadows, leaning towers, bare building ground and dates that lie beside each "
    "other make false change. Probabilities depend on the tile, for the network takes statistics over it."
)
#: What a card shows of a row of the benchmark.
SHOWN = tuple(
    "precision recall f1 f1_interval iou kappa lead lead_interval object_precision object_recall object_f1 "
    "threshold".split()
)


def best_of(folder: Path) -> tuple[SSANet, dict[str, Any], Score]:
    """Return the best average of a training in eval mode, its state, and what it reached.

    The state's ``step`` is how far the training came; one that was killed has gone past its checkpoint.
    """
    state = read_state(folder / CHECKPOINT)
    net = SSANet(**state["network"])
    score = load_best(folder / BEST, net)
    state = {**state, "step": max(int(state["step"]), score.step), "best": dataclasses.asdict(score)}
    return net.eval(), state, score


def how_far(state: Mapping[str, Any]) -> str:
    """Say which step was taken and whether the training came to its end, for limits and note."""
    done, planned, best = int(state["step"]), int(state["config"]["steps"]), int(state["best"]["step"])
    taken = f"These are the averaged weights of step {best}, best of the validations."
    what = "The training"
    if state.get("start"):
        taken += " They are of the last part of a training, which began from the average of an earlier part."
        what = "This part"
    if not planned or done >= planned:
        return f"{taken} {what} ended after {done} steps as planned."
    return (
        f"{taken} {what} was stopped after at least {done} of {planned} steps, before its learning "
        "rate had fallen to 0."
    )


def command_of(state: Mapping[str, Any], threads: int) -> str:
    """Return what the training was called with, as its state knows it."""
    config, crops = state["config"], state["data"]
    return (
        f"python -m kestrel.models.building_change.train PACK --out FOLDER --preset "
        f"{preset_of(state['network'])} --steps {config['steps']} --batch {crops['batch']} --crop "
        f"{crops['crop']} --lr {config['lr']:g} --decay {config['decay']:g} --validations "
        f"{config['validations']} --seed {config['seed']} --threads {threads}; python "
        "scripts/release_building_change.py"
    )


def run_benchmark(pack: Path, weights: Path, part: str, out: Path, threads: int) -> dict[str, Any]:
    """Measure a weight file beside the baselines and return the figures, kept in ``out``."""
    command = [sys.executable, ROOT / "benchmarks" / "building_change_accuracy.py", pack, "--part", part]
    command += ["--network", f"{ROW}={weights}", "--json", out, "--threads", threads]
    subprocess.run([str(word) for word in command], check=True)
    return json.loads(out.read_text("utf-8"))


def scored_once(folder: Path, weights: Path, threads: int) -> dict[str, Any]:
    """Return the figures of the scored quadrants; exits where other weights have been scored already."""
    out, mark = folder / "scored.json", folder / "scored_sha256"
    # the card may change afterwards, the numbers may not
    sha256 = hashlib.sha256((folder / "paper" / BEST).read_bytes()).hexdigest()
    if mark.exists() and mark.read_text("utf-8") != sha256:
        raise SystemExit(
            f"{out} holds the figures of other weights, and the scored images are looked at once: choose "
            f"by the validation images. To score again nevertheless, remove {mark} and say so in --note."
        )
    if not out.exists() or not mark.exists():
        run_benchmark(folder / "pack", weights, "scored", out, threads)
        mark.write_text(sha256, "utf-8")
    return json.loads(out.read_text("utf-8"))


def beats_baseline(validation: Mapping[str, Any]) -> bool:
    """Whether F1 on LEVIR leads the tuned change vectors, the whole interval above 0."""
    (levir,) = (rows for title, rows in validation.items() if title.startswith("LEVIR"))
    interval = levir[ROW]["lead_interval"]
    return interval is not None and interval[0] > 0


def for_card(*measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures as the card holds them, split -> method -> numbers; a split stands once."""
    found = {}
    for figures in measured:
        for split, rows in figures.items():
            found[split] = {method: {key: row[key] for key in SHOWN} for method, row in rows.items()}
    return found


def reached(scored: Mapping[str, Any]) -> str:
    """Return a sentence on what the scored quadrants say."""
    (row,) = (rows[ROW] for title, rows in scored.items() if title.startswith("LEVIR"))
    low, high = row["f1_interval"] or (row["f1"], row["f1"])
    return (
        f"On unseen images of the same region it finds {row['recall']:.0%} of the changed pixels, and "
        f"{row['precision']:.0%} of what it marks is change (F1 {row['f1']:.2f}, 95 % {low:.2f} to "
        f"{high:.2f})."
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder given to train_building_change.py")
    parser.add_argument("--command", default="", help="how to make these weights again, if otherwise")
    parser.add_argument("--note", default="", help="what command and figures do not say")
    parser.add_argument("--version", default="1")
    parser.add_argument("--threads", type=int, default=1, help="the training's; the benchmark uses as many")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)

    net, state, _ = best_of(args.folder / "paper")
    stored = as_stored(net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    validation = load_pairs(args.folder / "pack").only(VALIDATION)
    threshold, _ = measure(stored, validation, state["mean"], state["std"], TILE, STRIDE).best()
    note = (
        "Epoch and threshold were chosen on the 8 validation quadrants, where the figures are too good for "
        "it; the 15 scored ones were looked at once, after that. The learning rate is not the paper's 1e-4, "
        "which goes too slowly for so few steps."
    )
    card = describe(
        net,
        name=NAME,
        data=SOURCES,
        training=state,
        threshold=threshold,
        command=args.command or command_of(state, args.threads),
        limits=f"{LIMITS} {how_far(state)}",
        version=args.version,
        note=" ".join(filter(None, [note, how_far(state), args.note])),
    )
    extra = {**card.extra, "steps_planned": int(state["config"]["steps"])}
    card = dataclasses.replace(card, extra=extra)
    # the same numbers under a card without figures: nothing is shipped before it is measured
    path = args.folder / f"{NAME}.safetensors"
    write_weights(path, net, card)
    seen = run_benchmark(args.folder / "pack", path, "validation", args.folder / "chosen.json", args.threads)
    scored = scored_once(args.folder, path, args.threads)
    status = "released" if beats_baseline(seen) else "preliminary"
    limits = f"{reached(scored)} {card.limits}"
    card = dataclasses.replace(card, figures=for_card(seen, scored), status=status, limits=limits)
    path = FOLDER / path.name
    sha256 = write_weights(path, net, card)
    update_manifest(path, NAME)
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make_cards.py")], check=True)
    LOG.info("%s %s %d bytes %s", path.name, status, path.stat().st_size, sha256)


if __name__ == "__main__":
    main()
