"""Accuracy of the shipped ship detector and of the CFAR on the validation parts, each source apart.

``python benchmarks/sar_ships_accuracy.py FOLDER`` reads the val_*.npz of scripts/pack_sar_ships.py,
runs both detectors on the same whole chips (the network's padded with 114/255 to a multiple of 64)
and prints a Markdown table; ``--json FILE`` keeps the figures. Simulated parts are named so. On mini36
only recall is counted: its labels are incomplete.

AP: detections from score 0.001, suppression at IoU 0.6, 300 a chip. Recall and precision at
CONFIDENCE: as a user runs it, suppression at IoU 0.45. The CFAR has no confidence: all it finds counts.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.registry import builder  # noqa: E402
from kestrel.models.sar_ships.dataset import Packed, load_packed  # noqa: E402
from kestrel.models.sar_ships.detect import choose, propose  # noqa: E402
from kestrel.models.sar_ships.metrics import Scores, evaluate  # noqa: E402
from kestrel.models.sar_ships.task import build_network  # noqa: E402
from kestrel.models.task import SceneInfo, Tiles  # noqa: E402
from kestrel.models.weights import find_weights, load_weights  # noqa: E402

CONFIDENCE, NMS_IOU = 0.25, 0.45
#: The CFAR's windows are in metres; HRSID's chips do not say their pixel size (0.5, 1 or 3 m).
ASSUMED_PIXEL_M = 3.0


@dataclass(frozen=True)
class Part:
    """One validation file and how it may be called; ``precise``: its labels are complete."""

    file: str
    split: str
    precise: bool = True
    each_chip: bool = False


PARTS = (
    Part("val_sim10.npz", "simulated, held out, 10 m"),
    Part("val_sim3.npz", "simulated, held out, 3 m"),
    Part("val_hrsid4.npz", "HRSID official4 (real)", each_chip=True),
    Part("val_opensar.npz", "OpenSARShip validation scenes on simulated clutter, 10 m"),
    Part("val_mini36.npz", "HRSID mini36 P0017 and up (real, labels incomplete)", precise=False),
)

#: (chips, pixel sizes) -> (boxes for AP, boxes as a user gets them), each (n, 5) a chip
Detector = Callable[[Packed], tuple[list[np.ndarray], list[np.ndarray]]]


def network_detector(weights: str) -> Detector:
    """The network in the weight file called ``weights`` (a manifest name or a path)."""
    net = build_network(load_weights(*find_weights(weights, "sar_ships"))).eval().fuse()
    net = net.to(memory_format=torch.channels_last)

    def run(data: Packed) -> tuple[list[np.ndarray], list[np.ndarray]]:
        ranked, used = [], []
        for chip in data.chips:
            candidates = propose(net, chip)
            ranked.append(choose(candidates, chip.shape, confidence=0.001, nms_iou=0.6, limit=300))
            used.append(choose(candidates, chip.shape, confidence=CONFIDENCE, nms_iou=NMS_IOU, limit=1000))
        return ranked, used

    return run


def cfar_detector() -> Detector:
    """The classical baseline with its defaults, as a Task on the same 8-bit chips as amplitudes."""

    def run(data: Packed) -> tuple[list[np.ndarray], list[np.ndarray]]:
        found = []
        for chip, pixel_m in zip(data.chips, data.pixel_m, strict=True):
            metres = float(pixel_m) or ASSUMED_PIXEL_M
            scene = SceneInfo(chip.shape[1], chip.shape[0], "uint8", (metres, metres))
            task = builder("cfar")({"scale_mode": "uint8"}, "", "cpu", scene)
            power = np.square(chip.astype(np.float32))[None, None]
            start = np.zeros(1, int)
            tiles = Tiles({"image": power}, np.ones((1, *chip.shape), bool), None, start, start)
            found.append(task.predict(task.prepare(tiles))[0][:, :5])
        return found, found

    return run


def figures(ranked: Scores, used: Scores, *, precise: bool) -> dict[str, float | None]:
    """What the table and the card show; None where the labels do not allow it."""
    values = {
        "ap50": ranked.ap50 if precise else math.nan,
        "ap50_95": ranked.ap if precise else math.nan,
        "recall": used.recall_at,
        "precision": used.precision_at if precise else math.nan,
        "best_f1": ranked.f1 if precise else math.nan,
        "best_f1_confidence": ranked.confidence if precise else math.nan,
    }
    rounded = {k: None if math.isnan(v) else round(v, 4) for k, v in values.items()}
    return rounded | {"chips": None, "ships": used.truths, "found": used.detections}


def score(
    part: Part, data: Packed, detector: Detector, confidence: float
) -> dict[str, dict[str, float | None]]:
    """Figures of one part, and of each of its chips where asked for."""
    ranked, used = detector(data)
    truths = [data.boxes_of(i) for i in range(len(data))]

    def over(picks: list[int]) -> dict[str, float | None]:
        some = [truths[i] for i in picks]
        by_rank = evaluate([ranked[i] for i in picks], some)
        by_use = evaluate([used[i] for i in picks], some, confidence=confidence, limit=10_000)
        return figures(by_rank, by_use, precise=part.precise) | {"chips": len(picks)}

    out = {part.split: over(list(range(len(data))))}
    if part.each_chip:
        out |= {f"{part.split}, chip {i + 1} of {len(data)}": over([i]) for i in range(len(data))}
    return out


def as_table(results: dict[str, dict[str, dict[str, float | None]]]) -> str:
    """Markdown, one line a split and detector."""
    columns = ("chips", "ships", "found", "ap50", "ap50_95", "recall", "precision", "best_f1")
    lines = [f"| split | detector | {' | '.join(columns)} |", "|---|---|" + "---:|" * len(columns)]
    for split in next(iter(results.values())):
        for detector, by_split in results.items():
            values = [by_split[split][c] for c in columns]
            cells = ["-" if v is None else f"{v:.3f}" if isinstance(v, float) else str(v) for v in values]
            lines.append(f"| {split} | {detector} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="holds the val_*.npz of scripts/pack_sar_ships.py")
    parser.add_argument("--weights", default="", help="manifest name or path; empty = the shipped default")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    detectors = {"network": (network_detector(args.weights), CONFIDENCE), "cfar": (cfar_detector(), 0.0)}
    results: dict[str, dict[str, dict[str, float | None]]] = {name: {} for name in detectors}
    for part in PARTS:
        if not (args.folder / part.file).exists():
            continue
        data = load_packed(args.folder / part.file)
        for name, (detector, confidence) in detectors.items():
            results[name] |= score(part, data, detector, confidence)
    sys.stdout.write(as_table(results) + "\n")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
