"""For tests of algorithms of two dates on the QGIS side: pairs of rasters, and a worker that only pretends.

Nothing here imports numpy or rasterio: they must not meet QGIS's GDAL in one process.
"""

from __future__ import annotations

import array
import os
import random
from pathlib import Path

from osgeo import gdal, ogr

from .algorithm_tools import layer_rows, make_raster, spatial_reference, square
from .raster_tools import RGB

FIELDS = (
    ("id", ogr.OFTInteger),
    ("class", ogr.OFTString),
    ("area_m2", ogr.OFTReal),
    ("perim_m", ogr.OFTReal),
    ("p_mean", ogr.OFTReal),
    ("p_max", ogr.OFTReal),
    ("date1", ogr.OFTString),
    ("date2", ogr.OFTString),
    ("tile", ogr.OFTInteger),
    ("model", ogr.OFTString),
)
NAMES = [name for name, _ in FIELDS]
#: Where the later date of a pair differs: first row, first column, rows, columns.
CHANGED = ((40, 50, 30, 20), (150, 180, 25, 25))


class ChangeStub:
    """Stands in for ``run_job``: keeps the Jobs, writes ``count`` polygons and rasters, or raises."""

    def __init__(self):
        self.count = 2
        self.error = None
        self.jobs = []
        self.zones = []
        self.shade = 0  # of the report and the rasters

    def __call__(self, job, feedback, **_):
        self.jobs.append(job)
        if "zones" in job.inputs:
            self.zones = [row for row, _ in layer_rows(job.inputs["zones"]["path"])]
        if self.error is not None:
            raise self.error
        write_polygons(job.outputs["polygons"], self.count)
        source = gdal.Open(job.inputs["before"]["path"])
        scale = {"scaleParams": [[0, 1, self.shade, self.shade + 1]]}
        rasters = {
            "mask": {"noData": 255},
            "probability": {"outputType": gdal.GDT_Float32, "noData": -9999},
        }
        for name, kind in rasters.items():
            path = job.outputs[name]
            gdal.Translate(f"{path}.part", source, format="GTiff", bandList=[1], **kind, **scale)
            os.replace(f"{path}.part", path)
            Path(f"{path}.aux.xml").unlink(missing_ok=True)  # as the worker does
        if "report" in job.outputs:
            part = Path(job.outputs["report"] + ".part")
            part.write_text(f"<html>stub {self.shade}</html>")
            part.replace(job.outputs["report"])
        return {
            "outputs": dict(job.outputs),
            "figures": {
                "count": self.count,
                "change": {"threshold": 0.5, "share": 0.1},
                "registration": None,
                "model": {"name": "stub", "sha256": None},
                "inputs": [],
            },
            "warnings": ["a stub warned"],
        }


def write_polygons(path, count):
    """What the worker leaves: ``count`` squares."""
    data = gdal.GetDriverByName("FlatGeobuf").Create(str(path), 0, 0, 0, gdal.GDT_Unknown)
    options = [f"SPATIAL_INDEX={'NO' if count else 'YES'}"]
    layer = data.CreateLayer("boxes", spatial_reference(32630), ogr.wkbPolygon, options=options)
    for name, kind in FIELDS:
        layer.CreateField(ogr.FieldDefn(name, kind))
    for number in range(1, count + 1):
        feature = ogr.Feature(layer.GetLayerDefn())
        feature["id"], feature["class"], feature["tile"], feature["model"] = number, "change", 0, "stub"
        feature["area_m2"], feature["perim_m"], feature["p_mean"], feature["p_max"] = 900.0, 120.0, 0.7, 0.9
        feature["date1"] = "2020-01-01"
        feature.SetGeometry(ogr.CreateGeometryFromWkt(square(100.0 * number, 40, 30)))
        layer.CreateFeature(feature)
    del layer, data


def make_pair(folder, *, width=280, height=260, pixel=1.0, changed=CHANGED, **more):
    """Write before.tif and after.tif, noisy ground, bright where changed; return both paths."""
    paths = []
    for name in ("before", "after"):
        path = make_raster(
            folder / f"{name}.tif", width=width, height=height, bands=3, colours=RGB, pixel=pixel, **more
        )
        data = gdal.Open(path, gdal.GA_Update)
        for number in range(1, 4):
            dice = random.Random(number)
            values = array.array("B", (dice.randint(60, 120) for _ in range(width * height)))
            for row, col, rows, cols in changed if name == "after" else ():
                for line in range(row, row + rows):
                    start = line * width + col
                    values[start : start + cols] = array.array("B", [235] * cols)
            data.GetRasterBand(number).WriteRaster(0, 0, width, height, values.tobytes())
        del data
        paths.append(path)
    return tuple(paths)
