"""How results look: in the running QGIS, and in every program that opens the file later.

In the GUI a post-processor styles the layer. Everywhere else the style travels with the data: in a
GeoPackage as the default row of ``layer_styles``, beside other files as ``<name>.qml``, which QGIS
reads by itself. A style that a person saved there is never replaced.
"""

from __future__ import annotations

import collections
import datetime
import os
from typing import Any

from osgeo import gdal, ogr
from qgis.core import QgsMapLayer, QgsProcessingLayerPostProcessorInterface

from .destination import Destination

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "resources", "styles")

#: The columns that QGIS gives ``layer_styles``; a width of 0 is text of any length.
_COLUMNS = (
    ("f_table_catalog", ogr.OFTString, 256),
    ("f_table_schema", ogr.OFTString, 256),
    ("f_table_name", ogr.OFTString, 256),
    ("f_geometry_column", ogr.OFTString, 256),
    ("styleName", ogr.OFTString, 30),
    ("styleQML", ogr.OFTString, 0),
    ("styleSLD", ogr.OFTString, 0),
    ("useAsDefault", ogr.OFTInteger, 0),
    ("description", ogr.OFTString, 0),
    ("owner", ogr.OFTString, 30),
    ("ui", ogr.OFTString, 30),
    ("update_time", ogr.OFTDateTime, 0),
)


#: Stylers must outlive their algorithm: QGIS deletes a model's steps before it loads their layers, and
#: calls nobody then (observed in 3.22). More layers than that are hardly loaded at once.
KEPT: collections.deque[QgsProcessingLayerPostProcessorInterface] = collections.deque(maxlen=64)


class Styler(QgsProcessingLayerPostProcessorInterface):
    """Gives a layer its style when QGIS loads it.

    Must be made in the main thread: one from a worker thread is skipped (qgis/QGIS #47533).
    """

    def __init__(self, style: str) -> None:
        """``style``: file name in resources/styles."""
        super().__init__()
        self._path = os.path.join(FOLDER, style)
        KEPT.append(self)

    def postProcessLayer(self, layer: QgsMapLayer, context: Any, feedback: Any) -> None:
        """Called by QGIS; a style that cannot be read costs the looks, not the result."""
        message, ok = layer.loadNamedStyle(self._path)
        if not ok:
            feedback.pushWarning(message)
        layer.triggerRepaint()


def static_style(style: str) -> str:
    """Return the QML of ``style``, a file name in resources/styles that holds no places to be filled."""
    with open(os.path.join(FOLDER, style), encoding="utf-8") as file:
        return file.read()


def store_style(destination: Destination, written: str, style: str) -> None:
    """Leave ``style`` with a finished file output as its default; raises OSError, RuntimeError.

    ``written``: the destination id the sink returned (``path`` or ``path|layername=x``).
    """
    if not destination.on_disk:
        return
    qml = static_style(style)
    stem, suffix = os.path.splitext(destination.path)
    if suffix.lower() == ".gpkg":
        _store_in_geopackage(destination.path, written.partition("|layername=")[2], style, qml)
    elif destination.kind == "file" and not os.path.exists(f"{stem}.qml"):
        with open(f"{stem}.qml", "x", encoding="utf-8") as file:
            file.write(qml)


def _store_in_geopackage(path: str, table: str, style: str, qml: str) -> None:
    data = gdal.OpenEx(path, gdal.OF_VECTOR | gdal.OF_UPDATE, open_options=["LIST_ALL_TABLES=YES"])
    if data is None:
        raise RuntimeError(gdal.GetLastErrorMsg())
    layer = data.GetLayerByName(table) if table else data.GetLayer(0)
    table, column = layer.GetName(), layer.GetGeometryColumn()
    styles = data.GetLayerByName("layer_styles")
    if styles is None:
        styles = data.CreateLayer("layer_styles", geom_type=ogr.wkbNone, options=["FID=id"])
        for name, kind, width in _COLUMNS:
            definition = ogr.FieldDefn(name, kind)
            if width:
                definition.SetWidth(width)
            if name == "useAsDefault":
                definition.SetSubType(ogr.OFSTBoolean)
            styles.CreateField(definition)
    escaped = table.replace("'", "''")
    styles.SetAttributeFilter(f"f_table_name = '{escaped}'")
    if styles.GetFeatureCount():
        return
    row = ogr.Feature(styles.GetLayerDefn())
    values = {
        "f_table_catalog": "",
        "f_table_schema": "",  # QGIS asks for the empty text, not for NULL
        "f_table_name": table,
        "f_geometry_column": column,
        "styleName": f"Kestrel {os.path.splitext(style)[0]}",
        "styleQML": qml,
        "styleSLD": "",
        "useAsDefault": 1,
        "description": "",
        "owner": "",
        "update_time": datetime.datetime.now(datetime.timezone.utc).strftime("%Y/%m/%d %H:%M:%S+00"),
    }
    for name, value in values.items():
        row.SetField(name, value)
    if styles.CreateFeature(row) != ogr.OGRERR_NONE:
        raise RuntimeError(gdal.GetLastErrorMsg())
