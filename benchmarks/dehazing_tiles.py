"""How much the dehazing network's answer depends on the tile, and what a megapixel costs.

``python benchmarks/dehazing_tiles.py`` prints two Markdown tables; ``--json FILE`` keeps the figures.

Tones: the network takes statistics over a tile, so that two tiles answer differently where they overlap.
The mean |difference| of neighbouring tiles' predictions there, in 8-bit counts, before any blending, with
each tile's own means and with the scene's in their place, as the engine runs it (pooling.py), over
the NAIP scenes of clear_optical in KESTREL_DATA (else ../shared/data), as they are and under simulated
haze. A smaller TILE than the card's shows what it costs. The scenes are smaller than two tiles, so the
engine's last tile, shifted back, overlaps by more than OVERLAP.

Speed: seconds for each megapixel of a raster through the engine, reading and writing included, and the
share of them outside the network; medians of rounds. Weights are random numbers: they cost the same.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.benchmarks.engine_raster import FirstTile, make_raster  # noqa: E402
from kestrel.engine.grid import Tile, plan_grid  # noqa: E402
from kestrel.engine.heap import keep_large  # noqa: E402
from kestrel.engine.job import Job  # noqa: E402
from kestrel.engine.run import run_job  # noqa: E402
from kestrel.models.classical.haze import simulate  # noqa: E402
from kestrel.models.dehazing.metrics import Restore  # noqa: E402
from kestrel.models.dehazing.network import PRESETS, DWTMANet  # noqa: E402
from kestrel.models.dehazing.pooling import Samples, pooled_means, with_means  # noqa: E402
from kestrel.models.dehazing.restore import restore  # noqa: E402
from kestrel.models.dehazing.simulate import rounded  # noqa: E402
from kestrel.models.dehazing.task import MULTIPLE, OVERLAP, build_network  # noqa: E402
from kestrel.models.dehazing.weights import describe, write_weights  # noqa: E402
from kestrel.models.task import Block  # noqa: E402
from kestrel.models.weights import find_weights, load_weights  # noqa: E402

DATA = Path(os.environ.get("KESTREL_DATA") or ROOT.parent / "shared" / "data")
#: What lies over the scenes: name -> least transmission, None for nothing.
VEILS = {"as they are": None, "thin haze, transmission 0.9 to 0.6": 0.6, "thick haze, 0.9 to 0.3": 0.3}
SEED = 0
TILES = (512, 256)
MEANS = ("each tile's", "the scene's")
#: A block of the engine's lattice.
BLOCK = 512
#: Above this a tone shows as a step even after blending.
LIMIT_DN = 2.0


def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each NAIP scene, float32 (3, H, W) in 0..1, and its valid pixels, bool (H, W)."""
    found = []
    for path in sorted((DATA / "clear_optical" / "naip").glob("*.tif")):
        with rasterio.open(path) as source:
            image = source.read([1, 2, 3]).astype(np.float32) / np.float32(255)
            found.append((image, source.read_masks([1, 2, 3]).all(axis=0)))
    return found


def neighbours(height: int, width: int, tile: int) -> list[tuple[Tile, Tile]]:
    """Return the pairs of tiles beside and below each other in the engine's grid."""
    grid = plan_grid(height, width, tile, OVERLAP, MULTIPLE, 0)
    beside = [
        (grid.at(i, j), grid.at(i, j + 1)) for i in range(len(grid.ys)) for j in range(len(grid.xs) - 1)
    ]
    below = [(grid.at(i, j), grid.at(i + 1, j)) for i in range(len(grid.ys) - 1) for j in range(len(grid.xs))]
    return beside + below


def differences(
    image: np.ndarray, valid: np.ndarray, tile: int, answer: Restore
) -> tuple[list[tuple[float, int]], float]:
    """Return for each pair of neighbours the mean |difference| in the overlap, 0..255, and its pixels.

    And the mean |change| by ``answer`` over the tiles, 0..255.
    """
    known: dict[int, np.ndarray] = {}
    changes = []

    def of(t: Tile) -> np.ndarray:
        """Return the tile's answer laid into the scene, nan elsewhere."""
        rows, cols = slice(t.row, t.row + t.height), slice(t.col, t.col + t.width)
        if t.number not in known:
            known[t.number] = np.full(image.shape, np.nan, np.float32)
            known[t.number][:, rows, cols] = np.clip(answer(image[:, rows, cols]), 0, 1)
            changes.append(np.abs(known[t.number] - image)[:, rows, cols].mean() * 255)
        return known[t.number]

    found = []
    for a, b in neighbours(*valid.shape, tile):
        away = np.abs(of(a) - of(b)).mean(axis=0)
        common = valid & np.isfinite(away)
        found.append((float(away[common].mean() * 255), int(common.sum())))
    return found, float(np.mean(changes))


def for_scene(net: DWTMANet, image: np.ndarray, valid: np.ndarray) -> DWTMANet:
    """Return the network with the scene's means in place of each tile's, from blocks as the engine's."""
    kept = Samples(MULTIPLE)
    for row in range(0, image.shape[1], BLOCK):
        for col in range(0, image.shape[2], BLOCK):
            rows, cols = slice(row, row + BLOCK), slice(col, col + BLOCK)
            kept.add(Block(image[:, rows, cols], valid[rows, cols], row, col))
    return with_means(net, pooled_means(net, kept))


def tones(net: DWTMANet, tiles: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each tile size, veil and kind of means."""
    rows = []
    for tile, means, (veil, thickest) in itertools.product(tiles, MEANS, VEILS.items()):
        found, changes = [], []
        for image, valid in scenes():
            seen = image
            if thickest:
                seen = rounded(simulate(image, SEED, thickest=thickest, gamma=2.2).image)
            used = net if means == MEANS[0] else for_scene(net, seen, valid)
            pairs, change = differences(seen, valid, tile, functools.partial(restore, used))
            found += pairs
            changes.append(change)
        dn, pixels = np.array(found).T
        rows.append(
            {
                "tile": tile,
                "means": means,
                "scenes": veil,
                "pairs_of_tiles": len(dn),
                "mean_dn": round(float(np.average(dn, weights=pixels)), 3),
                "largest_pair_dn": round(float(dn.max()), 3),
                "change_dn": round(float(np.mean(changes)), 2),
            }
        )
    return rows


def random_weights(folder: Path, preset: str) -> str:
    """Write a weight file of a network that has learnt nothing and return its path."""
    torch.manual_seed(0)
    net = DWTMANet(**PRESETS[preset])
    nothing = {"config": {"seed": 0}, "data": {"batch": 0}, "step": 0, "seconds": 0}
    card = describe(net, name=preset, data=[], training=nothing, command="", limits="random numbers")
    path = folder / f"{preset}.safetensors"
    write_weights(path, net, card)
    return str(path)


def speed(preset: str, weights: str, side: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Return the medians of ``rounds`` runs through the engine over a raster of ``side`` pixels."""
    scene, out = folder / f"scene{side}.tif", folder / "dehazed.tif"
    if not scene.exists():
        make_raster(scene, side, side)
    job = Job(
        "predict",
        "dehazing",
        {"image": {"path": str(scene), "bands": [1, 2, 3]}},
        {"raster": str(out)},
        {"weights": weights},
        scratch=str(folder),
        device="cpu",
    )
    walls, shares = [], []
    figures: dict[str, Any] = {}
    for _ in range(rounds):
        start = time.perf_counter()
        figures = run_job(job, FirstTile()).figures
        walls.append(time.perf_counter() - start)
        shares.append(1 - figures["seconds"]["predict"] / walls[-1])
    return {
        "preset": preset,
        "size": f"{side} x {side}",
        "tiles": figures["tiles_run"],
        "tile": figures["params_used"]["tile"],
        "threads": torch.get_num_threads(),
        "seconds": round(statistics.median(walls), 2),
        "seconds_per_mpx": round(statistics.median(walls) / (side * side / 1e6), 3),
        "engine_share": round(statistics.median(shares), 4),
    }


def print_tones(rows: list[dict[str, Any]]) -> None:
    """Print the first table."""
    write = sys.stdout.write
    write(
        "| NAIP scenes | TILE | means | pairs of tiles | mean difference DN | largest pair DN | change DN |\n"
    )
    write("|---|---:|---|---:|---:|---:|---:|\n")
    for row in rows:
        write(
            f"| {row['scenes']} | {row['tile']} | {row['means']} | {row['pairs_of_tiles']} "
            f"| {row['mean_dn']:.2f} | {row['largest_pair_dn']:.2f} | {row['change_dn']:.1f} |\n"
        )
    used = [row for row in rows if row["tile"] == TILES[0] and row["means"] == MEANS[1]]
    over = [row for row in used if row["mean_dn"] > LIMIT_DN]
    write(
        f"\n{'Above' if over else 'Not above'} {LIMIT_DN:g} DN at TILE {TILES[0]} with the scene's means.\n\n"
    )


def print_speed(rows: list[dict[str, Any]]) -> None:
    """Print the second table."""
    write = sys.stdout.write
    write("| preset | raster | tiles | threads | s | s/Mpx | of these outside the network |\n")
    write("|---|---|---:|---:|---:|---:|---:|\n")
    for row in rows:
        write(
            f"| {row['preset']} | {row['size']} | {row['tiles']} of {row['tile']} | {row['threads']} "
            f"| {row['seconds']:.1f} | {row['seconds_per_mpx']:.2f} | {row['engine_share']:.1%} |\n"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="", help="manifest name or path; empty = the shipped default")
    parser.add_argument("--tiles", type=int, nargs="+", default=TILES)
    parser.add_argument("--side", type=int, default=1856, help="of the timed raster: 16 tiles of 512")
    parser.add_argument("--paper-side", type=int, default=960, help="the same for paper: 4 tiles")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("tones", "speed"))
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    if args.only != "speed":
        if (DATA / "clear_optical" / "naip").is_dir():
            net = build_network(load_weights(*find_weights(args.weights, "dehazing"))).eval()
            results["tones"] = tones(net, args.tiles)
            print_tones(results["tones"])
        else:
            sys.stdout.write(f"No development data at {DATA}: tones are left out.\n")
    if args.only != "tones":
        keep_large()  # as the worker does
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            results["speed"] = [
                speed("small", random_weights(folder, "small"), args.side, args.rounds, folder),
                speed("paper", random_weights(folder, "paper"), args.paper_side, 1, folder),
            ]
            print_speed(results["speed"])
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
