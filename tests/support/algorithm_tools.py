"""For tests of the QGIS side: tiny rasters, scratch results, and a worker that only pretends."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

from osgeo import gdal, ogr, osr

ROOT = Path(__file__).resolve().parent.parent.parent

#: name, OGR type, subtype - as the engine writes them
FIELDS = (
    ("id", ogr.OFTInteger, ogr.OFSTNone),
    ("score", ogr.OFTReal, ogr.OFSTNone),
    ("class", ogr.OFTString, ogr.OFSTNone),
    ("x_px", ogr.OFTReal, ogr.OFSTNone),
    ("y_px", ogr.OFTReal, ogr.OFSTNone),
    ("w_px", ogr.OFTReal, ogr.OFSTNone),
    ("h_px", ogr.OFTReal, ogr.OFSTNone),
    ("long_m", ogr.OFTReal, ogr.OFSTNone),
    ("short_m", ogr.OFTReal, ogr.OFSTNone),
    ("area_m2", ogr.OFTReal, ogr.OFSTNone),
    ("lon", ogr.OFTReal, ogr.OFSTNone),
    ("lat", ogr.OFTReal, ogr.OFSTNone),
    ("tile", ogr.OFTInteger, ogr.OFSTNone),
    ("edge", ogr.OFTInteger, ogr.OFSTBoolean),
    ("model", ogr.OFTString, ogr.OFSTNone),
)
NAMES = [name for name, _, _ in FIELDS]

ORIGIN = (500000.0, 4500000.0)
PIXEL = 10.0


def spatial_reference(epsg):
    reference = osr.SpatialReference()
    reference.ImportFromEPSG(epsg)
    reference.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    return reference


def make_raster(
    path,
    *,
    width=64,
    height=48,
    bands=1,
    kind=gdal.GDT_Byte,
    epsg=32630,
    pixel=PIXEL,
    transform=None,
    colours=(),
    gcps=False,
    driver="GTiff",
):
    """A raster of zeros, north up at ORIGIN unless told otherwise."""
    data = gdal.GetDriverByName(driver).Create(str(path), width, height, bands, kind)
    if gcps:
        corners = [(0, 0), (width, 0), (width, height), (0, height)]
        points = [gdal.GCP(-5 + x * 1e-4, 40 - y * 1e-4, 0, x, y) for x, y in corners]
        data.SetGCPs(points, spatial_reference(4326).ExportToWkt())
    elif epsg:
        data.SetProjection(spatial_reference(epsg).ExportToWkt())
        data.SetGeoTransform(transform or (ORIGIN[0], pixel, 0, ORIGIN[1], 0, -pixel))
    for number, colour in enumerate(colours, 1):
        data.GetRasterBand(number).SetColorInterpretation(colour)
    data.FlushCache()
    del data
    return str(path)


def make_polygons(path, polygons, *, epsg=32630, kind=ogr.wkbPolygon, layer="polygons", driver="GPKG"):
    """A vector layer from WKT texts."""
    data = gdal.GetDriverByName(driver).Create(str(path), 0, 0, 0, gdal.GDT_Unknown)
    target = data.CreateLayer(layer, spatial_reference(epsg), kind)
    for text in polygons:
        feature = ogr.Feature(target.GetLayerDefn())
        feature.SetGeometry(ogr.CreateGeometryFromWkt(text))
        target.CreateFeature(feature)
    del target, data
    return str(path)


def square(x, y, side):
    """WKT of a square in metres from ORIGIN, y downwards."""
    left, top = ORIGIN[0] + x, ORIGIN[1] - y
    corners = [(left, top), (left + side, top), (left + side, top - side), (left, top - side), (left, top)]
    return "POLYGON((" + ",".join(f"{a} {b}" for a, b in corners) + "))"


def write_boxes(path, count=3, *, epsg=32630, names=NAMES):
    """What the worker leaves: ``count`` squares, best score first, the last with null metres."""
    data = gdal.GetDriverByName("FlatGeobuf").Create(str(path), 0, 0, 0, gdal.GDT_Unknown)
    reference = spatial_reference(epsg) if epsg else None
    layer = data.CreateLayer(
        "boxes", reference, ogr.wkbPolygon, options=[f"SPATIAL_INDEX={'NO' if count else 'YES'}"]
    )
    for name, kind, subtype in FIELDS:
        if name in names:
            definition = ogr.FieldDefn(name, kind)
            definition.SetSubType(subtype)
            layer.CreateField(definition)
    for number in range(1, count + 1):
        feature = ogr.Feature(layer.GetLayerDefn())
        values = {
            "id": number,
            "score": 1.0 - number / (count + 1),
            "class": "ship",
            "x_px": 10.0 * number,
            "y_px": 5.5,
            "w_px": 3.0,
            "h_px": 3.0,
            "long_m": 30.0,
            "short_m": 30.0,
            "area_m2": 900.0,
            "lon": -3.0,
            "lat": 40.6,
            "tile": number - 1,
            "edge": int(number == 1),
            "model": "stub@0123456789ab",
        }
        if number == count > 1:
            for name in ("long_m", "short_m", "area_m2", "lon", "lat"):
                del values[name]
        for name, value in values.items():
            if name in names:
                feature.SetField(name, value)
        # ids run against the places, so that a reordering shows
        place = square(1000.0 * (count - number), 40, 30)
        feature.SetGeometry(ogr.CreateGeometryFromWkt(place))
        layer.CreateFeature(feature)
    del layer, data
    return str(path)


class StubWorker:
    """Stands in for ``run_job``: keeps the Jobs, writes ``count`` boxes, or raises ``error``."""

    def __init__(self, count=3, epsg=32630):
        self.count = count
        self.epsg = epsg
        self.names = NAMES
        self.error = None
        self.jobs = []
        self.seen = None

    def __call__(self, job, feedback, **_):
        self.jobs.append(job)
        if self.seen is not None:
            self.seen(job)
        if self.error is not None:
            raise self.error
        write_boxes(job.outputs["boxes"], self.count, epsg=self.epsg, names=self.names)
        if "report" in job.outputs:
            Path(job.outputs["report"]).write_text("<html>stub</html>")
        return {
            "outputs": dict(job.outputs),
            "figures": {
                "count": self.count,
                "tiles_run": 1,
                "tiles_skipped": 2,
                "tiles_total": 3,
                "seconds": {"tiles": 0.5},
                "scaling": {"mode": "uint8", "low": 0, "high": 255},
                "model": {"name": "stub", "sha256": "0123456789ab" + "0" * 52},
                "params_used": {"tile": 640},
                "inputs": [{"path": job.inputs["image"]["path"], "size": 1, "modified": "2026"}],
                "versions": {"torch": "0"},
                "device": "cpu",
            },
            "warnings": ["a stub warned"],
        }


def fake_weights(path):
    """A file that starts like safetensors."""
    header = json.dumps({"__metadata__": {"kestrel": "{}"}}).encode()
    Path(path).write_bytes(struct.pack("<Q", len(header)) + header)
    return str(path)


def layer_rows(source, layer=None):
    """All features of a file's layer: list of (attributes by name, WKT)."""
    data = gdal.OpenEx(str(source), gdal.OF_VECTOR)
    assert data is not None, source
    table = data.GetLayerByName(layer) if layer else data.GetLayer(0)
    return [(feature.items(), feature.GetGeometryRef().ExportToWkt()) for feature in table]


def file_hash(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def folder_state(folder):
    """Names and contents of a folder, to see that nothing changed."""
    return {name: file_hash(os.path.join(folder, name)) for name in sorted(os.listdir(folder))}
