"""Oracle (h): memory follows the tile, not the raster; a small area of a huge file takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from kestrel.tests.support import rasters
from rasterio.windows import Window

ROOT = Path(__file__).resolve().parents[2]

#: Runs a toy Job and prints (peak MB after the imports, peak MB after the run, seconds, figures).
SCRIPT = """
import json, resource, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from kestrel.tests.support import toys
from kestrel.tests.support.jobs import run
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, start = peak(), time.monotonic()
build = lambda *_: toys.toy_task(tile=512, overlap=64)
outcome, _ = run(Path(sys.argv[2]), Path(sys.argv[3]), builder=build, **json.loads(sys.argv[4]))
print(json.dumps([before, peak(), time.monotonic() - start, outcome.figures]))
"""


def measured(path, scratch, **fields):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT / ".kestrel" / "python"), path, scratch, json.dumps(fields)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def huge(path, side, patch):
    """A sparse file: nodata but for ``patch`` in its middle."""
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=side, width=side, dtype="uint8", nodata=0, tiled=True,
        blockxsize=512, blockysize=512, sparse_ok=True, compress="deflate", crs=rasters.UTM,
        transform=rasters.PLACES["north_up"][1],
    ) as dataset:  # fmt: skip
        dataset.write(patch, 1, window=Window(side // 2, side // 2, *patch.shape[::-1]))
    return path


def middle(side, size):
    x, y = rasters.PLACES["north_up"][1] * (side // 2, side // 2)
    return [x, y - 10 * size, x + 10 * size, y]


@pytest.mark.parametrize("as_vrt", [False, True])
def test_oracle_small_area_of_a_sparse_100k_scene(tmp_path, as_vrt):
    ships = [(100, 100, 130, 110), (700, 400, 720, 440)]
    path = huge(tmp_path / "a.tif", 100_000, rasters.sea(1000, 1000, ships))
    if as_vrt:
        path = tmp_path / "a.vrt"
        path.write_text(
            '<VRTDataset rasterXSize="100000" rasterYSize="100000"><SRS>EPSG:32633</SRS>'
            "<GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>"
            '<VRTRasterBand dataType="Byte" band="1"><NoDataValue>0</NoDataValue><SimpleSource>'
            '<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1</SourceBand>'
            "</SimpleSource></VRTRasterBand></VRTDataset>"
        )
    before, after, seconds, figures = measured(
        path, tmp_path, extent=middle(100_000, 1000), crs_wkt="EPSG:32633"
    )
    assert figures["count"] == len(ships)
    assert figures["tiles_run"] <= 16
    assert after - before < 250
    assert seconds < 20  # 1 s on an idle machine


@pytest.mark.slow
def test_oracle_memory_does_not_grow_with_the_raster(tmp_path):
    speckle = np.random.default_rng(0).integers(1, 120, (512, 512), dtype=np.uint8)
    speckle[100:110, 100:140] = 250
    beyond = []
    for side in (2048, 8192):
        path = huge(tmp_path / f"{side}.tif", side, np.zeros((1, 1), np.uint8))
        with rasterio.open(path, "r+") as dataset:
            for row in range(0, side, 512):
                for col in range(0, side, 512):
                    dataset.write(speckle, 1, window=Window(col, row, 512, 512))
        before, after, _, figures = measured(path, tmp_path, scale_mode="uint8")
        assert figures["count"] == (side // 512) ** 2
        beyond.append(after - before)
    # sixteen times the pixels; GDAL's block cache fills up to its 64 MB, and the boxes themselves
    assert beyond[1] - beyond[0] < 100
