"""For tests of raster-to-raster algorithms on the QGIS side: a worker that only pretends, and pixels.

Nothing here imports numpy or rasterio: they must not meet QGIS's GDAL in one process.
"""

from __future__ import annotations

import array
from pathlib import Path

from osgeo import gdal

from .algorithm_tools import make_raster

RGB = (gdal.GCI_RedBand, gdal.GCI_GreenBand, gdal.GCI_BlueBand)
STRETCH = {"low": [0.0, 10.0, 20.0], "high": [255.0, 200.0, 150.0], "source": "given"}


class RasterStub:
    """Stands in for ``run_job``: keeps the Jobs, copies the input to the outputs, or raises ``error``.

    ``before``: called with the Job first, as a worker that leaves something would; ``stretch``,
    ``bands``, ``places``: what the figures tell.
    """

    def __init__(self):
        self.jobs = []
        self.error = None
        self.late_error = None
        self.before = None
        self.stretch = STRETCH
        self.bands = [1, 2, 3]
        self.places = [1, 2, 3]
        self.more = {}

    def __call__(self, job, feedback, **_):
        self.jobs.append(job)
        if self.before is not None:
            self.before(job)
        if self.error is not None:
            raise self.error
        write_outputs(job)
        if self.late_error is not None:
            raise self.late_error
        return {
            "outputs": dict(job.outputs),
            "figures": {
                "stretch": self.stretch,
                "bands": self.bands,
                "output_bands": self.places,
                "tiles_run": 4,
                "tiles_skipped": 0,
                "tiles_total": 4,
                "seconds": {"tiles": 0.5},
                "scaling": {"mode": "given"},
                "model": {"name": "dark_channel"},
                "params_used": {"tile": 512},
                "inputs": [{"path": job.inputs["image"]["path"], "size": 1, "modified": "2026"}],
                "versions": {"rasterio": "0"},
                "device": "cpu",
                **self.more,
            },
            "warnings": ["a stub warned"],
        }


def write_outputs(job):
    """Leave at the Job's places what the engine would: the input again, a haze raster, a report."""
    source = gdal.Open(job.inputs["image"]["path"])
    chosen = {"bandList": [1, 2, 3]} if job.params["other_bands"] == "drop" else {}
    gdal.Translate(job.outputs["raster"], source, **chosen)
    if "haze" in job.outputs:
        gdal.Translate(
            job.outputs["haze"],
            source,
            bandList=[1],
            outputType=gdal.GDT_Float32,
            scaleParams=[[0, 255, 0, 1]],
        )
    if "report" in job.outputs:
        Path(job.outputs["report"]).write_text("<html>stub</html>")


def hazy_raster(path, *, bands=3, kind=gdal.GDT_Byte, width=64, height=48, colours=RGB, **more):
    """A small raster whose bands hold a ramp each."""
    make_raster(path, bands=bands, kind=kind, width=width, height=height, colours=colours[:bands], **more)
    data = gdal.Open(str(path), gdal.GA_Update)
    for number in range(1, bands + 1):
        ramp = array.array(
            "f", ((x + 2 * y + 10 * number) % 200 + 20 for y in range(height) for x in range(width))
        )
        data.GetRasterBand(number).WriteRaster(0, 0, width, height, ramp.tobytes(), buf_type=gdal.GDT_Float32)
    del data
    return str(path)


def pixels(path):
    """Return (raw float64 bytes of all bands, bands, geotransform, EPSG) of a raster."""
    data = gdal.Open(str(path))
    values = data.ReadRaster(buf_type=gdal.GDT_Float64)
    return values, data.RasterCount, data.GetGeoTransform(), data.GetSpatialRef().GetAuthorityCode(None)
