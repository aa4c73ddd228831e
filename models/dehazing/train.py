"""Train DWTMA-Net on packed images within a budget of steps or minutes; resumable.

``python -m kestrel.models.dehazing.train PACK --out RUN --steps 2000``. PACK is the folder that
scripts/pack_dehazing.py wrote. RUN gets checkpoint.safetensors, log.csv, and when the budget is used
up average.safetensors and last.safetensors in half precision, with cards.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..task import ModelError
from .data import TRAINING, VALIDATION, Pairs, Sampler, load_pairs, load_scenes, simulated_pairs
from .network import PRESETS
from .recipe import SOURCES, UNMEASURED
from .simulate import TRAIN
from .trainer import Result, TrainConfig, train
from .weights import Start, describe, read_start, write_weights

log = logging.getLogger(__name__)
AVERAGE, LAST = "average.safetensors", "last.safetensors"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    base = TrainConfig()
    parser = argparse.ArgumentParser(prog="kestrel.models.dehazing.train", description=__doc__)
    parser.add_argument("pack", type=Path, help="folder of real.npz and clear.npz")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log and weights")
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--init", default="", help="weights (name or file) or checkpoint to start from")
    parser.add_argument("--steps", type=int, default=0, help="the budget; 0 = no limit")
    parser.add_argument("--minutes", type=float, default=0, help="a limit of time; 0 = none")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=96, help="side of the crops in pixels")
    parser.add_argument("--real-share", type=float, default=0.0, help="part of the crops from real pairs")
    parser.add_argument("--thinned", type=float, default=0.0, help="part of them with thinner haze")
    parser.add_argument("--toned", type=float, default=0.0, help="part of them made darker or brighter")
    parser.add_argument("--hold-out", type=int, default=-1, help="block of real pairs never seen; -1 = none")
    for name, words in (
        ("lr", "highest learning rate"),
        ("decay", "weight decay"),
        ("clip", "longest gradient"),
        ("checkpoint_seconds", "time between two checkpoints"),
    ):
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=float, default=getattr(base, name), help=words
        )
    for name, words in (
        ("seed", "of the network and of the crops"),
        ("warmup", "steps of the rising learning rate"),
        ("validations", "how often to measure the average on simulated validation scenes; 0 = never"),
    ):
        parser.add_argument(f"--{name}", type=int, default=getattr(base, name), help=words)
    parser.add_argument("--validation-scenes", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; another number, other rounding")
    parser.add_argument("--device", default=base.device)
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on from a checkpoint in --out (default); --no-resume starts over it",
    )
    return parser.parse_args(arguments)


def make_sampler(args: argparse.Namespace) -> Sampler:
    """Return the crops to learn from: simulated ones, real ones, or both; raises ModelError."""
    if not 0 <= args.real_share <= 1:
        raise ModelError(f"The share of real crops is {args.real_share:g}.", "Take a number from 0 to 1.")
    for name in ("thinned", "toned"):
        if not 0 <= getattr(args, name) <= 1:
            raise ModelError(f"--{name} is {getattr(args, name):g}.", "Take a number from 0 to 1.")
    scenes = [load_scenes(args.pack).part(TRAINING)] if args.real_share < 1 else []
    pairs = load_pairs(args.pack).without(args.hold_out) if args.real_share > 0 else None
    return Sampler(
        scenes,
        pairs,
        args.crop,
        args.batch,
        args.seed,
        args.real_share,
        TRAIN,
        thinned=args.thinned,
        toned=args.toned,
    )


def make_validation(args: argparse.Namespace) -> Pairs | None:
    """Return simulated pairs to watch, spread over the validation scenes: nothing is chosen by them."""
    if not (args.validations and args.validation_scenes):
        return None
    scenes = load_scenes(args.pack).part(VALIDATION)
    step = max(len(scenes) // args.validation_scenes, 1)
    return simulated_pairs(scenes[::step][: args.validation_scenes], TRAIN)


def data_of(sampler: Sampler) -> list[dict[str, Any]]:
    """The card's ``data``: the sources of the crops with their number of images."""
    found = []
    if sampler.scenes:
        found.append({**SOURCES["simulated"], "images": sum(map(len, sampler.scenes))})
    if sampler.pairs is not None:
        numbers = sorted(int(n) for n in sampler.pairs.number)
        found.append({**SOURCES["real"], "images": len(numbers), "numbers": _spans(numbers)})
    return found


def _spans(numbers: Sequence[int]) -> str:
    """Return whole numbers as text, runs joined: ``1-3, 5``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in runs)


def write_results(out: Path, result: Result, sampler: Sampler, start: Start | None, command: str) -> None:
    """Write the averaged and the last weights with preliminary cards."""
    figures: dict[str, Mapping[str, Any]] = {}
    if result.psnr is not None and result.before is not None:
        figures["simulated validation scenes, watched while training"] = {
            "psnr_db": round(result.psnr, 3),
            "psnr_db_hazy": round(result.before, 3),
        }
    note = f"started from {start.source}" if start else ""
    for name, net in ((AVERAGE, result.net), (LAST, result.last)):
        card = describe(
            net,
            name=f"dehazing_{out.name}",
            data=data_of(sampler),
            training=result.state,
            command=command,
            limits=UNMEASURED,
            figures=figures,
            note=note,
        )
        write_weights(out / name, net, card)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one training from the command line; returns 1 after an error in one sentence."""
    args = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    try:
        start = read_start(args.init) if args.init else None
        names = [n for n in TrainConfig.__dataclass_fields__ if hasattr(args, n)]
        config = TrainConfig(
            network=start.network if start else PRESETS[args.preset], **{n: getattr(args, n) for n in names}
        )
        sampler = make_sampler(args)
        log.info("%s", data_of(sampler))
        result = train(
            sampler,
            config,
            args.out,
            validation=make_validation(args),
            start=start.tensors if start else None,
            resume=args.resume,
        )
        typed = shlex.join(map(str, arguments if arguments is not None else sys.argv[1:]))
        command = f"PYTHONPATH=.kestrel/python python -m kestrel.models.dehazing.train {typed}"
        write_results(args.out, result, sampler, start, command)
    except ModelError as error:
        log.error("%s", f"{error.message} {error.hint}".strip())
        return 1
    log.info("%d steps in %.0f s, PSNR %s dB", result.step, result.seconds, result.psnr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
