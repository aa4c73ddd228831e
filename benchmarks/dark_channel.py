"""How much haze the dark channel takes off, and what it costs: PSNR, SSIM, seconds per megapixel.

``python benchmarks/dark_channel.py`` prints Markdown tables. Real pairs are those of hazy_pairs in
KESTREL_DATA (else ../shared/data): Landsat false colour, the clear picture from another date, so that even
perfect dehazing would not reach it. The first 40 by number chose the method's constants, the other 38 are
reported apart. Simulated haze lies over the NAIP scenes of clear_optical, where the truth is known. Whole
images go through ``predict`` with 8-bit input and output. Intervals are 95 %, paired by image; neighbouring
numbers can be neighbouring scenes, which makes them somewhat too narrow.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from scipy import ndimage, stats

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.classical import dark_channel  # noqa: E402
from kestrel.models.classical.haze import simulate  # noqa: E402
from kestrel.models.registry import builder  # noqa: E402
from kestrel.models.task import Block, SceneInfo, Task, Tiles  # noqa: E402

DATA = Path(os.environ.get("KESTREL_DATA") or ROOT.parent / "shared" / "data")
#: So many pairs, lowest numbers first, chose the constants.
CHOSEN_ON = 40
SEEDS = range(4)


@dataclass(frozen=True, eq=False)
class Pair:
    """A hazy and a clear image, float32 (3, H, W) in 0..1 on 8-bit levels, and the haze's colour if known."""

    hazy: np.ndarray
    clear: np.ndarray
    airlight: np.ndarray | None = None


def read(path: Path) -> np.ndarray:
    """Return the first three bands of an 8-bit image as float32 (3, H, W) in 0..1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            return source.read([1, 2, 3]).astype(np.float32) / np.float32(255)


def real_pairs() -> list[Pair]:
    """All pairs, ordered by number."""
    folder = DATA / "hazy_pairs"
    names = sorted((p.name for p in (folder / "hazy").glob("*.png")), key=lambda name: int(name[:-4]))
    return [Pair(read(folder / "hazy" / name), read(folder / "clear" / name)) for name in names]


def simulated_pairs(thickest: float, gamma: float) -> list[Pair]:
    """Each NAIP scene under each seed's haze."""
    pairs = []
    for path in sorted((DATA / "clear_optical" / "naip").glob("*.tif")):
        clear = read(path)
        for seed in SEEDS:
            haze = simulate(clear, seed, thickest=thickest, gamma=gamma)
            pairs.append(Pair(rounded(haze.image), clear, haze.airlight))
    return pairs


def rounded(image: np.ndarray) -> np.ndarray:
    """Return what an 8-bit file holds of an image in 0..1."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.float32) / np.float32(255)


def surveyed(image: np.ndarray, params: Mapping[str, Any]) -> Task:
    """Return the task for an image as the engine would run it."""
    scene = SceneInfo(image.shape[2], image.shape[1], "uint8", None)
    task = builder("dark_channel")(params, "", "cpu", scene)
    whole = Block(image, np.ones(image.shape[1:], bool), 0, 0)
    return task if task.survey is None else task.survey(iter([whole]))


def predict(task: Task, image: np.ndarray) -> np.ndarray:
    """Return the task's answer on one tile, float32 (3, H, W)."""
    start = np.zeros(1, int)
    tiles = Tiles({"image": image[None]}, np.ones((1, *image.shape[1:]), bool), None, start, start)
    return task.predict(task.prepare(tiles))[0]


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio over all bands, dB, of images in 0..1."""
    return float(-10 * np.log10(np.mean(np.square(image - truth, dtype=np.float64))))


def ssim(image: np.ndarray, truth: np.ndarray) -> float:
    """Return the structural similarity (Wang et al. 2004): Gaussian window of 11, mean over bands."""

    def smooth(a: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(a, (0, 1.5, 1.5), truncate=3.5)[:, 5:-5, 5:-5]

    x, y = image.astype(np.float64), truth.astype(np.float64)
    mx, my = smooth(x), smooth(y)
    vx, vy, cov = smooth(x * x) - mx * mx, smooth(y * y) - my * my, smooth(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return float(np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))


def interval(values: Sequence[float]) -> str:
    """Return the mean and half the width of its 95 % interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):+.2f} ± {half:.2f}"


def stretch_limits(image: np.ndarray, percentiles: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return lows and highs, float32 (3, 1, 1): 0 and 1, or each band's percentiles 2 and 98."""
    if not percentiles:
        return np.zeros((3, 1, 1), np.float32), np.ones((3, 1, 1), np.float32)
    low, high = np.percentile(image, (2, 98), axis=(1, 2)).astype(np.float32)[:, :, None, None]
    return low, high


def row(
    name: str,
    pairs: Sequence[Pair],
    *,
    true_airlight: bool = False,
    percentiles: bool = False,
    **params: Any,
) -> str:
    """One line of the table: ``params`` as for the task; the change is applied as the engine does."""
    found: list[tuple[float, ...]] = []
    errors = []
    for pair in pairs:
        low, high = stretch_limits(pair.hazy, percentiles)
        seen = np.clip((pair.hazy - low) / (high - low), 0, 1)
        own = {**params, "airlight": pair.airlight.tolist()} if true_airlight else params
        task = surveyed(seen, own)
        result = rounded(pair.hazy + (predict(task, seen) - seen) * (high - low))
        if pair.airlight is not None:
            airlight = np.array(task.notes["airlight"]) * (high - low).ravel() + low.ravel()
            errors.append(np.abs(airlight - pair.airlight).mean())
        found.append(tuple(f(i, pair.clear) for f in (psnr, ssim) for i in (pair.hazy, result)))
    before, after, alike_before, alike_after = np.transpose(found)
    error = f"{np.mean(errors):.3f}" if errors else "unknown"
    return (
        f"| {name} | {len(pairs)} | {before.mean():.2f} | {after.mean():.2f} | {interval(after - before)} "
        f"| {np.mean(after > before):.0%} | {alike_before.mean():.3f} | {alike_after.mean():.3f} "
        f"| {error} |\n"
    )


HEADER = (
    "| images | n | PSNR hazy dB | PSNR dehazed dB | gain dB | better | SSIM hazy | SSIM dehazed "
    "| airlight error |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
)


def accuracy() -> None:
    """Real pairs, then simulated haze."""
    write = sys.stdout.write
    pairs = real_pairs()
    first, rest = pairs[:CHOSEN_ON], pairs[CHOSEN_ON:]
    write(HEADER)
    for omega in (dark_channel.DEFAULT_OMEGA, 0.5, 0.3):
        write(row(f"real, first {CHOSEN_ON} (constants chosen here), OMEGA {omega:g}", first, omega=omega))
        write(row(f"real, other {len(rest)}, OMEGA {omega:g}", rest, omega=omega))
    write(row(f"real, first {CHOSEN_ON}, stretch 2-98 % of each band", first, percentiles=True))
    write(row(f"real, other {len(rest)}, stretch 2-98 % of each band", rest, percentiles=True))
    for thickest in (0.6, 0.3):
        for gamma, light in ((1.0, "counts mixed"), (2.2, "light mixed")):
            name = f"simulated over NAIP, transmission 0.9 to {thickest:g}, {light}"
            hazed = simulated_pairs(thickest, gamma)
            write(row(name, hazed))
            write(row(f"{name}, true airlight given", hazed, true_airlight=True))
            write(row(f"{name}, stretch 2-98 % of each band", hazed, percentiles=True))
    write("\n")


@contextmanager
def constants(**values: Any) -> Any:
    """Run with other constants of the method."""
    before = {name: getattr(dark_channel, name) for name in values}
    for name, value in values.items():
        setattr(dark_channel, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(dark_channel, name, value)


def choices() -> None:
    """What the constants were chosen by: the first pairs only, as differences to the constants in use."""
    pairs = real_pairs()[:CHOSEN_ON]

    def results() -> np.ndarray:
        answers = (rounded(predict(surveyed(p.hazy, {}), p.hazy)) for p in pairs)
        return np.array([psnr(answer, p.clear) for answer, p in zip(answers, pairs, strict=True)])

    in_use = results()
    sys.stdout.write(
        f"| constant changed, first {CHOSEN_ON} real pairs | dB against the one in use |\n|---|---:|\n"
    )
    for name, values in (
        ("airlight: all of the haziest 0.1 %", {"BRIGHTEST": 1.0}),
        ("airlight: their brightest pixel (He et al.)", {"BRIGHTEST": 1e-9}),
        ("airlight: brightest tenth of the haziest 1 %", {"HAZIEST": 1e-2}),
        ("EPS 0.001", {"EPS": 1e-3}),
        ("EPS 0.00001", {"EPS": 1e-5}),
        ("radius 1 patch", {"RADIUS_PATCHES": 1}),
        ("radius 4 patches", {"RADIUS_PATCHES": 4}),
        ("least transmission 0.2", {"THINNEST_TRANSMISSION": 0.2}),
    ):
        with constants(**values):
            sys.stdout.write(f"| {name} | {interval(results() - in_use)} |\n")
    sys.stdout.write("\n")


def speed(height: int = 3000, width: int = 4000) -> None:
    """Survey and tiles of a scene, one core, without reading and writing."""
    image = simulate(np.random.default_rng(0).random((3, height, width), dtype=np.float32), 0).image
    valid = np.ones((height, width), bool)
    scene = SceneInfo(width, height, "uint8", None)
    task = builder("dark_channel")({}, "", "cpu", scene)
    assert task.survey is not None
    lattice = (
        Block(np.ascontiguousarray(image[:, r : r + 512, c : c + 512]), valid[r : r + 512, c : c + 512], r, c)
        for r in range(0, height, 512)
        for c in range(0, width, 512)
    )
    clock = [time.perf_counter()]
    task = task.survey(lattice)
    clock.append(time.perf_counter())
    step = task.tile - task.overlap(task.tile)
    rows, cols = ([*range(0, n - task.tile, step), n - task.tile] for n in (height, width))
    for r in rows:
        for c in cols:
            predict(task, image[:, r : r + task.tile, c : c + task.tile])
    clock.append(time.perf_counter())
    survey, tiles = np.diff(clock)
    mpx = height * width / 1e6
    sys.stdout.write(
        "| scene | survey s/Mpx | tiles s/Mpx | of these, overlap |\n|---|---:|---:|---:|\n"
        f"| {height} x {width}, {len(rows) * len(cols)} tiles of {task.tile}, overlap "
        f"{task.overlap(task.tile)} | {survey / mpx:.3f} | {tiles / mpx:.3f} "
        f"| {1 - mpx * 1e6 / (len(rows) * len(cols) * task.tile**2):.0%} |\n\n"
    )


def main() -> None:
    """Print the tables; those that need the development data say so where it is missing."""
    speed()
    if not (DATA / "hazy_pairs").is_dir():
        sys.stdout.write(f"No development data at {DATA}: accuracy is left out.\n")
        return
    accuracy()
    choices()


if __name__ == "__main__":
    main()
