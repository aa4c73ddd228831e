"""How much haze the dehazing network takes off, against the input, the dark channel and an affine.

``python benchmarks/dehazing_accuracy.py PACK --folds FOLDER --weights NAME`` reads the files of
scripts/pack_dehazing.py and prints two Markdown tables; ``--json FILE`` keeps the figures.

Real pairs (Landsat 8, SWIR/NIR/green): cross-validation over five blocks of consecutive numbers. Each pair
is restored by the weights of FOLDER whose training never saw its block, and corrected by an affine of each
band fitted on the four other blocks. The clear picture is of another date, so that even perfect dehazing
would not reach it. Simulated: the test scenes under haze drawn from other ranges than training's, for
the one weight file NAME; the affine is fitted on training's scenes under training's haze.

``after own affine``: each output, the input too, is first fitted to the truth band by band: what is left
is structure, not colour. ``near-clear``: pairs whose input is above 28 dB already. Intervals are 95 %,
paired by picture; neighbouring numbers can be neighbouring scenes, which makes them somewhat too narrow.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.benchmarks.dark_channel import predict, surveyed  # noqa: E402
from kestrel.models.classical.dark_channel import DEFAULT_OMEGA  # noqa: E402
from kestrel.models.dehazing.data import (  # noqa: E402
    BLOCKS,
    TESTING,
    TRAINING,
    Pairs,
    load_pairs,
    load_scenes,
    simulated_pairs,
)
from kestrel.models.dehazing.metrics import (  # noqa: E402
    Restore,
    Scores,
    evaluate,
    fit_bands,
    interval,
)
from kestrel.models.dehazing.restore import restore  # noqa: E402
from kestrel.models.dehazing.simulate import TEST, TRAIN  # noqa: E402
from kestrel.models.dehazing.task import build_network  # noqa: E402
from kestrel.models.weights import find_weights, load_weights  # noqa: E402

INPUT, AFFINE, NETWORK = "input", "affine per band", "network"
DARK = f"dark channel, OMEGA {DEFAULT_OMEGA:g}"
#: The gentler setting that serves the real pairs best (benchmarks/dark_channel.py).
GENTLE = "dark channel, OMEGA 0.3"
NEAR_CLEAR_DB = 28.0
#: What the figures are over.
REAL_SPLIT = "78 real pairs, cross-validated over five blocks of consecutive numbers"
SIMULATED_SPLIT = "simulated haze over the test scenes, other ranges than training's"


def network(weights: str) -> Restore:
    """Return the function that restores a picture as a whole with one weight file (name or path)."""
    net = build_network(load_weights(*find_weights(weights, "dehazing"))).eval()
    return functools.partial(restore, net.to(memory_format=torch.channels_last))


def dark_channel(omega: float) -> Restore:
    """Return the classical baseline, the airlight taken from the picture itself as the engine does."""
    return lambda image: predict(surveyed(image, {"omega": omega}), image)


def unchanged(image: np.ndarray) -> np.ndarray:
    """Return the picture as it came."""
    return image


def images(pairs: Pairs) -> Any:
    """Return the pairs one by one."""
    return zip(pairs.hazy, pairs.clear, strict=True)


def across_blocks(pairs: Pairs, made: Callable[[int], Restore]) -> Scores:
    """Return the scores in the pairs' order, each block's by what ``made`` gives for holding it out."""
    parts = [evaluate(made(block), images(pairs.only(block))) for block in range(BLOCKS)]
    order = np.argsort(np.concatenate([np.nonzero(pairs.block == block)[0] for block in range(BLOCKS)]))
    joined = Scores.joined(parts)
    return Scores(*(values[order] for values in vars(joined).values()))


def fold_files(folder: Path, pairs: Pairs) -> list[str]:
    """Return the weights for each held-out block, ``fold0/average.safetensors`` to ``fold4``.

    Exits where one is missing or its card names a pair of its own block among what it learnt from.
    """
    found = []
    for block in range(BLOCKS):
        path = folder / f"fold{block}" / "average.safetensors"
        if not path.is_file():
            raise SystemExit(f"{path} is missing: the cross-validation needs one file for each block.")
        card = load_weights(path, None).card
        seen = {n for source in card.data for n in numbers_in(str(source.get("numbers", "")))}
        if leaked := seen & set(pairs.only(block).number.tolist()):
            raise SystemExit(f"{path} has learnt from pairs of block {block}: {sorted(leaked)}.")
        found.append(str(path))
    return found


def numbers_in(spans: str) -> set[int]:
    """Return the numbers of a card's text such as ``1-3, 5``."""
    ends = [[int(end) for end in part.split("-")] for part in spans.split(", ") if part]
    return {number for first, *last in ends for number in range(first, (last or [first])[0] + 1)}


def figures(rows: Mapping[str, Scores]) -> dict[str, dict[str, Any]]:
    """Return the table's numbers for each row; differences as [mean, half width of the 95 % interval]."""
    start = rows[INPUT]
    near = start.psnr > NEAR_CLEAR_DB
    out: dict[str, dict[str, Any]] = {}
    for name, scores in rows.items():
        found: dict[str, Any] = {
            "pairs": len(scores),
            "psnr": scores.psnr.mean(),
            "gain": interval(scores.psnr - start.psnr),
            "better": np.mean(scores.psnr > start.psnr),
            "ssim": scores.ssim.mean(),
            "ssim_gain": interval(scores.ssim - start.ssim),
            "psnr_fitted": scores.psnr_fitted.mean(),
            "gain_fitted": interval(scores.psnr_fitted - start.psnr_fitted),
            "ssim_fitted": scores.ssim_fitted.mean(),
            "near_clear_pairs": int(near.sum()),
            "near_clear_gain": interval((scores.psnr - start.psnr)[near]),
            "near_clear_worst": (scores.psnr - start.psnr)[near].min() if near.any() else np.nan,
        }
        found |= {
            f"gain_over_{key}": interval(scores.psnr - rows[other].psnr)
            for key, other in (("affine", AFFINE), ("dark_channel", DARK), ("gentle_dark_channel", GENTLE))
        }
        out[name] = {key: _plain(value) for key, value in found.items()}
    return out


def _plain(value: Any) -> Any:
    """Return a number JSON knows, rounded; None for what is not a number."""
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, int) else None if np.isnan(value) else round(float(value), 4)


def as_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return Markdown."""
    near = next(iter(rows.values()))["near_clear_pairs"]
    lines = [
        f"{title}\n",
        "| | PSNR dB | over the input dB | better | over the affine dB | over the dark channel dB | SSIM "
        f"| after own affine: PSNR dB | gain dB | SSIM | near-clear ({near} pairs): gain dB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row['psnr']:.2f} | {_span(row['gain'])} | {row['better']:.0%} "
            f"| {_span(row['gain_over_affine'])} | {_span(row['gain_over_dark_channel'])} "
            f"| {row['ssim']:.3f} | {row['psnr_fitted']:.2f} | {_span(row['gain_fitted'])} "
            f"| {row['ssim_fitted']:.3f} "
            f"| {_span(row['near_clear_gain'])} |"
        )
    return "\n".join(lines) + "\n"


def _span(value: list[float | None]) -> str:
    mean, half = value
    return "-" if mean is None else f"{mean:+.2f}" if half is None else f"{mean:+.2f} ± {half:.2f}"


def real_rows(pairs: Pairs, folds: list[str], more: Mapping[str, str]) -> dict[str, Scores]:
    """Return each method's scores on the real pairs."""

    def affine(block: int) -> Restore:
        others = pairs.without(block)
        return fit_bands(others.hazy, others.clear)

    rows = {
        INPUT: evaluate(unchanged, images(pairs)),
        DARK: evaluate(dark_channel(DEFAULT_OMEGA), images(pairs)),
        GENTLE: evaluate(dark_channel(0.3), images(pairs)),
        AFFINE: across_blocks(pairs, affine),
    }
    if folds:
        rows[f"{NETWORK}, five folds"] = across_blocks(pairs, lambda block: network(folds[block]))
    return rows | {label: evaluate(network(path), images(pairs)) for label, path in more.items()}


def simulated_rows(test: Pairs, training: Pairs, networks: Mapping[str, str]) -> dict[str, Scores]:
    """Return each method's scores on simulated haze."""
    rows = {
        INPUT: evaluate(unchanged, images(test)),
        DARK: evaluate(dark_channel(DEFAULT_OMEGA), images(test)),
        GENTLE: evaluate(dark_channel(0.3), images(test)),
        AFFINE: evaluate(fit_bands(training.hazy, training.clear), images(test)),
    }
    return rows | {label: evaluate(network(path), images(test)) for label, path in networks.items()}


def by_block(pairs: Pairs, rows: Mapping[str, Scores]) -> dict[str, list[float]]:
    """Return each method's mean gain over the input in each block, dB."""
    return {
        name: [
            round(float((scores.psnr - rows[INPUT].psnr)[pairs.block == block].mean()), 4)
            for block in range(BLOCKS)
        ]
        for name, scores in rows.items()
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack", type=Path, help="folder of scripts/pack_dehazing.py")
    parser.add_argument("--folds", type=Path, help="holds fold0 to fold4; without it no real network row")
    parser.add_argument("--weights", help="name or path of the file for the simulated part ('' = shipped)")
    parser.add_argument(
        "--unseen", action="append", default=[], metavar="LABEL=PATH",
        help="more weights for both tables; their training must not have seen any real pair",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    unseen = dict(entry.split("=", 1) for entry in args.unseen)
    networks = ({} if args.weights is None else {NETWORK: args.weights}) | unseen
    pairs, scenes = load_pairs(args.pack), load_scenes(args.pack)
    real = real_rows(pairs, fold_files(args.folds, pairs) if args.folds else [], unseen)
    training = simulated_pairs(scenes.part(TRAINING), TRAIN)
    simulated = simulated_rows(simulated_pairs(scenes.part(TESTING), TEST), training, networks)
    results = {
        "real": {"split": REAL_SPLIT, "rows": figures(real), "gain_by_block": by_block(pairs, real)},
        "simulated": {"split": SIMULATED_SPLIT, "rows": figures(simulated)},
    }
    for part in results.values():
        sys.stdout.write(as_table(part["split"], part["rows"]) + "\n")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
