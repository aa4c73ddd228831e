"""How much the ship detector's answer depends on TILE, and what the engine costs beside the network.

``python benchmarks/sar_ships_tiles.py`` runs the shipped weights on a simulated 10 m scene with TILE 640
and 1024 and compares the polygons; then it times one run against the pure forward passes of the
same number of tiles, interleaved three times, and prints the median of (wall - predict) / predict.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.engine.job import Job  # noqa: E402
from kestrel.engine.run import run_job  # noqa: E402
from kestrel.models.sar_ships.task import build_network  # noqa: E402
from kestrel.models.weights import find_weights, load_weights  # noqa: E402
from kestrel.scripts.make_sar_scene import make_scene  # noqa: E402


class Quiet:
    """Events nobody listens to."""

    def __init__(self) -> None:
        self.cancel = threading.Event()

    def progress(self, *_: Any, **__: Any) -> None:
        """Ignore progress."""

    def log(self, level: str, text: str) -> None:
        """Ignore log lines."""


def detect(scene: Path, folder: Path, tile: int) -> tuple[geopandas.GeoDataFrame, dict[str, Any], float]:
    """Run the engine; returns the features, the figures and the wall time in seconds."""
    out = folder / f"boxes_{tile}.fgb"
    job = Job(
        kind="predict",
        model="sar_ships",
        inputs={"image": {"path": str(scene), "bands": [1]}},
        outputs={"boxes": str(out)},
        params={"tile": tile, "confidence": 0.25},
        scratch=str(folder),
        device="cpu",
    )
    start = time.perf_counter()
    outcome = run_job(job, Quiet())
    return geopandas.read_file(out), outcome.figures, time.perf_counter() - start


def matched(a: geopandas.GeoDataFrame, b: geopandas.GeoDataFrame) -> list[tuple[float, float]]:
    """Return (IoU, score difference) of each polygon of ``a`` with the one of ``b`` it overlaps most."""
    pairs = []
    for polygon, score in zip(a.geometry, a.score, strict=True):
        unions = b.geometry.intersection(polygon).area / b.geometry.union(polygon).area
        if len(unions) and unions.max() >= 0.5:
            pairs.append((float(unions.max()), abs(score - float(b.score[unions.idxmax()]))))
    return pairs


def forward_seconds(tile: int, tiles: int) -> float:
    """Return the seconds of ``tiles`` bare forward passes of the shipped network, batch 1."""
    net = build_network(load_weights(*find_weights("", "sar_ships"))).eval().fuse()
    net.to(memory_format=torch.channels_last)
    image = torch.rand(1, 3, tile, tile).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        net(image)
        start = time.perf_counter()
        for _ in range(tiles):
            net(image)
    return time.perf_counter() - start


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=4000, help="pixels of the timed scene's side")
    side = parser.parse_args().side
    write = sys.stdout.write
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = folder / "scene.tif"
        make_scene(scene, height=side, width=side, ships=max(40, side * side // 60_000))
        small, figures, _ = detect(scene, folder, 640)
        large, _, _ = detect(scene, folder, 1024)
        pairs = matched(small, large)
        write("| TILE 640 | TILE 1024 | in both (IoU >= 0.5) | mean IoU | mean score difference |\n")
        write("|---|---|---|---|---|\n")
        write(
            f"| {len(small)} polygons | {len(large)} polygons | {len(pairs)} "
            f"| {np.mean([p[0] for p in pairs]):.3f} | {np.mean([p[1] for p in pairs]):.3f} |\n\n"
        )
        rows = []
        for _ in range(3):
            pure = forward_seconds(640, figures["tiles_run"])
            _, run, wall = detect(scene, folder, 640)
            inside = run["seconds"]["predict"]
            rows.append((wall, inside, pure, 100 * (wall - inside) / inside))
        wall, inside, pure, overhead = (statistics.median(column) for column in zip(*rows, strict=True))
        write("| scene | wall s | inside predict s | pure forward s | overhead % | useful Mpix/s |\n")
        write("|---|---|---|---|---|---|\n")
        write(
            f"| {side} x {side}, {figures['tiles_run']} tiles of 640 | {wall:.1f} | {inside:.1f} "
            f"| {pure:.1f} | {overhead:.1f} | {side * side / 1e6 / wall:.2f} |\n"
        )


if __name__ == "__main__":
    main()
