"""What the raster engine costs beside the network, and beside the loop a user would write.

``python benchmarks/engine_raster.py [classes] [scores] [raster] [dark]`` makes hazy 3-band rasters by
code and prints Markdown tables. The first three run the toy of tests/support/unet.py: pure forward
passes over the same number of tiles, the engine with and without its threads, and the plain loop
(plain_loop.py), in interleaved rounds; medians. ``dark`` runs the dark channel. Every run is a fresh
process (this file with ``--child``); seconds count from after the imports to the output in its place.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

#: ENGINE.md, section 5: U-Net 16-128, tile 256, overlap 64, batch 4.
TILE, OVERLAP, BATCH = 256, 64, 4
#: variant -> what the table calls it.
VARIANTS = {
    "forward": "pure forward, same number of tiles",
    "engine": "engine",
    "serial": "engine without threads",
    "plain": "plain loop",
}
#: what -> (bands blended, dtype written).
OUTPUTS = {"classes": (4, "uint8"), "scores": (4, "float32"), "raster": (3, "uint8")}
TITLES = {
    "classes": "U-Net toy, kind scores: the best of 4 classes out, uint8",
    "scores": "U-Net toy, kind scores: 4 bands of float32 out",
    "raster": "U-Net toy, kind raster: 3 bands of uint8 out",
    "dark": "Dark channel",
}
COLUMNS_DARK = ("raster", "total s", "inside predict s", "overhead %", "useful Mpix/s", "peak MB")
COLUMNS = (
    "raster", "variant", "total s", "inside predict s", "overhead %", "over pure forward %", "useful Mpix/s",
    "peak MB", "beyond pure forward MB", "plain loop / this: time, memory",
)  # fmt: skip
#: What ENGINE.md, section 5, promises beyond one forward pass and two strips; share of time.
PROMISED_MB, PROMISED_OVERHEAD = 200, 5.0


@dataclass(frozen=True)
class Run:
    """One child's figures: seconds in all, inside predict and until the first tile; peak memory."""

    wall: float
    inside: float
    first: float
    peak_mb: float

    @property
    def overhead(self) -> float:
        """Return the time outside predict in per cent of that inside."""
        return 100 * (self.wall - self.inside) / self.inside


class Timed:
    """A function that counts the seconds inside it."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, argument: Any) -> Any:
        """Call it on the clock."""
        start = time.perf_counter()
        answer = self.function(argument)
        self.seconds += time.perf_counter() - start
        return answer


class FirstTile:
    """Events that remember when the first tile was reported."""

    def __init__(self) -> None:
        self.cancel = threading.Event()
        self.seconds = 0.0
        self._start = time.perf_counter()

    def progress(self, fraction: float, done: int, total: int, stage: str, left: float | None) -> None:
        """Look at the clock at the first tile."""
        if done and not self.seconds:
            self.seconds = time.perf_counter() - self._start

    def log(self, level: str, text: str) -> None:
        """Ignore log lines."""


def child(asked: dict[str, Any]) -> dict[str, float]:
    """Do one run in this process and return its figures."""
    from kestrel.engine.heap import keep_large

    measure = {"forward": forward, "plain": plain}.get(asked["variant"], engine)
    if asked["variant"] != "plain":
        keep_large()  # as the worker does; a loop that a user writes does not
    figures = measure(asked)
    status = Path("/proc/self/status").read_text()
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return {"first": 0.0, **figures, "peak_mb": int(peak) / 1024}


def forward(asked: dict[str, Any]) -> dict[str, float]:
    """Forward as many tiles as the engine runs; they lie in memory and the answers are dropped."""
    import torch

    task = toy(asked["kind"])
    tiles = torch.rand(BATCH, 3, TILE, TILE, generator=torch.Generator().manual_seed(0))
    tiles = tiles.contiguous(memory_format=torch.channels_last)
    predict = Timed(task.predict)
    start = time.perf_counter()
    for left in range(asked["tiles"], 0, -BATCH):
        predict(tiles[:left])
    return {"wall": time.perf_counter() - start, "inside": predict.seconds}


def plain(asked: dict[str, Any]) -> dict[str, float]:
    """Run the plain loop with the same network."""
    import torch
    from plain_loop import plain_loop

    task = toy(asked["kind"])
    predict = Timed(task.predict)

    def answer(tiles: Any) -> Any:
        return predict(torch.from_numpy(tiles).contiguous(memory_format=torch.channels_last))

    start = time.perf_counter()
    plain_loop(Path(asked["path"]), Path(asked["out"]), answer, asked["kind"], TILE, OVERLAP, BATCH)
    return {"wall": time.perf_counter() - start, "inside": predict.seconds}


def engine(asked: dict[str, Any]) -> dict[str, float]:
    """Run the engine: the toy, or the registry's dark channel; ``job`` adds fields to the Job."""
    from kestrel.engine.job import Job
    from kestrel.engine.run import run_job

    dark = asked["kind"] == "dark"
    params = {} if dark else {"tile": TILE, "overlap": OVERLAP, "batch": BATCH}
    job = Job(
        "predict",
        "dark_channel" if dark else "toy",
        {"image": {"path": asked["path"], "bands": [1, 2, 3]}},
        {"raster" if dark else asked["kind"]: asked["out"]},
        {**params, **asked.get("params", {})},
        scratch=str(Path(asked["out"]).parent),
        device="cpu",
        **asked.get("job", {}),
    )
    builder, timed = None, Timed(None)
    if not dark:
        task = toy(asked["kind"])  # imports torch before the clock starts, as the others do
        timed.function = task.predict

        def builder(*_: Any) -> Any:
            return replace(toy(asked["kind"]), predict=timed)

    events = FirstTile()
    start = time.perf_counter()
    outcome = run_job(job, events, builder=builder, threads=asked["variant"] != "serial")
    wall = time.perf_counter() - start
    inside = outcome.figures["seconds"]["predict"] if dark else timed.seconds
    return {"wall": wall, "inside": inside, "first": events.seconds}


def toy(kind: str) -> Any:
    """Return the toy's Task."""
    from kestrel.tests.support import unet

    build = unet.build_raster if kind == "raster" else unet.build_scores
    return build({}, "", "cpu", None)


def run_child(variant: str, kind: str, **asked: Any) -> Run:
    """Run one variant in a fresh process."""
    question = json.dumps({"variant": variant, "kind": kind, **asked})
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "engine_raster.py"), "--child", question],
        stdout=subprocess.PIPE, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".kestrel" / "python")},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"The run {question} failed.")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def make_raster(path: Path, height: int, width: int) -> None:
    """Write an 8-bit RGB GeoTIFF: smooth fields, texture, and haze that thickens to the right."""
    import numpy as np
    import rasterio
    from rasterio.windows import Window

    rng = np.random.default_rng(0)
    texture = rng.normal(0, 12, (3, 512, -(-width // 512) * 512)).astype(np.float32)
    x = np.arange(width, dtype=np.float32)
    clear = np.linspace(0.95, 0.4, width, dtype=np.float32)
    band = np.arange(3, dtype=np.float32)[:, None, None]
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=height, width=width, dtype="uint8", tiled=True,
        blockxsize=256, blockysize=256, compress="deflate", zlevel=1, photometric="rgb", crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000),
    ) as dataset:  # fmt: skip
        for row in range(0, height, 512):
            rows = min(512, height - row)
            y = np.arange(row, row + rows, dtype=np.float32)[:, None]
            ground = 90 + 15 * band + 50 * np.sin(x / 150 + band) * np.cos(y / 110)
            ground = ground + texture[:, :rows, :width]
            hazy = ground * clear + 220 * (1 - clear)
            dataset.write(hazy.clip(1, 255).astype(np.uint8), window=Window(0, row, width, rows))


def pixels_md5(path: Path) -> str:
    """Return the md5 of a raster's pixels, read in rows so that it takes no memory."""
    import rasterio
    from rasterio.windows import Window

    digest = hashlib.md5(usedforsecurity=False)
    with rasterio.open(path) as dataset:
        for row in range(0, dataset.height, 256):
            rows = min(256, dataset.height - row)
            digest.update(dataset.read(window=Window(0, row, dataset.width, rows)).tobytes())
    return digest.hexdigest()


def same_network(engine_out: Path, plain_out: Path, kind: str) -> bool:
    """Tell whether the pixels that only the first tile sees agree: both ran the same network."""
    import numpy as np
    import rasterio
    from rasterio.windows import Window

    side = TILE - OVERLAP
    corners = []
    for path in (engine_out, plain_out):
        with rasterio.open(path) as dataset:
            corners.append(dataset.read(window=Window(0, 0, side, side)).astype(float))
    away = np.abs(corners[0] - corners[1])
    if kind == "classes":  # two classes within rounding of each other may change places
        return bool((away == 0).mean() > 0.9999)
    return bool(away.max() <= (1e-5 if kind == "scores" else 1))


def tiles_of(height: int, width: int) -> int:
    """Return how many tiles the engine's grid has."""
    from kestrel.engine.grid import plan_grid

    return len(plan_grid(height, width, TILE, OVERLAP, 8, 0))


def compare(kind: str, folder: Path, height: int, width: int, rounds: int) -> tuple[list[str], float]:
    """Print the rows of one raster, medians of interleaved rounds.

    Returns what was promised and kept, and the engine's peak memory.
    """
    path, pixels = raster(folder, height, width), height * width / 1e6
    tiles, outs = tiles_of(height, width), {name: folder / f"{name}.tif" for name in VARIANTS}
    one = run_child("forward", kind, tiles=BATCH)
    runs: dict[str, list[Run]] = {name: [] for name in VARIANTS}
    for number in range(rounds):
        names = list(VARIANTS)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            out = outs[name]
            out.unlink(missing_ok=True)
            runs[name].append(run_child(name, kind, path=str(path), out=str(out), tiles=tiles))
    median = statistics.median
    pure, loop = runs["forward"], runs["plain"]
    peak = {name: max(run.peak_mb for run in made) for name, made in runs.items()}
    for name, title in VARIANTS.items():
        made = runs[name]
        wall = median(run.wall for run in made)
        over = median(100 * (a.wall / b.wall - 1) for a, b in zip(made, pure, strict=True))
        faster = median(b.wall / a.wall for a, b in zip(made, loop, strict=True))
        say(
            f"| {height} x {width} | {title} | {wall:.1f} | {median(run.inside for run in made):.1f} "
            f"| {median(run.overhead for run in made):.1f} | {over:.1f} | {pixels / wall:.2f} "
            f"| {peak[name]:.0f} | {peak[name] - peak['forward']:.0f} "
            f"| {faster:.2f}, {peak['plain'] / peak[name]:.2f} |"
        )
    same = pixels_md5(outs["engine"]) == pixels_md5(outs["serial"])
    agree = same_network(outs["engine"], outs["plain"], kind)
    strips = 2 * OUTPUTS[kind][0] * TILE * width * 4 / 2**20
    limit, worst = one.peak_mb + strips + PROMISED_MB, max(peak["engine"], peak["serial"])
    overhead = median(run.overhead for run in runs["engine"])
    notes = [
        f"{kind}, {height} x {width}, {tiles} tiles, rounds: {rounds}, spread of the engine's overhead "
        f"{min(r.overhead for r in runs['engine']):.1f} to {max(r.overhead for r in runs['engine']):.1f} %: "
        f"promised {PROMISED_OVERHEAD:g} %, {verdict(overhead <= PROMISED_OVERHEAD)}.",
        f"Memory promised: one forward {one.peak_mb:.0f} + two strips {strips:.0f} + {PROMISED_MB} = "
        f"{limit:.0f} MB, used {worst:.0f} MB: {verdict(worst <= limit)}.",
        f"First tile reported after {median(run.first for run in runs['engine']):.1f} s.",
        f"The same bytes with and without threads: {'yes' if same else 'NO'}. "
        f"Where one tile alone sees the ground, equal to the plain loop: {'yes' if agree else 'NO'}.",
    ]
    return notes, worst


def dark_channel(folder: Path, height: int, width: int, rounds: int) -> float:
    """Print the dark channel's row for one raster; return its peak memory."""
    path, out = raster(folder, height, width), folder / "dark.tif"
    runs = []
    for _ in range(rounds):
        out.unlink(missing_ok=True)
        runs.append(run_child("engine", "dark", path=str(path), out=str(out)))
    wall, inside, overhead = (
        statistics.median(getattr(run, name) for run in runs) for name in ("wall", "inside", "overhead")
    )
    peak = max(run.peak_mb for run in runs)
    say(
        f"| {height} x {width} | {wall:.1f} | {inside:.1f} | {overhead:.1f} "
        f"| {height * width / 1e6 / wall:.2f} | {peak:.0f} |"
    )
    return peak


def say(line: str) -> None:
    """Print a line at once: a table takes minutes."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def verdict(kept: bool) -> str:
    """Return how a promise went."""
    return "met" if kept else "**missed**"


def load() -> str:
    """Return the load averages, to be read beside every figure."""
    return ", ".join(f"{value:.1f}" for value in os.getloadavg())


def header(columns: tuple[str, ...]) -> None:
    """Print a table's first two lines."""
    say(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def raster(folder: Path, height: int, width: int) -> Path:
    """Return the benchmark's raster of that size, made once."""
    path = folder / f"scene_{height}_{width}.tif"
    if not path.exists():
        make_raster(path, height, width)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["classes", "scores", "raster", "dark"])
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument(
        "--tall", type=int, default=9000, help="a second height, for the memory of classes and dark; 0 = none"
    )
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tall-rounds", type=int, default=1, help="memory varies little")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        say(json.dumps(child(json.loads(asked.child))))
        return 0
    for what in asked.what:
        if what not in (*OUTPUTS, "dark"):
            parser.error(f"{what!r} is none of {', '.join(OUTPUTS)}, dark.")
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))
    with tempfile.TemporaryDirectory(prefix="kestrel-benchmark-") as name:
        for what in asked.what:
            before, notes, peaks = load(), [], []
            say(f"\n{TITLES[what]}:\n")
            header(COLUMNS if what in OUTPUTS else COLUMNS_DARK)
            sizes = [(asked.height, asked.rounds)]
            if asked.tall and what in ("classes", "dark"):
                sizes.append((asked.tall, asked.tall_rounds))
            for height, rounds in sizes:
                if what == "dark":
                    peaks.append(dark_channel(Path(name), height, asked.width, rounds))
                    continue
                more, peak = compare(what, Path(name), height, asked.width, rounds)
                notes += more
                peaks.append(peak)
            if len(peaks) > 1:
                notes.append(
                    f"The engine's peak memory at {asked.tall} rows is {peaks[1] - peaks[0]:+.0f} MB "
                    f"beside that at {asked.height}."
                )
            say("")
            for note in notes:
                say(f"- {note}")
            say(f"- {os.cpu_count()} cores; load averages (1, 5, 15 min) {before} before, {load()} after.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
