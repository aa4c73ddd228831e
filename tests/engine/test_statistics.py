"""Scene statistics: a fixed lattice, whatever the file's blocks, and the hard cases behind it."""

import numpy as np
import pytest
import rasterio
from kestrel.engine.errors import Cancelled, EngineError
from kestrel.engine.events import Track
from kestrel.engine.scene import Reader, open_scene
from kestrel.engine.statistics import BLOCKS, SAMPLES, band_statistics, scene_statistics
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


def counted_reads(monkeypatch):
    """Return a list that grows by one with every window read."""
    reads = []
    read = Reader.read_bands
    monkeypatch.setattr(Reader, "read_bands", lambda self, *w: reads.append(w) or read(self, *w))
    return reads


def test_feature_a_large_raster_is_sampled_evenly(tmp_path, monkeypatch):
    ramp = np.broadcast_to(np.arange(3000, dtype=np.uint16), (2048, 3000))
    path = rasters.write(tmp_path / "a.tif", np.ascontiguousarray(ramp), tiled=True, blockxsize=64,
                         blockysize=64)  # fmt: skip
    reads = counted_reads(monkeypatch)
    found = stats(path)
    assert 0 < len(reads) <= BLOCKS
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


def band_stats(path, bands=(1, 2, 3), region=None):
    return band_statistics(open_scene(str(path), bands), region, Track(Recorder()))


def three(height, width, dtype=np.uint16):
    rng = np.random.default_rng(1)
    return np.stack([rng.gamma(2, 50 * k, (height, width)) + k for k in (1, 2, 3)]).astype(dtype)


@pytest.mark.parametrize("profile", [{}, {"tiled": True, "blockxsize": 64, "blockysize": 64}])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
def test_feature_bands_have_statistics_of_their_own(tmp_path, profile, dtype):
    image = three(300, 217, dtype)
    path = rasters.write(tmp_path / "a.tif", image, **profile)
    for found, band in zip(band_stats(path, (3, 1, 2)), (2, 0, 1), strict=True):
        assert found.dtype == dtype
        assert found.source == "the whole raster"
        for percent in (0, 2, 50, 98, 100):
            assert found.percentile(percent) == pytest.approx(np.percentile(image[band], percent), rel=1e-6)


def test_oracle_one_band_is_what_the_scene_has(tmp_path):
    path, _ = sparse(tmp_path / "a.tif", at=(256, 256))
    full = rasters.write(tmp_path / "b.tif", three(700, 900))
    for file in (path, full):
        (one,), scene = band_stats(file, (1,)), stats(file)
        assert np.array_equal(one.samples, scene.samples)
        assert one.source == scene.source


def test_feature_each_cell_is_read_once_for_all_bands(tmp_path, monkeypatch):
    path = rasters.write(tmp_path / "a.tif", three(640, 640), tiled=True, blockxsize=64, blockysize=64)
    reads = counted_reads(monkeypatch)
    band_stats(path)
    assert len(reads) == 100
    assert len({window[:2] for window in reads}) == 100


def test_feature_a_pixel_counts_where_every_band_is_valid(tmp_path):
    image = three(64, 64, np.float32)
    image[0, :10] = -1
    image[1, :, :5] = np.nan
    image[2, 40:, 40:] = np.inf
    path = rasters.write(tmp_path / "a.tif", image, nodata=-1)
    good = np.ones((64, 64), bool)
    good[:10] = good[:, :5] = good[40:, 40:] = False
    for found, band in zip(band_stats(path), image, strict=True):
        assert np.array_equal(found.samples, np.sort(band[good]))


def test_feature_bands_of_different_types_keep_them(tmp_path):
    for name, dtype in (("a", "uint8"), ("b", "uint16")):
        rasters.write(tmp_path / f"{name}.tif", np.arange(1, 101, dtype=dtype).reshape(10, 10))
    vrt = tmp_path / "both.vrt"
    sources = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{band}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{name}.tif</SourceFilename></SimpleSource></VRTRasterBand>'
        for band, (name, kind) in enumerate((("a", "Byte"), ("b", "UInt16")), 1)
    )
    vrt.write_text(f'<VRTDataset rasterXSize="10" rasterYSize="10">{sources}</VRTDataset>')
    first, second = band_stats(vrt, (1, 2))
    assert (first.dtype, second.dtype) == (np.uint8, np.uint16)
    assert (first.minimum, second.maximum) == (1, 100)


def test_fault_7_all_nodata_has_no_statistics(tmp_path):
    path = rasters.write(tmp_path / "a.tif", np.zeros((3, 500, 500), np.uint8), nodata=0)
    assert band_stats(path) == (None, None, None)
    assert band_stats(path, region=(0, 0, 10, 10)) == (None, None, None)
    image = three(20, 20)
    image[0, :, :10] = image[1, :, 10:] = 0  # every pixel is invalid in one band
    assert band_stats(rasters.write(tmp_path / "b.tif", image, nodata=0)) == (None, None, None)


@pytest.mark.parametrize("size", [2, 50, 1200])
def test_exception_a_constant_band(tmp_path, size):
    image = three(size, size)
    image[1] = 7
    path = rasters.write(tmp_path / "a.tif", image)
    with pytest.raises(EngineError, match=r"Band 2 of a.tif is constant \(all valid pixels are 7\)\."):
        band_stats(path, (2, 1, 3))


@pytest.mark.parametrize("size", [1, 300])
def test_fault_7_a_single_valid_pixel_is_no_constant_band(tmp_path, size):
    image = np.zeros((3, size, size), np.uint16)
    image[:, -1, -1] = 5, 6, 7
    found = band_stats(rasters.write(tmp_path / "a.tif", image, nodata=0))
    assert [each.samples.tolist() for each in found] == [[5], [6], [7]]


def test_feature_one_other_pixel_in_one_band_is_found(tmp_path):
    image = np.tile(np.arange(3000, dtype=np.uint16), (3, 3000, 1))
    image[2] = 7
    image[2, 2999, 2999] = 200
    path = rasters.write(tmp_path / "a.tif", image, tiled=True, blockxsize=64, blockysize=64)
    first, _, last = band_stats(path)
    assert (last.minimum, last.maximum, last.median) == (7, 200, 7)
    assert last.source == "the first blocks with different values"
    assert first.source == "the whole raster"


def test_feature_samples_are_shared_out_and_no_cell_is_kept(tmp_path):
    """4 million samples in all, whatever the bands; a view of each cell would keep the whole raster."""
    import tracemalloc

    path = rasters.write(
        tmp_path / "a.tif", np.broadcast_to(np.arange(4096, dtype=np.uint16), (3, 4096, 4096)).copy(),
        tiled=True, blockxsize=512, blockysize=512,
    )  # fmt: skip
    tracemalloc.start()
    found = band_stats(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(len(each.samples) for each in found) <= SAMPLES
    assert found[1].median == pytest.approx(2048, abs=10)
    # 2 bytes a sample, kept as parts and as a whole, and some cells; all cells are 100 MB
    assert peak < 3 * 2 * SAMPLES + 20e6


def test_feature_region_is_asked_for_all_bands(tmp_path):
    path = tmp_path / "a.tif"
    pixels = three(300, 300)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=40_000, width=40_000, dtype="uint16", nodata=0, tiled=True,
        blockxsize=256, blockysize=256, sparse_ok=True, transform=rasters.PLACES["north_up"][1],
    ) as dataset:  # fmt: skip
        dataset.write(pixels, window=rasterio.windows.Window(0, 0, 300, 300))
    for found, band in zip(band_stats(path, region=(0, 0, 300, 300)), pixels, strict=True):
        assert found.source == "EXTENT/AOI"
        assert np.array_equal(found.samples, np.sort(band.ravel()))
