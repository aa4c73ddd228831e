"""Prove that the libraries work before a model is loaded: a broken one fails late and strangely.

Two PROJ databases or two GDALs in one environment are the usual cause (QGIS.md, section 1).
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import rasterio
from pyproj import CRS as ProjCRS
from rasterio.crs import CRS

from .errors import EngineError


def prove_stack(scratch: Path | None) -> None:
    """Look up a CRS in both PROJ databases and write one pixel; raises EngineError."""
    try:
        CRS.from_epsg(32633).to_wkt()
        ProjCRS.from_epsg(32633)
    except Exception as error:
        raise EngineError(
            "runtime",
            f"The Python {sys.executable} cannot look up a CRS ({error}).",
            "PROJ_LIB, PROJ_DATA or GDAL_DATA point at another installation: unset them.",
        ) from error
    if scratch is None:
        return
    pixel = scratch / ".kestrel-probe.tif"
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with rasterio.open(
            pixel, "w", driver="GTiff", width=1, height=1, count=1, dtype="uint8",
            crs=CRS.from_epsg(32633), transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
        ) as dataset:  # fmt: skip
            dataset.write(np.ones((1, 1, 1), np.uint8))
        with rasterio.open(pixel) as dataset:
            if dataset.read(1)[0, 0] != 1:
                raise OSError("the pixel reads back as another value")
    except Exception as error:
        raise EngineError(
            "output",
            f"A test file cannot be written to {scratch} ({error}).",
            "Check free space and permissions of that folder.",
        ) from error
    finally:
        with suppress(OSError):
            pixel.unlink()
