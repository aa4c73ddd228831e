"""Train the ship detector on packed chips, within a budget of minutes or steps; resumable.

``python -m kestrel.models.sar_ships.train --data a.npz b.npz --out DIR --minutes 60``
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from .attention import ATTENTIONS
from .dataset import join, load_packed
from .head import HEADS, OBJ_BRANCHES
from .loss import BOX_LOSSES
from .trainer import TrainConfig, train

log = logging.getLogger(__name__)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    base = TrainConfig()
    parser = argparse.ArgumentParser(prog="kestrel.models.sar_ships.train", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="packed training chips (.npz)")
    parser.add_argument("--val", type=Path, nargs="*", default=[], help="packed chips watched while training")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and log")
    parser.add_argument("--no-resume", action="store_true", help="start anew over an old checkpoint")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument(
        "--share", action="append", default=[], metavar="SOURCE=PART", help="part of all draws for a source"
    )
    for name in ("image_size", "batch", "steps", "seed", "warmup", "validations", "validation_chips"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(base, name))
    for name in ("minutes", "lr", "momentum", "decay", "width", "depth", "checkpoint_seconds"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(base, name))
    parser.add_argument("--attention", choices=ATTENTIONS, default=base.attention)
    parser.add_argument("--head", choices=HEADS, default=base.head)
    parser.add_argument("--obj-branch", choices=OBJ_BRANCHES, default=base.obj_branch)
    parser.add_argument("--box-loss", choices=BOX_LOSSES, default=base.box_loss)
    parser.add_argument("--device", default=base.device)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one training from the command line."""
    args = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    shares = {name: float(part) for name, _, part in (s.partition("=") for s in args.share)}
    names = [n for n in TrainConfig.__dataclass_fields__ if n != "shares"]
    config = TrainConfig(**{n: getattr(args, n) for n in names}, shares=shares)
    data = join([load_packed(p) for p in args.data])
    log.info("%d chips, %d boxes, sources %s", len(data), len(data.boxes), data.sources)
    check = join([load_packed(p) for p in args.val]) if args.val else None
    train(config, data, check, args.out, resume=not args.no_resume)


if __name__ == "__main__":
    main()
