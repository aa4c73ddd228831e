#!/usr/bin/env python3
"""Write a simulated SAR scene as a georeferenced raster, with the truth: ``make_sar_scene.py OUT.tif``.

The picture is simulated (kestrel.models.sar_ships.simulate) and says so in its tags and band description.
``--truth`` writes the boxes of the visible ships as polygons, ``--land`` the land, both in the raster's CRS,
as GeoPackage, GeoJSON or FlatGeobuf by the file's ending.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import shapes
from shapely.geometry import Polygon, shape

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.sar_ships import stretch  # noqa: E402
from kestrel.models.sar_ships.simulate import Scene, draw_conditions, simulate_scene  # noqa: E402

METRES_PER_DEGREE = 111_320.0  # of latitude, and of longitude at the equator
#: What the values of each kind of raster are.
UNITS = {
    "uint8": "amplitude as 8-bit digital numbers",
    "uint16": "amplitude as digital numbers, 1000 = sigma0 of 0 dB",
    "db": "sigma0 in dB",
    "linear": "sigma0, linear power",
}
DIGITAL_ZERO_DB = 1000.0  # digital number of sigma0 = 0 dB; leaves 36 dB above before 16 bits are full
SEA_GREY = 24.0  # median of the sea in HRSID's open chips


@dataclass(frozen=True)
class GeoScene:
    """A written scene: its file, simulation, affine transform and CRS; ``polygons``: the boxes."""

    path: Path
    scene: Scene
    transform: Affine
    crs: CRS
    polygons: list[Polygon]


def scene_transform(
    origin: tuple[float, float], pixel_m: float, rotation_deg: float, degrees: bool
) -> Affine:
    """Affine transform from the upper left corner ``origin``, turned counter-clockwise by ``rotation_deg``.

    With ``degrees`` the pixel measures ``pixel_m`` on the ground at the origin's latitude.
    """
    to_crs = Affine.identity()
    if degrees:
        to_crs = Affine.scale(1 / (METRES_PER_DEGREE * np.cos(np.deg2rad(origin[1]))), 1 / METRES_PER_DEGREE)
    ground = Affine.rotation(rotation_deg) * Affine.scale(pixel_m, -pixel_m)
    return Affine.translation(*origin) * to_crs * ground


def box_polygons(boxes: np.ndarray, transform: Affine) -> list[Polygon]:
    """Boxes x1, y1, x2, y2 in pixel edges as polygons, each corner through the full transform."""
    return [
        Polygon([transform * corner for corner in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))])
        for x1, y1, x2, y2 in boxes.astype(float)
    ]


def scene_values(scene: Scene, kind: str) -> np.ndarray:
    """The scene's amplitude in the unit of ``kind``, one of UNITS."""
    if kind == "uint8":
        sea = scene.amplitude[~scene.land] if not scene.land.all() else scene.amplitude
        return stretch.quantise(scene.amplitude, float(np.median(sea)), SEA_GREY)
    if kind == "uint16":
        # 0 is kept free, since users declare it as nodata
        return np.rint(np.clip(scene.amplitude * DIGITAL_ZERO_DB, 1, 65535)).astype(np.uint16)
    return stretch.decibels(scene.amplitude) if kind == "db" else np.square(scene.amplitude)


def write_raster(
    path: Path, values: np.ndarray, transform: Affine, crs: CRS, description: str, tags: dict[str, str]
) -> None:
    """Write one band as a tiled, compressed GeoTIFF."""
    profile = {"driver": "GTiff", "tiled": True, "compress": "deflate", "crs": crs, "transform": transform}
    height, width = values.shape
    with rasterio.open(
        path, "w", height=height, width=width, count=1, dtype=values.dtype, **profile
    ) as raster:
        raster.write(values, 1)
        raster.set_band_description(1, description)
        raster.update_tags(**tags)


def write_truth(path: Path, scene: Scene, polygons: list[Polygon], crs: CRS) -> None:
    """Write the visible ships' boxes with size, heading (clockwise from the raster's up) and contrast."""
    visible = [ship for ship in scene.ships if ship.visible]
    table = {
        "id": list(range(1, len(visible) + 1)),
        "class": ["ship"] * len(visible),
        **{
            name: [getattr(s, name) for s in visible]
            for name in ("length_m", "beam_m", "heading_deg", "kind")
        },
        "snr": [ship.snr for ship in visible],
        "contrast_db": [ship.contrast_db for ship in visible],
    }
    geopandas.GeoDataFrame(table, geometry=polygons, crs=crs).to_file(path)


def write_land(path: Path, scene: Scene, transform: Affine, crs: CRS) -> None:
    """Write the land as polygons along the pixels' edges; without land the layer is empty."""
    found = shapes(scene.land.astype(np.uint8), mask=scene.land, transform=transform)
    polygons = [shape(geometry) for geometry, _ in found]
    frame = geopandas.GeoDataFrame({"name": ["land"] * len(polygons)}, geometry=polygons, crs=crs)
    frame.to_file(path, geometry_type="Polygon")


def make_scene(
    path: Path,
    *,
    seed: int = 2_000_379,
    height: int = 1500,
    width: int = 2000,
    pixel_m: float = 10.0,
    epsg: int = 32631,
    origin: tuple[float, float] | None = None,
    rotation_deg: float = 0.0,
    kind: str = "uint16",
    ships: int | None = 60,
    land_share: float | None = 0.25,
    arrangement: str | None = None,
    truth: Path | None = None,
    land: Path | None = None,
) -> GeoScene:
    """Simulate a scene, write it and what truth is asked for; see the module and :data:`UNITS`.

    ``origin``: upper left corner in the CRS (x, y), by default in the southern North Sea for UTM zone 31
    and for degrees. ``ships`` and ``land_share`` as in ``simulate_scene``; ``arrangement``: how the ships
    lie (``open``, ``lane``, ``anchorage``, ``port``), None = drawn from the seed like the rest.
    """
    crs = CRS.from_epsg(epsg)
    corner = origin or ((2.5, 52.0) if crs.is_geographic else (465_000.0, 5_760_000.0))
    transform = scene_transform(corner, pixel_m, rotation_deg, crs.is_geographic)
    conditions = None
    if arrangement:
        drawn = draw_conditions(np.random.default_rng(seed), pixel_m)
        conditions = dataclasses.replace(drawn, arrangement=arrangement)
    scene = simulate_scene(seed, height, width, pixel_m, ships=ships, land=land_share, conditions=conditions)
    tags = {
        "TIFFTAG_IMAGEDESCRIPTION": f"Simulated SAR scene, seed {seed}: not a measurement",
        "SIMULATED": "YES",
        "SIMULATOR": "kestrel.models.sar_ships.simulate",
        "SEED": str(seed),
    }
    write_raster(path, scene_values(scene, kind), transform, crs, f"simulated {UNITS[kind]}", tags)
    polygons = box_polygons(scene.boxes, transform)
    if truth:
        write_truth(truth, scene, polygons, crs)
    if land:
        write_land(land, scene, transform, crs)
    return GeoScene(path, scene, transform, crs, polygons)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="GeoTIFF to write")
    parser.add_argument("--seed", type=int, default=2_000_379)
    parser.add_argument("--height", type=int, default=1500, help="pixels")
    parser.add_argument("--width", type=int, default=2000, help="pixels")
    parser.add_argument("--pixel-m", type=float, default=10.0, help="pixel size in metres")
    parser.add_argument("--epsg", type=int, default=32631, help="4326 gives a raster in degrees")
    parser.add_argument("--origin", type=float, nargs=2, metavar=("X", "Y"), help="upper left corner")
    parser.add_argument("--rotation", type=float, default=0.0, help="degrees, counter-clockwise")
    parser.add_argument("--dtype", choices=("uint8", "uint16", "float32"), default="uint16")
    parser.add_argument("--unit", choices=("db", "linear"), default="db", help="sigma0, float32 only")
    parser.add_argument("--ships", type=int, default=60, help="ships to place")
    parser.add_argument("--land-share", type=float, default=0.25, help="share of land, 0 to 0.95")
    parser.add_argument("--arrangement", choices=("open", "lane", "anchorage", "port"), help="how ships lie")
    parser.add_argument("--truth", type=Path, help="vector file for the ships' boxes")
    parser.add_argument("--land", type=Path, help="vector file for the land")
    args = parser.parse_args()
    made = make_scene(
        args.out,
        seed=args.seed,
        height=args.height,
        width=args.width,
        pixel_m=args.pixel_m,
        epsg=args.epsg,
        origin=tuple(args.origin) if args.origin else None,
        rotation_deg=args.rotation,
        kind=args.unit if args.dtype == "float32" else args.dtype,
        ships=args.ships,
        land_share=args.land_share,
        arrangement=args.arrangement,
        truth=args.truth,
        land=args.land,
    )
    sys.stdout.write(f"{made.path}: simulated scene with {len(made.polygons)} labelled ships\n")


if __name__ == "__main__":
    main()
