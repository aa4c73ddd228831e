"""Ids, labels and help of the parameters that algorithms of two dates share."""

from __future__ import annotations

from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from .base import REPORT
from .checks import AOI, EXTENT, OUTPUT
from .raster_texts import OVERLAP, REFERENCE, STRETCH_MAX, STRETCH_MIN, TILE

BEFORE = "BEFORE"
AFTER = "AFTER"
BANDS_BEFORE = "BANDS_BEFORE"
BANDS_AFTER = "BANDS_AFTER"
MATCH_RADIOMETRY = "MATCH_RADIOMETRY"
ALIGN = "ALIGN"
RESAMPLE = "RESAMPLE"
THRESHOLD = "THRESHOLD"
MIN_AREA = "MIN_AREA"
SIMPLIFY = "SIMPLIFY"
REGULARISE = "REGULARISE"
OUTPUT_MASK = "OUTPUT_MASK"
OUTPUT_PROBABILITY = "OUTPUT_PROBABILITY"

ALIGNMENTS = ("none", "shift")

_BANDS = QT_TRANSLATE_NOOP(
    "Kestrel",
    "Three band numbers from 1 in the order red, green, blue, such as 3,2,1. Empty = automatic: by colour "
    "interpretation, by description (B4 or Red) or by wavelength, else 1, 2, 3.",
)

SHARED_TEXTS: dict[str, tuple[str, str]] = {
    BEFORE: (
        QT_TRANSLATE_NOOP("Kestrel", "Raster of the earlier date"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "A raster of any size with at least three visible bands. Its grid is that of all outputs, which "
            "cover the ground that both dates show: at least 256 x 256 pixels.",
        ),
    ),
    AFTER: (
        QT_TRANSLATE_NOOP("Kestrel", "Raster of the later date"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "The same ground later. With another CRS, grid, extent or pixel size it is resampled (bilinear) "
            "to the earlier one, and the log says so.",
        ),
    ),
    BANDS_BEFORE: (QT_TRANSLATE_NOOP("Kestrel", "Red, green and blue band of the earlier date"), _BANDS),
    BANDS_AFTER: (QT_TRANSLATE_NOOP("Kestrel", "Red, green and blue band of the later date"), _BANDS),
    STRETCH_MIN: (
        QT_TRANSLATE_NOOP("Kestrel", "Stretch minimum"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Pixel value that counts as black at both dates: one number for all three bands, or three as "
            "a,b,c in the order of the bands. Empty = automatic, from both dates together: 0 for 8-bit data, "
            "else the 2nd percentile in each band.",
        ),
    ),
    STRETCH_MAX: (
        QT_TRANSLATE_NOOP("Kestrel", "Stretch maximum"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Pixel value that counts as white at both dates, written like the minimum. Empty = automatic: "
            "255 for 8-bit data, else the 98th percentile. Give both or neither.",
        ),
    ),
    MATCH_RADIOMETRY: (
        QT_TRANSLATE_NOOP("Kestrel", "Match radiometry"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Gives the later date the histogram of the earlier one, over all pixels that are valid at both. "
            "Helps against other light, haze or units; where much has changed it hides some of it.",
        ),
    ),
    ALIGN: (
        QT_TRANSLATE_NOOP("Kestrel", "Align"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "How far the dates lie beside each other is always measured and reported. shift: the later one "
            "is moved back by it, by one translation of at most 10 pixels; refused where the measurement is "
            "too weak to rely on. none: nothing is moved.",
        ),
    ),
    THRESHOLD: (
        QT_TRANSLATE_NOOP("Kestrel", "Threshold"),
        QT_TRANSLATE_NOOP("Kestrel", "Probability (0 to 1) from which a pixel counts as changed."),
    ),
    MIN_AREA: (
        QT_TRANSLATE_NOOP("Kestrel", "Smallest polygon (m²)"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Polygons with less area are left out; 0 = all are kept. The "
            "mask is never sieved, so it can show specks that no polygon has. Without a CRS in the "
            "layer's own units.",
        ),
    ),
    SIMPLIFY: (
        QT_TRANSLATE_NOOP("Kestrel", "Simplify outlines (m)"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Tolerance by which corners may be left out of outlines; 0 = outlines follow the pixels.",
        ),
    ),
    REGULARISE: (
        QT_TRANSLATE_NOOP("Kestrel", "Right angles"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Gives outlines the right angles of buildings wherever the result still covers nearly the same "
            "ground; all others stay as they are.",
        ),
    ),
    EXTENT: (
        QT_TRANSLATE_NOOP("Kestrel", "Extent"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "The outputs cover this part only, snapped outward to the pixels of the earlier date. Stretch "
            "and tiles do not depend on it. As text: xmin,xmax,ymin,ymax [EPSG:code].",
        ),
    ),
    AOI: (
        QT_TRANSLATE_NOOP("Kestrel", "Area of interest"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Polygons in any CRS. The outputs cover their bounds and are nodata outside of them; the report "
            "tells the change in each polygon, by its display name or its field 'name'.",
        ),
    ),
    TILE: (
        QT_TRANSLATE_NOOP("Kestrel", "Tile (pixels)"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Side of the squares that are worked on one by one. It has no influence on the result.",
        ),
    ),
    OVERLAP: (
        QT_TRANSLATE_NOOP("Kestrel", "Overlap of tiles (pixels)"),
        QT_TRANSLATE_NOOP("Kestrel", "Less than the tile; 0 = automatic."),
    ),
    REFERENCE: (
        QT_TRANSLATE_NOOP("Kestrel", "Reference"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Known changes, as polygons or as a raster (not 0 = changed), possibly over a part: precision, "
            "recall, F1, IoU and kappa inside that part go into log, history and report.",
        ),
    ),
    OUTPUT: (
        QT_TRANSLATE_NOOP("Kestrel", "Changes"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Polygons of changed ground, none cut at a tile's border. An existing file is replaced only when "
            "the new one is complete.",
        ),
    ),
    OUTPUT_MASK: (
        QT_TRANSLATE_NOOP("Kestrel", "Mask of change"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "GeoTIFF with one byte a pixel: 1 change, 0 no change, 255 nodata at one date or outside; made "
            "when a file is given.",
        ),
    ),
    OUTPUT_PROBABILITY: (
        QT_TRANSLATE_NOOP("Kestrel", "Probability of change"),
        QT_TRANSLATE_NOOP(
            "Kestrel", "GeoTIFF with one float band from 0 to 1, nodata -9999; made when a file is given."
        ),
    ),
    REPORT: (
        QT_TRANSLATE_NOOP("Kestrel", "Report"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "HTML page with the number and area of the changes, also by polygon of AOI, before and after "
            "pictures of the largest, the parameters and the time taken; made when a file is given.",
        ),
    ),
}
