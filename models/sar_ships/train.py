"""Train the ship detector on packed chips, within a budget of minutes or steps; resumable.

``python -m kestrel.models.sar_ships.train --data a.npz b.npz --out DIR --minutes 60``
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..task import ModelError
from .assign import fit_anchors
from .attention import ATTENTIONS
from .boxes import select
from .checkpoint import load_checkpoint, save_checkpoint
from .dataset import Packed, batches, draw_weights, join, load_packed, padded, spread, to_tensor
from .head import HEADS, OBJ_BRANCHES
from .loss import BOX_LOSSES, DetectionLoss, momentum_for
from .metrics import Scores, evaluate
from .network import DEFAULT_ANCHORS, SarShipNet
from .schedule import Ema, apply_rates, make_optimiser, rates

log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.safetensors"
COLUMNS = (
    "step",
    "seconds",
    "progress",
    "lr",
    "loss",
    "box",
    "obj",
    "cls",
    "positives",
    "iou_mean",
    "ap50",
    "ap",
    "recall",
)
#: Gradients longer than this are shortened; YOLOv5 clips at the same length.
MAX_GRADIENT = 10.0


@dataclass(frozen=True)
class TrainConfig:
    """One training. The budget is ``steps`` if given, else ``minutes``; the schedule ends with it.

    ``shares``: part of all draws that a source gets (dataset.draw_weights). ``decay`` is for a
    nominal batch of 64 and scales with the batch.
    """

    image_size: int = 256
    batch: int = 16
    minutes: float = 60.0
    steps: int = 0
    seed: int = 0
    lr: float = 0.01
    momentum: float = 0.937
    decay: float = 0.0005
    warmup: int = 100
    width: float = 0.25
    depth: float = 0.33
    attention: str = "shuffle"
    head: str = "context"
    obj_branch: str = "sce"
    box_loss: str = "wiou3"
    shares: dict[str, float] = field(default_factory=dict)
    device: str = "cpu"
    checkpoint_seconds: float = 180.0
    validations: int = 5
    validation_chips: int = 64


@torch.inference_mode()
def propose(net: SarShipNet, chip: np.ndarray, device: str = "cpu") -> Tensor:
    """Candidates (1, M, 5: x, y, w, h, score) of one uint8 chip (H, W), padded as at inference."""
    return net.candidates(net(to_tensor(padded(chip, net.multiple)[None]).to(device)))


def choose(
    candidates: Tensor, shape: tuple[int, int], *, confidence: float, nms_iou: float, limit: int
) -> np.ndarray:
    """Boxes (n, 5: corners, score) of one chip: selected, centred in the chip, cut at its edges."""
    found = select(candidates, confidence=confidence, nms_iou=nms_iou, limit=limit)[0]
    height, width = shape
    centre = (found[:, :2] + found[:, 2:4]) / 2
    found = found[(centre < [width, height]).all(axis=1)]
    found[:, [0, 2]] = found[:, [0, 2]].clip(0, width)
    found[:, [1, 3]] = found[:, [1, 3]].clip(0, height)
    return found


def detect(
    net: SarShipNet,
    chips: Sequence[np.ndarray],
    *,
    confidence: float,
    nms_iou: float,
    limit: int,
    device: str = "cpu",
) -> list[np.ndarray]:
    """Boxes (n, 5: corners, score) of every uint8 chip (H, W), one forward pass each."""
    return [
        choose(
            propose(net, chip, device),
            (chip.shape[0], chip.shape[1]),
            confidence=confidence,
            nms_iou=nms_iou,
            limit=limit,
        )
        for chip in chips
    ]


def validate(net: SarShipNet, data: Packed, device: str) -> Scores:
    """COCO scores of ``data`` with YOLOv5's evaluation settings (score 0.001, IoU 0.6, 300 boxes)."""
    found = detect(net, list(data.chips), confidence=0.001, nms_iou=0.6, limit=300, device=device)
    return evaluate(found, [data.boxes_of(i) for i in range(len(data))])


def build_network(config: TrainConfig, data: Packed) -> SarShipNet:
    """The network of ``config``, with anchors that reach at least 98 % of the training boxes.

    Boxes are measured in half, full and one and a half size, as augmentation shows them.
    """
    sides = data.boxes[:, 2:] - data.boxes[:, :2]
    torch.manual_seed(config.seed)
    default = torch.tensor(DEFAULT_ANCHORS, dtype=torch.float64).numpy()
    anchors, recall = fit_anchors(sides, default, config.seed)
    log.info("anchors %s reach %.4f of %d boxes", anchors.tolist(), recall, len(sides))
    return SarShipNet(
        width=config.width,
        depth=config.depth,
        attention=config.attention,
        head=config.head,
        obj_branch=config.obj_branch,
        anchors=anchors.tolist(),
    )


def train(
    config: TrainConfig,
    data: Packed,
    validation: Packed | None,
    out: Path,
    *,
    resume: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[SarShipNet, dict[str, Any]]:
    """Train and return the averaged network and the final state (step, seconds, scores).

    Writes ``checkpoint.safetensors`` and ``log.csv`` into ``out``. A checkpoint of the same
    configuration there is resumed; one of another raises ModelError. ``stop`` is asked after
    every step; a stopped run leaves its checkpoint.
    """
    if config.image_size % 64:
        raise ModelError(f"The image size {config.image_size} is not a multiple of 64.", "Choose 256 or 320.")
    out.mkdir(parents=True, exist_ok=True)
    net = build_network(config, data).to(config.device)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in torch's stubs
    loss_of = DetectionLoss(net, config.box_loss).to(config.device)
    decay = config.decay * config.batch / 64
    optimiser = make_optimiser(net, lr=config.lr, momentum=config.momentum, decay=decay)
    ema = Ema(net)
    amp = torch.amp.GradScaler(enabled=config.device.startswith("cuda"))
    asked = json.loads(json.dumps(asdict(config)))
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "config": asked, "network": net.config}
    path = out / CHECKPOINT
    if resume and path.exists():
        state = load_checkpoint(path, net, ema, optimiser, loss_of)
        if state["config"] != asked or state["network"] != net.config:
            raise ModelError(f"{path} belongs to another training.", "Choose an empty folder.")
        log.info("resumed at step %d after %.0f s", state["step"], state["seconds"])

    weights = draw_weights(data, config.shares)
    check = None if validation is None else spread(validation, config.validation_chips)
    source = batches(data, weights, config.image_size, config.batch, config.seed, state["step"])
    net.train()
    loss_of.train()
    step, used, started = int(state["step"]), float(state["seconds"]), time.monotonic()
    saved = logged = started
    sums: dict[str, float] = {}
    since = 0
    validated = int(progress_of(config, step, used) * config.validations)

    def snapshot() -> None:
        state.update(step=step, seconds=used + time.monotonic() - started)
        save_checkpoint(path, net, ema, optimiser, loss_of, state)

    while True:
        seconds = used + time.monotonic() - started
        progress = progress_of(config, step, seconds)
        if progress >= 1 or stop():
            break
        images, targets = next(source)
        images, targets = images.to(config.device, non_blocking=True), targets.to(config.device)
        now = rates(step, progress, lr=config.lr, momentum=config.momentum, warmup=config.warmup)
        apply_rates(optimiser, now)
        # the length of the run is known only by its speed: what is left scales with what is done
        loss_of.box.momentum = momentum_for(config.steps or max(step, 1) / max(progress, 1e-3))
        with torch.autocast(config.device.partition(":")[0], enabled=amp.is_enabled()):
            raw = net(images)
        loss, parts = loss_of(raw, targets)
        optimiser.zero_grad(set_to_none=True)
        amp.scale(loss).backward()
        amp.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(net.parameters(), MAX_GRADIENT)
        amp.step(optimiser)
        amp.update()
        ema.update(net)
        step, since = step + 1, since + 1
        for name, value in {**parts, "loss": loss.item() / config.batch}.items():
            sums[name] = sums.get(name, 0.0) + value
        clock = time.monotonic()
        due = int(progress * config.validations) > validated
        if due or clock - logged > 20 or step == config.steps:
            row = {k: v / since for k, v in sums.items()}
            row |= {"step": step, "seconds": used + clock - started, "progress": progress, "lr": now.lr}
            row["iou_mean"] = float(loss_of.box.mean)
            if due and check is not None:
                scores = validate(ema.net, check, config.device)
                row |= {"ap50": scores.ap50, "ap": scores.ap, "recall": scores.recall_at}
            validated = int(progress * config.validations)
            append_row(out / "log.csv", row)
            log.info(" ".join(f"{k} {row[k]:.4g}" for k in COLUMNS if k in row))
            sums, since, logged = {}, 0, clock
        if clock - saved > config.checkpoint_seconds:
            snapshot()
            saved = clock
    snapshot()
    if check is not None:
        state["scores"] = asdict(validate(ema.net, check, config.device))
        log.info("last average on %d validation chips: %s", len(check), state["scores"])
    return ema.net, state


def progress_of(config: TrainConfig, step: int, seconds: float) -> float:
    """Part of the budget used up, 0..1 and beyond."""
    return step / config.steps if config.steps else seconds / (60 * config.minutes)


def append_row(path: Path, row: dict[str, float]) -> None:
    """Add one line to the csv log, with a header if it is new."""
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if fresh:
            writer.writeheader()
        writer.writerow({k: f"{v:.6g}" for k, v in row.items()})


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
