"""Runs on a new runtime: import everything, know a CRS, write and read a pixel, find the device.

The last line of the output is KESTREL and a JSON object {versions, device}.
"""

import importlib.metadata
import json
import os
import platform
import tempfile

import einops
import geopandas
import matplotlib
import numpy as np
import pyogrio
import rasterio
import safetensors
import scipy
import shapely
import torch
from rasterio.crs import CRS
from rasterio.transform import from_origin

modules = (einops, geopandas, matplotlib, np, pyogrio, rasterio, safetensors, scipy, shapely, torch)

# a foreign PROJ_DATA or a damaged proj.db shows here
utm = CRS.from_epsg(32632)

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "pixel.tif")
    profile = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "float32", "crs": utm}
    with rasterio.open(path, "w", transform=from_origin(500000, 5000000, 10, 10), **profile) as raster:
        raster.write(np.full((1, 1, 1), 42, np.float32))
    with rasterio.open(path) as raster:
        value, crs = float(raster.read(1)[0, 0]), raster.crs
if value != 42 or crs != utm:
    raise SystemExit(f"a pixel of 42 in {utm} came back as {value} in {crs}")

if float((torch.ones(8, 8) @ torch.ones(8, 8)).sum()) != 512:
    raise SystemExit("torch multiplies wrongly")

device = "cpu"
if torch.cuda.is_available():
    device = "cuda"
elif torch.backends.mps.is_available():
    device = "mps"

versions = {module.__name__: importlib.metadata.version(module.__name__) for module in modules}
# torch's own word carries the build: 2.13.0+cpu
versions.update(
    python=platform.python_version(), torch=str(torch.__version__), gdal=rasterio.__gdal_version__
)
print("KESTREL", json.dumps({"versions": versions, "device": device}))
