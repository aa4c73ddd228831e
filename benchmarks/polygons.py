"""What polygons of a large mask cost: seconds and memory, from strips of rows to the written layer.

``python benchmarks/polygons.py [plain] [simplified] [regular] [gdal] [equal]`` prints a Markdown table
(all by default), one process a row. Stages are seconds of CPU; a shared machine stretches them on the
clock. The mask is made by code, strip by strip, and never whole except for GDAL: rough rectangles of
4 to 12 px, one in each cell of 14 px, with holes in some, 0.5 m pixels in UTM.
``gdal``: ``rasterio.features.shapes`` on the whole mask, only to compare. ``equal`` compares polygons,
areas and figures of random masks cut at random with the uncut ones.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
CELL = 14
#: Cells in a strip: 252 rows, as the writer of rasters would hand them on.
CELLS = 18
#: 320 x 320 cells: 20.07 Mpx, 102,400 rectangles.
SIDE = 4480
ROWS = ("plain", "simplified", "regular", "gdal", "equal")


def strips(side: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (row, mask uint8, score float32) of a scene of ``side`` pixels squared."""
    cells = side // CELL
    for first in range(0, cells, CELLS):
        rng = np.random.default_rng(first)
        down = min(CELLS, cells - first)
        height, width = rng.integers(4, 13, (2, down, 1, cells, 1))
        y, x = np.arange(CELL)[None, :, None, None], np.arange(CELL)[None, None, None, :]
        inside = (y >= 1) & (y <= height) & (x >= 1) & (x <= width)
        border = inside & ((y == 1) | (y == height) | (x == 1) | (x == width))
        chance = rng.random((down, CELL, cells, CELL), dtype=np.float32)
        # every sixth pixel of the border missing, every fiftieth within
        inside &= chance > np.where(border, 1 / 6, 1 / 50)
        mask = inside.reshape(down * CELL, cells * CELL).astype(np.uint8)
        yield first * CELL, mask, chance.reshape(mask.shape)


def streamed(side: int, **rules: Any) -> dict[str, Any]:
    """Polygonise, measure, shape and write; return seconds by stage and the counts."""
    from affine import Affine
    from kestrel.engine.features import write_features
    from kestrel.engine.georef import Georef
    from kestrel.engine.grid import plan_grid
    from kestrel.engine.polygons import Polygoniser, gather
    from kestrel.engine.polygons_features import Labels, ShapeRules, polygon_features
    from pyproj import CRS

    georef = Georef("affine", Affine(0.5, 0, 4e5, 0, -0.5, 5e6), None, CRS.from_epsg(32633), True)
    seconds = 0.0
    polygoniser, parts = Polygoniser(side // CELL * CELL), []
    for row, mask, score in strips(side):
        start = time.process_time()
        parts.append(polygoniser.put(row, mask, score))
        seconds += time.process_time() - start
    start = time.process_time()
    outlines = gather([*parts, polygoniser.finish()])
    del parts
    outlined = time.process_time()
    grid = plan_grid(side, side, 256, 64, 16, 0)
    features = polygon_features(
        outlines, georef, grid, ShapeRules(**rules), Labels("change", None, None, "benchmark")
    )
    shaped = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        write_features(Path(folder) / "polygons.fgb", features, georef)
    written = time.process_time()
    stages = {
        "outline": seconds + outlined - start,
        "shape": shaped - outlined,
        "write": written - shaped,
    }
    return {"objects": len(features), **stages}


def gdal(side: int) -> dict[str, Any]:
    """Do the same with GDAL on the whole mask, up to shapely polygons."""
    import shapely
    from rasterio.features import shapes

    mask = np.concatenate([mask for _, mask, _ in strips(side)])
    start = time.process_time()
    found = [shapely.geometry.shape(shape) for shape, _ in shapes(mask, mask=mask == 1, connectivity=4)]
    return {"objects": len(found), "outline": time.process_time() - start, "shape": 0.0, "write": 0.0}


def equal(count: int) -> dict[str, Any]:
    """Compare cut with uncut masks and with GDAL; return how many were alike."""
    import shapely
    from kestrel.engine.polygons import Outlines, Polygoniser, gather
    from rasterio.features import shapes

    def run(mask: np.ndarray, score: np.ndarray, cuts: list[int]) -> Outlines:
        polygoniser = Polygoniser(mask.shape[1])
        parts = [polygoniser.put(a, mask[a:b], score[a:b]) for a, b in pairwise(cuts)]
        return gather([*parts, polygoniser.finish()])

    rng = np.random.default_rng(0)
    same = alike = polygons = 0
    worst = 0.0
    for _ in range(count):
        height, width = rng.integers(1, 65, 2)
        mask = (rng.random((height, width)) < rng.uniform(0.1, 0.9)).astype(np.uint8)
        score = rng.random(mask.shape, dtype=np.float32)
        whole = run(mask, score, [0, height])
        cut = run(mask, score, sorted({0, int(height), *rng.integers(0, height + 1, 5).tolist()}))
        polygons += len(whole)
        same += shapely.equals(whole.polygons, cut.polygons).all() and len(whole) == len(cut)
        areas = shapely.area(whole.polygons), shapely.area(cut.polygons)
        worst = max(worst, np.max(np.abs(areas[0] - areas[1]), initial=0.0))
        found = [shapely.geometry.shape(s) for s, _ in shapes(mask, mask=mask == 1, connectivity=4)]
        theirs = shapely.to_wkb(shapely.normalize(shapely.make_valid(np.array(found, object))))
        alike += sorted(theirs) == sorted(shapely.to_wkb(shapely.normalize(whole.polygons)))
    return {"masks": count, "polygons": polygons, "same": int(same), "gdal": int(alike), "worst": worst}


def measure_row(row: str, side: int) -> dict[str, Any]:
    """Do one row in this process; return its figures with the peak of resident memory."""
    rules: dict[str, dict[str, Any]] = {
        "plain": {},
        "simplified": {"simplify_m": 0.5, "max_hole_m2": 5.0},
        "regular": {"regularise": True},
    }
    if row == "equal":
        return equal(200)
    start = time.perf_counter()
    figures = gdal(side) if row == "gdal" else streamed(side, **rules[row])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**figures, "wall": time.perf_counter() - start, "peak": peak}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help=", ".join(ROWS))
    parser.add_argument("--side", type=int, default=SIDE, help="of the scene in pixels")
    parser.add_argument("--here", action="store_true", help="do the row in this process, print JSON")
    chosen = parser.parse_args()
    spec = importlib.util.spec_from_file_location("conftest", ROOT / "conftest.py")
    assert spec
    assert spec.loader
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    if chosen.here:
        print(json.dumps(measure_row(chosen.rows[0], chosen.side)))
        return 0
    rows = chosen.rows or list(ROWS)
    unknown = sorted(set(rows) - set(ROWS))
    if unknown:
        parser.error(f"no row is called {unknown[0]}; choose of {', '.join(ROWS)}")
    print(f"{chosen.side} x {chosen.side} px ({chosen.side**2 / 1e6:.1f} Mpx)\n")
    print("| polygons | objects | outline | measure and shape | write | CPU s | wall s, mask too | peak MB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        command = [sys.executable, __file__, row, "--here", "--side", str(chosen.side)]
        figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        if row == "equal":
            text = (
                "\n{masks} random masks, {polygons} polygons: {same} masks alike cut and uncut "
                "(areas differ by {worst:g} px at most), {gdal} alike to GDAL's"
            )
            print(text.format(**figures))
            continue
        stages = [figures[name] for name in ("outline", "shape", "write")]
        cells = " | ".join(f"{s:.1f}" for s in (*stages, sum(stages)))
        ends = f"{figures['wall']:.1f} | {figures['peak']:.0f}"
        print(f"| {row} | {figures['objects']:,} | {cells} | {ends} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
