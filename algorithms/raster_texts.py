"""Ids, labels and help of the parameters that raster-to-raster algorithms share."""

from __future__ import annotations

from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from .base import REPORT
from .checks import AOI, EXTENT, INPUT, OUTPUT

BANDS = "BANDS"
OTHER_BANDS = "OTHER_BANDS"
STRETCH_MIN = "STRETCH_MIN"
STRETCH_MAX = "STRETCH_MAX"
STRENGTH = "STRENGTH"
TILE = "TILE"
OVERLAP = "OVERLAP"
REFERENCE = "REFERENCE"
OUTPUT_HAZE = "OUTPUT_HAZE"

COPY, DROP = "copy", "drop"

SHARED_TEXTS: dict[str, tuple[str, str]] = {
    INPUT: (
        QT_TRANSLATE_NOOP("Kestrel", "Hazy raster"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "A raster of any size with at least three visible bands, 8-bit, 16-bit or float, with or without "
            "nodata and alpha. Rotated and south-up rasters, any CRS and none are fine. Radar, complex and "
            "palette rasters are refused, and so is one placed by ground control points only: warp it first.",
        ),
    ),
    BANDS: (
        QT_TRANSLATE_NOOP("Kestrel", "Red, green and blue band"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Three band numbers from 1 in the order red, green, blue, such as 3,2,1. Empty = automatic: by "
            "colour interpretation, by description (B4 or Red) or by wavelength, else 1, 2, 3.",
        ),
    ),
    OTHER_BANDS: (
        QT_TRANSLATE_NOOP("Kestrel", "Other bands"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "copy: all other bands go unchanged into the output, in the input's order; they still hold their "
            "haze, so indices across dehazed and copied bands are not comparable. drop: the output holds the "
            "three dehazed bands, and alpha.",
        ),
    ),
    STRETCH_MIN: (
        QT_TRANSLATE_NOOP("Kestrel", "Stretch minimum"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Pixel value that counts as black: one number for all three bands, or three as a,b,c in the "
            "order of the bands. Empty = automatic: 0, or less where values are negative. Values outside the "
            "stretch are kept.",
        ),
    ),
    STRETCH_MAX: (
        QT_TRANSLATE_NOOP("Kestrel", "Stretch maximum"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Pixel value that counts as white, written like the minimum. Empty = automatic: 255 for 8-bit "
            "data, else nearly the brightest value of the whole raster. Give both or neither.",
        ),
    ),
    EXTENT: (
        QT_TRANSLATE_NOOP("Kestrel", "Extent"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "The output covers this part only, snapped outward to the raster's pixels, and equals that part "
            "of a run on the whole raster. As text: xmin,xmax,ymin,ymax [EPSG:code].",
        ),
    ),
    AOI: (
        QT_TRANSLATE_NOOP("Kestrel", "Area of interest"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Polygons in any CRS. The output covers their bounds; outside the polygons pixels keep the "
            "input's values.",
        ),
    ),
    STRENGTH: (
        QT_TRANSLATE_NOOP("Kestrel", "Strength"),
        QT_TRANSLATE_NOOP(
            "Kestrel", "How much of the change is applied: 0 leaves the input as it is, 1 applies all of it."
        ),
    ),
    TILE: (
        QT_TRANSLATE_NOOP("Kestrel", "Tile (pixels)"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Side of the squares that are worked on one by one. Smaller needs less memory and more time.",
        ),
    ),
    OVERLAP: (
        QT_TRANSLATE_NOOP("Kestrel", "Overlap of tiles (pixels)"),
        QT_TRANSLATE_NOOP("Kestrel", "Less than the tile; 0 = automatic."),
    ),
    REFERENCE: (
        QT_TRANSLATE_NOOP("Kestrel", "Clear reference"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "A clear raster of the same ground in the same units, on any grid; PSNR and SSIM against it, "
            "before and after, go into log, history and report.",
        ),
    ),
    OUTPUT: (
        QT_TRANSLATE_NOOP("Kestrel", "Dehazed raster"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "GeoTIFF with the input's grid, CRS, data type and nodata. An existing file is replaced only "
            "when the new one is complete. Beside it lie a style with the input's stretch (.qml), so that "
            "before and after compare, and its history (.kestrel.json).",
        ),
    ),
    OUTPUT_HAZE: (
        QT_TRANSLATE_NOOP("Kestrel", "Haze raster"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "GeoTIFF with one float band: the mean absolute change of the three bands, in units of the "
            "stretch: 1 is all of it, which bright ground under thick haze can exceed. Shows where haze was "
            "removed; made when a file is given.",
        ),
    ),
    REPORT: (
        QT_TRANSLATE_NOOP("Kestrel", "Report"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "HTML page with pictures before and after, statistics of each band, the parameters and the time "
            "taken; made when a file is given.",
        ),
    ),
}
