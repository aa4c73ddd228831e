"""Read a written raster again: is it what was meant, and can every overview be decoded?"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window

from .raster_target import Target

#: Bytes of an overview that are decoded at once.
_STRIP_BYTES = 32 << 20


def check_profile(
    dataset: DatasetReader, target: Target, nodata: float | int | None, levels: list[int]
) -> str:
    """Return what is wrong with an opened file, "" for nothing. Pixels are not looked at."""
    expected = {
        "size": (target.width, target.height),
        "number of bands": target.count,
        "data type": {target.type.name},
        "number of overviews": len(levels),
        "mask": target.mask,
    }
    found = {
        "size": (dataset.width, dataset.height),
        "number of bands": dataset.count,
        "data type": set(dataset.dtypes),
        "number of overviews": len(dataset.overviews(1)),
        "mask": MaskFlags.per_dataset in dataset.mask_flag_enums[0]
        and MaskFlags.alpha not in dataset.mask_flag_enums[0],
    }
    for name, value in expected.items():
        if found[name] != value:
            return f"its {name} reads back as {found[name]}, not {value}"
    if not _same_number(dataset.nodata, nodata, target.type):
        return f"its nodata value reads back as {dataset.nodata}, not {nodata}"
    if not _same_place(dataset, target):
        return "its place on the ground reads back as another one"
    if any(text and text != kept for text, kept in zip(target.descriptions, dataset.descriptions)):  # noqa: B905
        return "its band names read back as other ones"
    return ""


def check_overviews(path: Path, target: Target, levels: list[int], check_cancel: Callable[[], None]) -> str:
    """Decode every overview of every band; return what is wrong, "" for nothing.

    A tile that was lost is zeros, which DEFLATE refuses, or has no bytes at all, which reads as zeros
    without an error: so the tiles' byte counts are asked for too.
    """
    for index, factor in enumerate(levels):
        with rasterio.open(path, overview_level=index) as dataset:
            # rasterio's own factors are those of the width alone, which is rounded up in narrow rasters
            if dataset.shape != (-(-target.height // factor), -(-target.width // factor)):
                return f"its overview 1:{factor} reads back with {dataset.shape} pixels"
            block_rows, block_cols = dataset.block_shapes[0]
            per_row = dataset.width * target.count * target.type.itemsize
            height = max(1, _STRIP_BYTES // (per_row * block_rows)) * block_rows
            for row in range(0, dataset.height, height):
                check_cancel()
                window = Window(0, row, dataset.width, min(height, dataset.height - row))
                dataset.read(window=window)
                if target.mask:
                    dataset.read_masks(1, window=window)
            blocks = math.ceil(dataset.height / block_rows), math.ceil(dataset.width / block_cols)
        with rasterio.open(path) as dataset:
            for band in dataset.indexes if dataset.interleaving.name == "band" else (1,):
                for y, x in np.ndindex(blocks):
                    size = dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=band, ovr=index)
                    if not size or int(size) == 0:
                        return f"its overview 1:{factor} lacks a tile"
    return ""


def _same_number(found: float | None, expected: float | int | None, dtype: np.dtype) -> bool:
    if found is None or expected is None:
        return found is expected
    with np.errstate(over="ignore"):
        first, second = np.array([found, expected], dtype)
    return bool(first == second or (first != first and second != second))


def _same_place(dataset: DatasetReader, target: Target) -> bool:
    transform = target.transform
    # GeoTIFF keeps doubles, but a plain raster's origin and pixel size come back through a product
    if target.georeferenced and not dataset.transform.almost_equals(transform, 1e-9 * _largest(transform)):
        return False
    if target.crs is None or dataset.crs is None:
        return target.crs is None and dataset.crs is None
    # an engineering CRS comes back in other words; one with a code must not
    return dataset.crs == target.crs or target.crs.to_epsg() is None


def _largest(transform: rasterio.Affine) -> float:
    return max(1e-6, *(abs(value) for value in transform[:6]))
