"""Run the main job as a user would: ships in a SAR scene, through the real qgis_process.

``make demo`` simulates a scene (called simulated wherever it appears), runs
``kestrel:detectships`` on it and compares with the simulator's truth. ``make demo SCENE=path``
takes a SAR raster of yours; without truth there is no precision and no recall. Exits with 1 when no
polygon was written, or when recall on the simulated scene is under 0.8.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import geopandas
import matplotlib
import numpy as np
import rasterio
from rasterio.enums import Resampling

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "demo"
MIN_RECALL = 0.8
#: Longest side of the picture in pixels; a larger scene is read decimated.
PICTURE_PX = 1600


def say(text: str) -> None:
    """Write one line to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def shown(path: Path) -> str:
    """Return the path as the user would type it from the checkout."""
    try:
        return str(path.relative_to(ROOT))
    except ValueError:
        return str(path)


def simulate(scene: Path, truth: Path, land: Path) -> None:
    """Write the simulated scene, its ships and its land; raises when the simulator fails."""
    command = [sys.executable, str(ROOT / "scripts" / "make_sar_scene.py"), str(scene)]
    # A shipping lane off a coast: an installation check, not an accuracy figure (benchmarks/README.md
    # has those, harbours included). The default seed lies outside what training and validation draw from.
    command += ["--arrangement", "lane", "--land-share", "0.15", "--truth", str(truth), "--land", str(land)]
    subprocess.run(command, check=True)


def detect(scene: Path, ships: Path, report: Path, land: Path | None) -> dict:
    """Run kestrel:detectships through qgis_process; returns its results, exits with its code."""
    command = [str(ROOT / "scripts" / "qgis_process"), "--json", "run", "kestrel:detectships", "--"]
    command += [f"INPUT={scene}", f"OUTPUT={ships}", f"REPORT={report}"]
    if land:
        command.append(f"LAND_MASK={land}")
    say("demo: " + " ".join(shown(Path(part)) if part.startswith("/") else part for part in command))
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        say(run.stdout + run.stderr)
        raise SystemExit(run.returncode)
    return json.loads(run.stdout[run.stdout.index("{") :])["results"]


def match(found: geopandas.GeoDataFrame, truth: geopandas.GeoDataFrame) -> tuple[int, int, int]:
    """Return (true positives, false positives, missed) at IoU >= 0.5, best score first.

    IoU is taken between the polygons in map coordinates; a ship is matched once.
    """
    free = list(truth.geometry)
    hits = 0
    for polygon in found.sort_values("score", ascending=False).geometry:
        overlaps = [polygon.intersection(ship).area / polygon.union(ship).area for ship in free]
        if overlaps and max(overlaps) >= 0.5:
            free.pop(int(np.argmax(overlaps)))
            hits += 1
    return hits, len(found) - hits, len(free)


def picture(scene: Path, ships: geopandas.GeoDataFrame, path: Path, title: str) -> None:
    """Draw the scene with the boxes on it, both in the scene's pixels."""
    with rasterio.open(scene) as source:
        step = max(1.0, max(source.width, source.height) / PICTURE_PX)
        shape = (round(source.height / step), round(source.width / step))
        pixels = source.read(1, out_shape=shape, resampling=Resampling.average, masked=True)
    low, high = np.nanpercentile(pixels.compressed(), [1, 99.5])
    figure, axes = pyplot.subplots(figsize=(shape[1] / 100, shape[0] / 100 + 0.4), dpi=100)
    axes.imshow(pixels, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    for ship in ships.itertuples():
        x, y = (ship.x_px - ship.w_px / 2) / step - 0.5, (ship.y_px - ship.h_px / 2) / step - 0.5
        axes.add_patch(
            pyplot.Rectangle((x, y), ship.w_px / step, ship.h_px / step, fill=False, color="red", lw=1)
        )
    axes.set_title(title, fontsize=9)
    axes.axis("off")
    figure.tight_layout(pad=0.2)
    figure.savefig(path)
    pyplot.close(figure)


def main() -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", nargs="?", default="", help="a SAR raster; empty = simulate one")
    typed = parser.parse_args().scene
    OUT.mkdir(parents=True, exist_ok=True)

    if typed:
        scene, truth, land = Path(typed).resolve(), None, None
        name = scene.name
        if not scene.is_file():
            say(f"demo: there is no file {typed}. Give the path of a SAR raster: make demo SCENE=path.")
            return 1
    else:
        scene, truth, land = OUT / "scene.tif", OUT / "truth.gpkg", OUT / "land.gpkg"
        name = "simulated SAR scene"
        simulate(scene, truth, land)
        say(f"demo: simulated SAR scene: {shown(scene)} (made by scripts/make_sar_scene.py)")
    ships, report, png = OUT / "ships.gpkg", OUT / "report.html", OUT / "ships.png"
    detect(scene, ships, report, land)

    found = geopandas.read_file(ships, layer=ships.stem)
    say(f"demo: {len(found)} ships found in {name}")
    for ship in found.head(10).itertuples():
        place = "no CRS" if ship.lon is None or np.isnan(ship.lon) else f"{ship.lat:.5f} N {ship.lon:.5f} E"
        size = "" if np.isnan(ship.long_m) else f", box {ship.long_m:.0f} x {ship.short_m:.0f} m"
        say(f"  {ship.id:4d}  score {ship.score:.2f}  {place}{size}")
    if len(found) > 10:
        say(f"  ... and {len(found) - 10} more")
    picture(scene, found, png, f"Ships found by kestrel:detectships - {name}")
    say("demo: wrote")
    for path in (ships, ships.with_name(ships.name + ".kestrel.json"), report, png):
        say(f"  {shown(path)}")

    if truth is None:
        return 0 if len(found) else 1
    hits, false_alarms, missed = match(found, geopandas.read_file(truth, layer=truth.stem))
    recall = hits / max(1, hits + missed)
    precision = hits / max(1, hits + false_alarms)
    say(
        f"demo: against the simulator's truth at IoU >= 0.5: precision {precision:.2f}, "
        f"recall {recall:.2f} ({hits} of {hits + missed} ships, {false_alarms} false alarms; simulated)"
    )
    if not len(found) or recall < MIN_RECALL:
        say(f"demo: recall is under {MIN_RECALL}: something is wrong with this installation.")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
