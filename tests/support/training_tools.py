"""For tests of trainings on the QGIS side: a pair of layers, and a worker that only pretends.

Nothing here imports numpy or rasterio: they must not meet QGIS's GDAL in one process.
"""

from __future__ import annotations

import array
import math
import random
from pathlib import Path

from osgeo import gdal

from .algorithm_tools import layer_rows, make_raster
from .raster_tools import RGB

WIDTH, HEIGHT = 160, 128


def layer(path, *, haze, width=WIDTH, height=HEIGHT, bands=3, kind=gdal.GDT_Byte, colours=RGB, **more):
    """Seeded waves of ground; ``haze`` 0..1 is the share of airlight at the right edge."""
    make_raster(path, bands=bands, width=width, height=height, colours=colours, kind=kind, **more)
    data = gdal.Open(str(path), gdal.GA_Update)
    for number in range(1, bands + 1):
        dice = random.Random(number)
        waves = [(dice.uniform(3, 9), dice.uniform(3, 9), dice.uniform(0, 6)) for _ in range(4)]
        values = array.array("f")
        for y in range(height):
            for x in range(width):
                ground = 90 + sum(15 * math.sin(x / a + y / b + c) for a, b, c in waves)
                thick = haze * x / width
                values.append(round(ground * (1 - thick) + 225 * thick))
        data.GetRasterBand(number).WriteRaster(
            0, 0, width, height, values.tobytes(), buf_type=gdal.GDT_Float32
        )
    del data
    return str(path)


def pair(folder):
    """Write ``hazy.tif`` and ``clear.tif``, 20 crops of 32 pixels; return their paths."""
    return layer(folder / "hazy.tif", haze=0.7), layer(folder / "clear.tif", haze=0.0)


class TrainingStub:
    """Stands in for ``run_job``: keeps the Jobs, writes something for the outputs, or raises ``error``.

    ``polygons``: how many each vector input of the last Job had.
    """

    def __init__(self):
        self.jobs = []
        self.polygons = {}
        self.validation = {"psnr_db": 30.0, "psnr_db_input": 20.0, "psnr_db_affine": 25.0}
        self.error = None
        self.late_error = None

    def __call__(self, job, feedback, **_):
        self.jobs.append(job)
        vectors = {r: e["path"] for r, e in job.inputs.items() if e["path"].endswith(".fgb")}
        self.polygons = {role: len(layer_rows(path)) for role, path in vectors.items()}
        if self.error is not None:
            raise self.error
        for path in job.outputs.values():
            Path(path).write_text("stub")
        if self.late_error is not None:
            raise self.late_error
        return {
            "outputs": dict(job.outputs),
            "figures": {
                "layers": {role: entry["path"] for role, entry in job.inputs.items()},
                "stretch": {"low": [0.0] * 3, "high": [255.0] * 3},
                "crops": {"learned from": 16, "validated on": 4},
                "validation": {"validation crops": self.validation},
                "model": {"name": "dehazing_own", "sha256": "0" * 64},
                "params_used": dict(job.params),
                "inputs": [{"path": e["path"], "size": 1, "modified": "2026"} for e in job.inputs.values()],
                "versions": {"torch": "0"},
                "device": "cpu",
                "seconds": {"training": 0.5},
            },
            "warnings": ["a stub warned"],
        }
