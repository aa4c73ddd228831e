"""Ids, labels and help of the parameters that detectors of boxes share."""

from __future__ import annotations

from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP

from .base import REPORT
from .checks import AOI, EXTENT, INPUT, OUTPUT

BAND = "BAND"
SCALE_MODE = "SCALE_MODE"
SCALE_MIN = "SCALE_MIN"
SCALE_MAX = "SCALE_MAX"
LAND_MASK = "LAND_MASK"
LAND_BUFFER = "LAND_BUFFER"
MIN_LENGTH = "MIN_LENGTH"
MAX_LENGTH = "MAX_LENGTH"
COUNT = "COUNT"

SCALE_MODES = ("auto", "uint8", "percentile", "db", "linear")
SHARED_TEXTS: dict[str, tuple[str, str]] = {
    INPUT: (
        QT_TRANSLATE_NOOP("Kestrel", "SAR raster"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "SAR amplitude, intensity or sigma0 (linear or in dB), any data type but complex. Any CRS, "
            "rotated rasters and ground control points are fine; without a CRS boxes have no metres.",
        ),
    ),
    BAND: (
        QT_TRANSLATE_NOOP("Kestrel", "Band"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Counts from 1. Of a dual-polarised image VV or HH shows coasts and wakes as well, VH or HV "
            "mostly ships.",
        ),
    ),
    SCALE_MODE: (
        QT_TRANSLATE_NOOP("Kestrel", "Scaling"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "How pixel values become brightness. auto: 8-bit data as they are, all else like percentile. "
            "uint8: 0 to 255 as they are. percentile: between the 1 and 99.5 percentiles of the whole scene. "
            "db: values in decibels between Scale minimum and maximum. linear: linear sigma0, turned into "
            "decibels first.",
        ),
    ),
    SCALE_MIN: (
        QT_TRANSLATE_NOOP("Kestrel", "Scale minimum (dB)"),
        QT_TRANSLATE_NOOP("Kestrel", "What becomes black. Used with the scalings db and linear only."),
    ),
    SCALE_MAX: (
        QT_TRANSLATE_NOOP("Kestrel", "Scale maximum (dB)"),
        QT_TRANSLATE_NOOP("Kestrel", "What becomes white. Used with the scalings db and linear only."),
    ),
    EXTENT: (
        QT_TRANSLATE_NOOP("Kestrel", "Extent"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Only ships whose centre lies inside are kept. The result equals that part of a run on the whole "
            "raster: scaling and tiles do not depend on it. As text: xmin,xmax,ymin,ymax [EPSG:code].",
        ),
    ),
    AOI: (
        QT_TRANSLATE_NOOP("Kestrel", "Area of interest"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Polygons in any CRS; only ships whose centre lies inside are kept. Saves time as well.",
        ),
    ),
    LAND_MASK: (
        QT_TRANSLATE_NOOP("Kestrel", "Land mask"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Polygons of land in any CRS. Ships whose centre lies on land are dropped, which removes most "
            "false alarms from harbours, buildings and rocks.",
        ),
    ),
    LAND_BUFFER: (
        QT_TRANSLATE_NOOP("Kestrel", "Land buffer (m)"),
        QT_TRANSLATE_NOOP("Kestrel", "Metres on the ground by which the land mask grows first."),
    ),
    MIN_LENGTH: (
        QT_TRANSLATE_NOOP("Kestrel", "Minimum length (m)"),
        QT_TRANSLATE_NOOP("Kestrel", "Drop boxes whose long side is shorter; 0 = off."),
    ),
    MAX_LENGTH: (
        QT_TRANSLATE_NOOP("Kestrel", "Maximum length (m)"),
        QT_TRANSLATE_NOOP("Kestrel", "Drop boxes whose long side is longer; 0 = off."),
    ),
    OUTPUT: (
        QT_TRANSLATE_NOOP("Kestrel", "Ships"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "Polygons in the raster's CRS with score, size in pixels and metres and position. An existing "
            "file is replaced only when the new one is complete. A GeoPackage with other layers is refused; "
            "write ogr:dbname='file.gpkg' table=\"ships\" (geom) to replace one table of it. Beside a file "
            "lies its history as <name>.kestrel.json.",
        ),
    ),
    REPORT: (
        QT_TRANSLATE_NOOP("Kestrel", "Report"),
        QT_TRANSLATE_NOOP(
            "Kestrel",
            "HTML page with counts, scores, a picture of the scene and the parameters; made when a file is "
            "given.",
        ),
    ),
}
