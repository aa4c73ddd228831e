"""The fields of polygons, as the worker writes them and as the output carries them."""

from __future__ import annotations

from qgis.PyQt.QtCore import QT_TRANSLATE_NOOP, QMetaType, QVariant

#: (name, type, English alias) of every field, in order.
FieldTable = tuple[tuple[str, int, str], ...]


def field_table() -> FieldTable:
    """Return (name, type, English alias) of every field of detected boxes, in order."""
    whole, real, text, flag = (field_type(name) for name in ("Int", "Double", "String", "Bool"))
    return (
        ("id", whole, QT_TRANSLATE_NOOP("Kestrel", "Number")),
        ("score", real, QT_TRANSLATE_NOOP("Kestrel", "Score (0 to 1)")),
        ("class", text, QT_TRANSLATE_NOOP("Kestrel", "Class")),
        ("x_px", real, QT_TRANSLATE_NOOP("Kestrel", "Centre column (px)")),
        ("y_px", real, QT_TRANSLATE_NOOP("Kestrel", "Centre row (px)")),
        ("w_px", real, QT_TRANSLATE_NOOP("Kestrel", "Width (px)")),
        ("h_px", real, QT_TRANSLATE_NOOP("Kestrel", "Height (px)")),
        ("long_m", real, QT_TRANSLATE_NOOP("Kestrel", "Long side of the box (m)")),
        ("short_m", real, QT_TRANSLATE_NOOP("Kestrel", "Short side of the box (m)")),
        ("area_m2", real, QT_TRANSLATE_NOOP("Kestrel", "Area of the box (m²)")),
        ("lon", real, QT_TRANSLATE_NOOP("Kestrel", "Longitude of the centre (WGS84)")),
        ("lat", real, QT_TRANSLATE_NOOP("Kestrel", "Latitude of the centre (WGS84)")),
        ("tile", whole, QT_TRANSLATE_NOOP("Kestrel", "Tile")),
        ("edge", flag, QT_TRANSLATE_NOOP("Kestrel", "Touches the raster's edge or nodata")),
        ("model", text, QT_TRANSLATE_NOOP("Kestrel", "Model")),
    )


def change_table() -> FieldTable:
    """Return (name, type, English alias) of every field of changed ground, in order."""
    whole, real, text = (field_type(name) for name in ("Int", "Double", "String"))
    return (
        ("id", whole, QT_TRANSLATE_NOOP("Kestrel", "Number")),
        ("class", text, QT_TRANSLATE_NOOP("Kestrel", "Class")),
        ("area_m2", real, QT_TRANSLATE_NOOP("Kestrel", "Area (m²)")),
        ("perim_m", real, QT_TRANSLATE_NOOP("Kestrel", "Perimeter (m)")),
        ("p_mean", real, QT_TRANSLATE_NOOP("Kestrel", "Mean probability")),
        ("p_max", real, QT_TRANSLATE_NOOP("Kestrel", "Largest probability")),
        ("date1", text, QT_TRANSLATE_NOOP("Kestrel", "Date before")),
        ("date2", text, QT_TRANSLATE_NOOP("Kestrel", "Date after")),
        ("tile", whole, QT_TRANSLATE_NOOP("Kestrel", "Tile")),
        ("model", text, QT_TRANSLATE_NOOP("Kestrel", "Model")),
    )


def field_type(name: str) -> int:
    """Return the type of a field: Qt 6 has it in another place than the ``QgsField`` of QGIS 3.22 wants."""
    if hasattr(QVariant, name):
        return getattr(QVariant, name)
    return getattr(QMetaType.Type, "QString" if name == "String" else name)
