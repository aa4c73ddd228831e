"""Real chips of the development data as georeferenced rasters, with their truth in map coordinates."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry import Polygon

ROOT = Path(__file__).resolve().parents[2]
UTM = CRS.from_epsg(32631)
WGS84 = CRS.from_epsg(4326)
#: Map position of the chip's upper left corner, in open sea.
UTM_CORNER = (465_000.0, 5_760_000.0)
LONLAT_CORNER = (2.5, 52.0)
LAYOUTS = ("north_up", "rotated", "degrees")
#: Chips with ships in open water whose labels are complete.
HRSID_CHIP = "hrsid_official4/P0135_1800_2600_4800_5600.png"
OPENSAR_CHIP = "opensarship/20160131T101646_Cargo_x14681_y14125.tif"


@dataclass(frozen=True)
class LaidOut:
    """A written chip: ``boxes`` float32 (N, 4) x1, y1, x2, y2 in pixel edges, ``polygons`` likewise."""

    path: Path
    boxes: np.ndarray
    polygons: list[Polygon]
    crs: CRS
    transform: Affine


def data_folder() -> Path:
    """Folder ``sar_ships`` of the development data; skips the test where it is absent."""
    folder = Path(os.environ.get("KESTREL_DATA") or ROOT.parent / "shared" / "data") / "sar_ships"
    if not folder.is_dir():
        pytest.skip(f"development data not found at {folder}; set KESTREL_DATA")
    return folder


def read_chip(name: str) -> tuple[np.ndarray, np.ndarray, float]:
    """First band, label boxes (N, 4) in pixel edges, and pixel size in metres of a chip.

    ``name``: path below ``sar_ships``. HRSID gives no pixel size for a chip; 3 m is its usual one.
    """
    data = data_folder()
    with rasterio.Env(), rasterio.open(data / name) as raster:
        band = raster.read(1)
    if name.startswith("opensarship"):
        with (data / "opensarship" / "boxes.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["file"] == Path(name).name]
        # labels count from pixel centres
        boxes = [[float(row[f"geo_{key}"]) + 0.5 for key in ("x1", "y1", "x2", "y2")] for row in rows]
        return band, np.array(boxes, dtype=np.float32).reshape(-1, 4), 10.0
    coco = json.loads((data / f"{name.split('/')[0]}_boxes_coco.json").read_text())
    image = next(item["id"] for item in coco["images"] if item["file_name"] == name)
    xywh = np.array([a["bbox"] for a in coco["annotations"] if a["image_id"] == image], dtype=np.float32)
    xywh = xywh.reshape(-1, 4)
    return band, np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1), 3.0


def layout_transform(layout: str, pixel_m: float) -> tuple[CRS, Affine]:
    """CRS and transform of one of LAYOUTS: UTM north-up, UTM turned by 30 degrees, or degrees (WGS84)."""
    if layout == "degrees":
        step = pixel_m / 111_320
        return WGS84, Affine.translation(*LONLAT_CORNER) * Affine.scale(
            step / np.cos(np.deg2rad(LONLAT_CORNER[1])), -step
        )
    turn = {"north_up": 0.0, "rotated": 30.0}[layout]
    return UTM, Affine.translation(*UTM_CORNER) * Affine.rotation(turn) * Affine.scale(pixel_m, -pixel_m)


def lay_out_chip(folder: Path, name: str = HRSID_CHIP, layout: str = "north_up") -> LaidOut:
    """Write a real chip as ``folder/<stem>_<layout>.tif`` , georeferenced by ``layout``."""
    band, boxes, pixel_m = read_chip(name)
    crs, transform = layout_transform(layout, pixel_m)
    path = folder / f"{Path(name).stem}_{layout}.tif"
    height, width = band.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype=band.dtype, crs=crs,
        transform=transform, tiled=height >= 256, blockxsize=256, blockysize=256,
    ) as raster:  # fmt: skip
        raster.write(band, 1)
    polygons = [
        Polygon([transform * corner for corner in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))])
        for x1, y1, x2, y2 in boxes.astype(float)
    ]
    return LaidOut(path, boxes, polygons, crs, transform)
