"""Scene statistics: a fixed lattice, whatever the file's blocks, and the hard cases behind it."""

import numpy as np
import pytest
import rasterio
from kestrel.engine.errors import Cancelled, EngineError
from kestrel.engine.events import Track
from kestrel.engine.scene import Reader, open_scene
from kestrel.engine.statistics import BLOCKS, scene_statistics
from kestrel.tests.support import rasters
from kestrel.tests.support.jobs import Recorder


def stats(path, region=None):
    return scene_statistics(open_scene(str(path), 1), region, Track(Recorder()))


@pytest.mark.parametrize(
    "profile",
    [{}, {"tiled": True, "blockxsize": 64, "blockysize": 64}, {"blockysize": 300}, {"compress": "deflate"}],
)
def test_feature_small_rasters_are_read_whole(tmp_path, profile):
    image = np.random.default_rng(0).gamma(2, 50, (300, 217)).astype(np.float32)
    found = stats(rasters.write(tmp_path / "a.tif", image, **profile))
    for percent in (0, 1, 50, 99.5, 100):
        assert found.percentile(percent) == pytest.approx(np.percentile(image, percent), rel=1e-6)
    assert found.source == "the whole raster"


def test_feature_a_large_raster_is_sampled_evenly(tmp_path, monkeypatch):
    ramp = np.broadcast_to(np.arange(3000, dtype=np.uint16), (2048, 3000))
    path = rasters.write(tmp_path / "a.tif", np.ascontiguousarray(ramp), tiled=True, blockxsize=64,
                         blockysize=64)  # fmt: skip
    reads = []
    read = Reader.read
    monkeypatch.setattr(Reader, "read", lambda self, *w: reads.append(w) or read(self, *w))
    found = stats(path)
    assert len(reads) <= BLOCKS
    assert found.median == pytest.approx(1500, abs=75)
    assert found.percentile(1) == pytest.approx(30, abs=100)


def test_feature_invalid_pixels_do_not_count(tmp_path):
    image = np.random.default_rng(0).normal(-15, 3, (64, 64)).astype(np.float32)
    image[::2] = -9999
    image[1, :5] = np.nan
    found = stats(rasters.write(tmp_path / "a.tif", image, nodata=-9999))
    good = image[1::2]
    assert found.median == pytest.approx(np.median(good[np.isfinite(good)]), rel=1e-6)


def sparse(path, size=40_000, at=(1000, 1000)):
    """A sparse tiled file, zero = nodata, with 300 x 300 valid pixels that the lattice misses."""
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=size, width=size, dtype="uint8", nodata=0, tiled=True,
        blockxsize=256, blockysize=256, sparse_ok=True, crs=rasters.UTM,
        transform=rasters.PLACES["north_up"][1],
    ) as dataset:  # fmt: skip
        patch = np.random.default_rng(0).integers(1, 200, (300, 300), dtype=np.uint8)
        dataset.write(patch, 1, window=rasterio.windows.Window(at[1], at[0], 300, 300))
    return path, patch


def test_feature_region_is_asked_where_the_lattice_finds_nothing(tmp_path):
    path, patch = sparse(tmp_path / "a.tif", at=(256, 256))
    found = stats(path, region=(256, 256, 300, 300))
    assert found.source == "EXTENT/AOI"
    assert found.median == pytest.approx(np.median(patch), abs=2)


def test_feature_nearly_empty_raster_is_searched_to_its_first_pixels(tmp_path):
    path, patch = sparse(tmp_path / "a.tif", at=(256, 256))
    found = stats(path)
    assert found.source == "the first blocks with different values"
    assert found.minimum >= 1
    assert found.maximum <= patch.max()


def test_exception_all_nodata(tmp_path):
    path = rasters.write(tmp_path / "a.tif", np.zeros((50, 50), np.uint8), nodata=0)
    with pytest.raises(EngineError, match=r"All pixels of band 1 of a.tif are nodata"):
        stats(path)


@pytest.mark.parametrize("size", [1, 50, 2000])
def test_exception_constant(tmp_path, size):
    path = rasters.write(tmp_path / "a.tif", np.full((size, size), 7, np.uint8))
    with pytest.raises(EngineError, match=r"All valid pixels of band 1 of a.tif have the value 7"):
        stats(path)


def test_feature_a_single_other_pixel_is_found(tmp_path):
    image = np.full((3000, 3000), 7, np.uint8)
    image[2999, 2999] = 200
    found = stats(rasters.write(tmp_path / "a.tif", image, tiled=True, blockxsize=64, blockysize=64))
    assert (found.minimum, found.maximum, found.median) == (7, 200, 7)


def test_feature_constant_inside_the_region_alone_is_no_reason_to_refuse(tmp_path):
    image = np.full((200, 200), 7, np.uint8)
    image[:100] = 9
    path = rasters.write(tmp_path / "a.tif", image)
    assert stats(path, region=(100, 0, 100, 200)).maximum == 9  # the lattice sees the whole raster


def test_feature_cancel_is_heard(tmp_path):
    events = Recorder()
    events.cancel.set()
    path = rasters.write(tmp_path / "a.tif", rasters.sea(50, 50, []))
    with pytest.raises(Cancelled):
        scene_statistics(open_scene(str(path), 1), None, Track(events))


def test_feature_a_corner_of_the_valid_part_is_not_taken_for_the_scene(tmp_path):
    """The first block with values holds 4 x 4 dark pixels; percentiles come from the others as well."""
    path, patch = sparse(tmp_path / "a.tif", at=(252, 252))
    with rasterio.open(path, "r+") as dataset:
        dark = np.arange(1, 17, dtype=np.uint8).reshape(4, 4)
        dataset.write(dark, 1, window=rasterio.windows.Window(252, 252, 4, 4))
    found = stats(path)
    assert found.median == pytest.approx(np.median(patch), abs=3)
