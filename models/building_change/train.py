"""Train SSA-Net on packed pairs within a budget of steps or minutes; resumable.

``python -m kestrel.models.building_change.train PACK --out RUN --steps 3000``. PACK is the folder that
scripts/pack_building_change.py wrote; its training part is learnt, its validation part chooses the epoch
and the threshold, its scored part is not read. RUN gets checkpoint.safetensors, log.csv and
best.safetensors, the average that did best on the validation part.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..task import ModelError
from ..training.checkpoint import read_state
from .data import PLAIN, TRAINING, VALIDATION, Mix, Sampler, load_pairs
from .network import PRESETS, SSANet
from .trainer import CHECKPOINT, Events, Progress, TrainConfig, train
from .weights import Start, preset_of, read_start

log = logging.getLogger(__name__)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    base = TrainConfig()
    parser = argparse.ArgumentParser(prog="kestrel.models.building_change.train", description=__doc__)
    parser.add_argument("pack", type=Path, help="folder of levir.npz")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log and weights")
    parser.add_argument("--preset", choices=PRESETS, default="paper")
    for switch, words in (("csh", "CSHConv, else plain convolutions"), ("ssif", "SSIF, else no attention")):
        parser.add_argument(f"--{switch}", action=argparse.BooleanOptionalAction, default=True, help=words)
    parser.add_argument("--init", default="", help="weights or checkpoint to begin from, of the same preset")
    parser.add_argument("--steps", type=int, default=0, help="the budget; 0 = no limit")
    parser.add_argument(
        "--stop-after", type=int, default=0, help="end at this step as an interruption would; 0 = never"
    )
    parser.add_argument("--minutes", type=float, default=0, help="a limit of time; 0 = none")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128, help="side of the crops in pixels")
    parser.add_argument(
        "--augment",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="other light, misregistration, set-in buildings; without: flips and quarter turns only",
    )
    parser.add_argument("--lr", type=float, default=base.lr, help="highest learning rate; the paper: 1e-4")
    parser.add_argument("--decay", type=float, default=base.decay, help="weight decay")
    parser.add_argument("--seed", type=int, default=base.seed, help="of the network and of the crops")
    parser.add_argument(
        "--validations",
        type=int,
        default=base.validations,
        help="how often to measure the average; 0 = never",
    )
    parser.add_argument("--checkpoint-seconds", type=float, default=base.checkpoint_seconds)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; another number, other rounding")
    parser.add_argument("--device", default=base.device)
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on from a checkpoint in --out (default); --no-resume starts over it",
    )
    return parser.parse_args(arguments)


def begin_from(typed: str, network: Mapping[str, Any]) -> Start:
    """Read the weights to begin from; raises ModelError where they are another network's."""
    start = read_start(typed)
    if start.network != SSANet(**network).config:
        raise ModelError(
            f"{Path(typed).name} holds the network {preset_of(start.network)}, not the one asked for.",
            "Choose its preset and switches.",
        )
    return start


def _steps_done(out: Path) -> int:
    """Return how far a training to be resumed has come, 0 where there is none."""
    return int(read_state(out / CHECKPOINT)["step"]) if (out / CHECKPOINT).exists() else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one training from the command line; returns 1 after an error in one sentence."""
    args = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    try:
        names = [n for n in TrainConfig.__dataclass_fields__ if hasattr(args, n)]
        network = {**PRESETS[args.preset], "use_csh": args.csh, "use_ssif": args.ssif}
        config = TrainConfig(network=network, **{n: getattr(args, n) for n in names})
        pairs = load_pairs(args.pack)
        mix = Mix() if args.augment else PLAIN
        sampler = Sampler(pairs.only(TRAINING), args.crop, args.batch, args.seed, mix)
        validation = pairs.only(VALIDATION)
        log.info("%d pairs to learn from, %d to choose by", len(sampler.pairs), len(validation))
        start = begin_from(args.init, network) if args.init else None
        done = _steps_done(args.out) if args.resume else 0

        def heard(now: Progress) -> None:
            nonlocal done
            done = now.step

        result = train(
            sampler,
            config,
            args.out,
            validation=validation,
            start=start.tensors if start else None,
            normal=start.normal if start else None,
            events=Events(heard, lambda: 0 < args.stop_after <= done),
            resume=args.resume,
        )
    except ModelError as error:
        log.error("%s", f"{error.message} {error.hint}".strip())
        return 1
    log.info("%d steps in %.0f s, best %s", result.step, result.seconds, result.best)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
