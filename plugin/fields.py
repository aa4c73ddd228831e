"""The fields of detected boxes, as the worker writes them and as the output carries them."""

from __future__ import annotations

from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP, QVariant


def field_table() -> tuple[tuple[str, int, str], ...]:
    """Return (name, type, English alias) of every field, in order."""
    return (
        ("id", QVariant.Int, QT_TRANSLATE_NOOP("Kestrel", "Number")),
        ("score", QVariant.Double, QT_TRANSLATE_NOOP("Kestrel", "Score (0 to 1)")),
        ("class", QVariant.String, QT_TRANSLATE_NOOP("Kestrel", "Class")),
        ("x_px", QVariant.Double, QT_TRANSLATE_NOOP("Kestrel", "Centre column (px)")),
        ("y_px", QVariant.Double, QT_TRANSLATE_NOOP("Kestrel", "Centre row (px)")),
        ("w_px", QVariant.Double, QT_TRANSLATE_NOOP("Kestrel", "Width (px)")),
        ("h_px", QVariant.Double, QT_TRANSLATE_NOOP("Kestrel", "Height (px)")),
        ("long_m", QVariant.Double, QT_TRANSLATE_NOOP("Kestrel", "Long side of the box (m)")),
        ("short_m", QVariant.Double, QT_TRANSLATE_NOOP("Kestrel", "Short side of the box (m)")),
        ("area_m2", QVariant.Double, QT_TRANSLATE_NOOP("Kestrel", "Area of the box (m²)")),
        ("lon", QVariant.Double, QT_TRANSLATE_NOOP("Kestrel", "Longitude of the centre (WGS84)")),
        ("lat", QVariant.Double, QT_TRANSLATE_NOOP("Kestrel", "Latitude of the centre (WGS84)")),
        ("tile", QVariant.Int, QT_TRANSLATE_NOOP("Kestrel", "Tile")),
        ("edge", QVariant.Bool, QT_TRANSLATE_NOOP("Kestrel", "Touches the raster's edge or nodata")),
        ("model", QVariant.String, QT_TRANSLATE_NOOP("Kestrel", "Model")),
    )
