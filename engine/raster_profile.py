"""How a GeoTIFF is laid out and packed: decided here alone, never copied from a source.

A copied profile brings JPEG, YCbCr, NBITS or a foreign nodata along (ENGINE.md, section 6).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from .raster_target import Target

#: Pixels a side of a tile: windows of the engine are full-width and a multiple of it high.
BLOCK = 256

#: Bands that are written pixel-interleaved. Measured (rasterio 1.4.4 with libdeflate, 1 core, MB and s
#: at level 4-6): RGB uint8 22.6 pixel, 22.8 band; 11 bands uint8 30.5 and 27.4, 0.71 s and 0.60 s;
#: 13 bands int16 41.0 and 35.3, 0.84 s and 0.76 s. Up to 4 bands one read serves a picture.
PIXEL_INTERLEAVED = 4

#: DEFLATE's level for measures. Measured as above, level 1, 6 and 9: RGB uint8 0.32 s 22.9 MB, 0.74 s
#: 22.6 MB, 2.83 s 22.1 MB; Sentinel-2 int16 0.83 s 59.4 MB, 1.49 s 60.2 MB; float32 1.01 s 70.6 MB,
#: 2.71 s 67.7 MB, 20.8 s 65.1 MB: noise does not pack, so the time is lost.
LEVEL_MEASURES = 1
#: And for classes, which do pack: 0.05 s 1.2 MB, level 6 0.18 s 0.9 MB.
LEVEL_CLASSES = 6

#: No overviews up to here: the raster itself is as quickly drawn.
OVERVIEWS_ABOVE = 512

RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def creation_profile(target: Target, compress: str = "deflate") -> dict[str, Any]:
    """Return what ``rasterio.open(path, "w", ...)`` needs for ``target``.

    ``compress`` ``zstd`` is taken where GDAL has it: faster and 10-20 % smaller, but not every
    program reads it. There is no NUM_THREADS: with it a full disk stays silent.
    """
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": target.width,
        "height": target.height,
        "count": target.count,
        "dtype": target.type.name,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "bigtiff": "IF_SAFER",  # IF_NEEDED never triggers on compressed files
        "interleave": "pixel" if target.count <= PIXEL_INTERLEAVED else "band",
        "photometric": "RGB" if _is_rgb(target) else "MINISBLACK",
        **compression(target, compress),
    }
    if target.colormap is not None:
        profile["photometric"] = "PALETTE"
    alpha = 3 if _is_rgb(target) else 1  # index of the first band beyond the photometric ones
    if target.count > alpha and target.colorinterp and target.colorinterp[alpha] == ColorInterp.alpha:
        profile["alpha"] = "YES"
    else:
        profile["alpha"] = "NO"
    if target.crs is not None:
        profile["crs"] = target.crs
    if target.georeferenced:
        profile["transform"] = target.transform
    if target.nodata is not None:
        profile["nodata"] = target.nodata
    return profile


def compression(target: Target, compress: str = "deflate") -> dict[str, Any]:
    """Return GTiff's options of packing; the predictor is the one of the dtype."""
    packing: dict[str, Any] = {"predictor": predictor(target)}
    if compress == "zstd" and has_zstd():
        return {**packing, "compress": "ZSTD", "zstd_level": 9}
    return {**packing, "compress": "DEFLATE", "zlevel": level(target)}


def predictor(target: Target) -> int:
    """Return 3 for floats, 2 for integers (64 bits too: probed with libtiff 4.7 inside rasterio 1.4)."""
    return 3 if target.type.kind == "f" else 2


def level(target: Target) -> int:
    """Return DEFLATE's level."""
    return LEVEL_MEASURES if target.resampling == "average" else LEVEL_CLASSES


@cache
def has_zstd() -> bool:
    """Return whether this GDAL can write ZSTD; found out by writing one pixel."""
    try:
        with (
            MemoryFile() as memory,
            memory.open(
                driver="GTiff", width=1, height=1, count=1, dtype="uint8", compress="ZSTD"
            ) as dataset,
        ):
            dataset.write(np.zeros((1, 1, 1), np.uint8))
    except (RasterioError, CPLE_BaseError):
        return False
    return True


def overview_levels(target: Target) -> list[int]:
    """Return factors 2, 4, ... until the longer side is below BLOCK; none for small rasters."""
    side = max(target.width, target.height)
    if side <= OVERVIEWS_ABOVE:
        return []
    levels = [2]
    while -(-side // levels[-1]) >= BLOCK:
        levels.append(levels[-1] * 2)
    return levels


def overview_bytes(target: Target) -> int:
    """Return the bytes that the overviews may take at most."""
    sizes = ((-(-target.width // f), -(-target.height // f)) for f in overview_levels(target))
    return sum(_bytes(target, *size) for size in sizes)


def size_bound(target: Target) -> int:
    """Return the bytes ``target`` may take at most while it is written.

    A COG is written from a finished file, so it needs the place twice.
    """
    total = _bytes(target, target.width, target.height) + overview_bytes(target) + 100_000
    return 2 * total if target.cog else total


def _bytes(target: Target, width: int, height: int) -> int:
    """Return the bytes of unpacked pixels, one bit per pixel for a mask, and the tables of tiles."""
    pixels = width * height
    plain = pixels * target.count * target.type.itemsize + (pixels // 8 if target.mask else 0)
    return plain + -(-width // BLOCK) * -(-height // BLOCK) * target.count * 64


def _is_rgb(target: Target) -> bool:
    return target.colorinterp[:3] == RGB
