"""What the engine costs beside the network: merging, sparse scenes, memory and overhead.

``python benchmarks/engine_boxes.py [merge] [sparse] [scene]`` prints a Markdown table (all three by
default). ``sparse`` and ``scene`` run in the real worker, started as QGIS starts it, with a toy
network in the registry: this file is its own launcher (``--as-worker``). Rasters are made by code in
a temporary folder; ``--side`` makes the scene smaller.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

TILE, OVERLAP = 640, 128
SPEC = "engine_boxes_toy"


def build(params: Any, weights: str, device: str, scene: Any) -> Any:
    """Builder of a toy network: convolutions of about 2 GFLOPs a tile, boxes where it is bright."""
    import torch
    from kestrel.models.task import Input, Task
    from torch import nn

    torch.set_num_threads(os.cpu_count() or 1)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        *(layer for _ in range(4) for layer in (nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU())),
    ).eval()  # fmt: skip

    @torch.inference_mode()
    def predict(images: Any) -> list[Any]:
        net(images)
        found = []
        for cells in nn.functional.max_pool2d(images, 32)[:, 0]:
            y, x = torch.nonzero(cells > 0.7, as_tuple=True)
            place = torch.stack([x, y, x + 1, y + 1], 1) * 32.0
            score = torch.full((len(place), 1), 0.9)
            found.append(torch.cat([place, score, torch.zeros_like(score)], 1).numpy())
        return found

    return Task(
        name="toy", inputs=(Input("image", pad=0.0),), kind="boxes", tile=TILE, multiple=64, margin=0,
        shrinkable=False, outputs=("ship",), prepare=lambda tiles: torch.from_numpy(tiles.images["image"]),
        predict=predict, overlap=lambda _: OVERLAP, model_id="toy@000000000000",
    )  # fmt: skip


def as_worker() -> int:
    """Put the toy into the registry, then do what engine/launch.py does."""
    spec = importlib.util.spec_from_file_location("kestrel_launch", ROOT / "engine" / "launch.py")
    assert spec
    assert spec.loader
    launch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launch)
    from kestrel.models import registry

    sys.modules[f"{registry.__package__}.{SPEC}"] = sys.modules[__name__]
    registry.MODELS["toy"] = registry.Entry(f"{SPEC}:build", "toy", ())
    return launch.main()


def in_worker(job: Any) -> tuple[dict[str, Any], float, float]:
    """Run a Job in a fresh worker; return its figures, wall seconds, peak resident megabytes."""
    from kestrel.engine.job import encode_message

    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-I", "-u", __file__, "--as-worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    process.stdin.write(encode_message("run", job=json.loads(job.to_json())) + encode_message("quit"))
    process.stdin.flush()
    answer = {}
    for line in process.stdout:
        message = json.loads(line)
        if message["type"] == "error":
            sys.exit(message["message"])
        if message["type"] == "result":
            answer, wall = message["figures"], time.perf_counter() - start
            break
    _, _, usage = os.wait4(process.pid, 0)
    return answer, wall, usage.ru_maxrss / 1024


def peak_of(code: str) -> float:
    """Return the peak resident megabytes of an interpreter that runs ``code``."""
    process = subprocess.Popen([sys.executable, "-c", code])
    return os.wait4(process.pid, 0)[2].ru_maxrss / 1024


def merge() -> None:
    """Merge 40 000 boxes of a dense scene, ten answers to each of 4 000 objects among them."""
    import numpy as np
    from kestrel.engine.boxes import from_tile
    from kestrel.engine.grid import plan_grid
    from kestrel.engine.merging import Merger

    rng = np.random.default_rng(0)
    for name, objects, answers in (("all different", 40_000, 1), ("10 answers to each object", 4_000, 10)):
        side = 8_000
        centre, size = rng.uniform(0, side, (objects, 2)), rng.uniform(8, 40, (objects, 2))
        boxes = np.repeat(np.concatenate([centre - size / 2, centre + size / 2], 1), answers, 0)
        boxes += rng.normal(0, 1.5, boxes.shape)
        grid = plan_grid(side, side, TILE, OVERLAP, 64, 0)
        tiles = []
        for number in range(len(grid)):
            tile = grid.at(*divmod(number, len(grid.xs)))
            local = boxes - [tile.col, tile.row, tile.col, tile.row]
            middle = (local[:, :2] + local[:, 2:]) / 2
            seen = local[((middle >= 0) & (middle < TILE)).all(1)]
            columns = [seen, rng.uniform(0.25, 1, (len(seen), 1)), np.zeros((len(seen), 1))]
            tiles.append((tile, np.concatenate(columns, 1)))
        valid = np.ones((TILE, TILE), bool)
        start, merger = time.perf_counter(), Merger(0.45)
        for tile, raw in tiles:
            merger.advance(tile.row)
            merger.add(from_tile(raw, tile, grid, OVERLAP, valid, 0.45))
        found = merger.finish()
        seconds, given = time.perf_counter() - start, sum(len(raw) for _, raw in tiles)
        print(f"| merge: {name} | {given:,} boxes in, {len(found):,} out: {seconds:.2f} s |")


def sparse(folder: Path) -> None:
    """Detect in a small area of a sparse file of 100 000 x 100 000 pixels."""
    import numpy as np
    from kestrel.engine.job import Job
    from rasterio.windows import Window

    path = folder / "sparse.tif"
    with _create(path, 100_000, sparse_ok=True, nodata=0) as dataset:
        sea = np.random.default_rng(0).integers(10, 60, (3000, 3000), dtype=np.uint8)
        sea[::500, ::500] = 255
        dataset.write(sea, 1, window=Window(50_000, 50_000, 3000, 3000))
    x, y = 500_000 + 10 * 50_500, 5_000_000 - 10 * 50_500
    job = Job(
        "predict", "toy", {"image": {"path": str(path), "bands": [1]}}, {"boxes": str(folder / "a.fgb")}, {},
        scratch=str(folder), device="cpu", extent=[x, y - 20_000, x + 20_000, y], crs_wkt="EPSG:32633",
    )  # fmt: skip
    figures, wall, peak = in_worker(job)
    print(
        f"| sparse 100,000 x 100,000, EXTENT 2,000 x 2,000 | {figures['tiles_run']} of "
        f"{figures['tiles_total']:,} tiles, {figures['count']} boxes: {wall:.1f} s, peak {peak:.0f} MB |"
    )


def scene(folder: Path, side: int) -> None:
    """Run a whole scene; memory beyond the interpreter, overhead beyond the network."""
    import numpy as np
    from kestrel.engine.job import Job
    from rasterio.windows import Window

    path = folder / "scene.tif"
    speckle = np.random.default_rng(0).gamma(1, 20, (512, 512)).clip(0, 150).astype(np.uint8)
    speckle[200:206, 300:320] = 255
    with _create(path, side) as dataset:
        for row in range(0, side, 512):
            for col in range(0, side, 512):
                h, w = min(512, side - row), min(512, side - col)
                dataset.write(speckle[:h, :w], 1, window=Window(col, row, w, h))
    job = Job(
        "predict", "toy", {"image": {"path": str(path), "bands": [1]}}, {"boxes": str(folder / "b.fgb")}, {},
        scratch=str(folder), device="cpu",
    )  # fmt: skip
    torch_only = peak_of("import torch")
    forward = peak_of(
        f"import sys; sys.path[:0] = {[str(ROOT / '.kestrel' / 'python'), str(Path(__file__).parent)]!r}\n"
        "import torch, engine_boxes\n"
        "engine_boxes.build({}, '', 'cpu', None).predict(torch.zeros(1, 1, 640, 640))"
    )
    figures, wall, peak = in_worker(job)
    seconds = figures["seconds"]
    inside = seconds["predict"]
    run = sum(seconds[name] for name in ("start", "opening", "model", "statistics", "tiles", "writing"))
    print(f"| scene {side:,} x {side:,}: tiles, boxes | {figures['tiles_run']:,}, {figures['count']:,} |")
    print(f"| seconds: worker in all, run, inside predict | {wall:.1f}, {run:.1f}, {inside:.1f} |")
    print(f"| overhead (run - predict) / predict | {100 * (run - inside) / inside:.1f} % |")
    print(f"| without loading the model | {100 * (run - seconds['model'] - inside) / inside:.1f} % |")
    print(f"| peak MB: import torch, one forward, worker | {torch_only:.0f}, {forward:.0f}, {peak:.0f} |")
    print(f"| worker beyond the interpreter with torch | {peak - torch_only:.0f} MB |")


def _create(path: Path, side: int, **profile: Any) -> Any:
    import rasterio

    return rasterio.open(
        path, "w", driver="GTiff", count=1, height=side, width=side, dtype="uint8", tiled=True,
        blockxsize=512, blockysize=512, compress="deflate", zlevel=1, crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000), **profile,
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["merge", "sparse", "scene"])
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--as-worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.as_worker:
        return as_worker()
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))
    print("| what | figures |\n|---|---|")
    with tempfile.TemporaryDirectory(prefix="kestrel-benchmark-") as folder:
        for name in asked.what:
            if name == "merge":
                merge()
            elif name == "sparse":
                sparse(Path(folder))
            elif name == "scene":
                scene(Path(folder), asked.side)
            else:
                parser.error(f"{name!r} is none of merge, sparse, scene.")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
