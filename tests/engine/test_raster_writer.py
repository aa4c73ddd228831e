"""The raster writer: every kind of file comes back as it was meant, or one sentence says why not."""

import contextlib
import itertools
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import rasterio
from affine import Affine
from kestrel.engine.errors import Cancelled, EngineError
from kestrel.engine.events import Track
from kestrel.engine.raster_profile import creation_profile, has_zstd, overview_levels, size_bound
from kestrel.engine.raster_writer import BLOCK, RasterWriter, Target
from kestrel.tests.support import full_disk_run, rasters
from rasterio.enums import ColorInterp, Compression, MaskFlags
from rasterio.windows import Window

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float32", "float64")
RED, GREEN, BLUE, ALPHA = ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha
GRAY, UNDEFINED = ColorInterp.gray, ColorInterp.undefined


class Silent:
    """Events nobody listens to."""

    def __init__(self):
        self.cancel = threading.Event()
        self.stages = []

    def progress(self, fraction, done, total, stage, seconds_left):
        self.stages.append((stage, fraction))

    def log(self, level, text):
        pass


def noise(shape, dtype="uint8", seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1000, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def write(path, target, values, mask=None, nodata=None, panel=None, events=None):
    """Write whole rows, or panels of ``panel`` columns, as the engine does; return the path."""
    events = events or Silent()
    with RasterWriter(target, path, events.cancel, path.name) as writer:
        step = panel or target.width
        for col, row in itertools.product(range(0, target.width, step), range(0, target.height, BLOCK)):
            window = slice(row, row + BLOCK), slice(col, col + step)
            writer.write(row, col, values[:, *window], None if mask is None else mask[window])
        if nodata is not None:
            writer.declare_nodata(nodata)
        writer.finish(Track(events))
    return path


def target_of(values, **more):
    count, height, width = values.shape
    return Target(width=width, height=height, count=count, dtype=values.dtype, **more)


@pytest.mark.parametrize("cog", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_feature_every_dtype_comes_back(tmp_path, dtype, cog):
    values = noise((3, 530, 600), dtype)
    path = write(tmp_path / "a.tif", target_of(values, cog=cog), values)
    with rasterio.open(path) as dataset:
        assert set(dataset.dtypes) == {dtype}
        assert (dataset.read() == values).all()
        assert dataset.overviews(1) == [2, 4]
        assert dataset.nodata is None
    assert os.listdir(tmp_path) == ["a.tif"]


@pytest.mark.parametrize("cog", [False, True])
@pytest.mark.parametrize(
    "size",
    [(1, 1), (1, 700), (700, 1), (257, 521), (256, 512), (512, 513), (1031, 97), (3, 2049), (997, 1003)],
)
def test_shape_any_size(tmp_path, size, cog):
    values = noise((2, *size), "uint16")
    path = write(tmp_path / "a.tif", target_of(values, cog=cog), values)
    with rasterio.open(path) as dataset:
        assert dataset.shape == size
        assert (dataset.read() == values).all()
        assert bool(dataset.overviews(1)) == (max(size) > 512)


@pytest.mark.parametrize("count", [1, 4, 5, 11])
@pytest.mark.parametrize("panel", [None, 256, 512])
def test_shape_bands_and_column_panels(tmp_path, count, panel):
    values = noise((count, 300, 700))
    path = write(tmp_path / "a.tif", target_of(values), values, panel=panel)
    with rasterio.open(path) as dataset:
        assert (dataset.read() == values).all()
        assert count == 1 or dataset.interleaving.name == ("pixel" if count <= 4 else "band")


@pytest.mark.parametrize("cog", [False, True])
@pytest.mark.parametrize("place", sorted(rasters.PLACES))
def test_feature_every_place_on_the_ground(tmp_path, place, cog):
    crs, transform = rasters.PLACES[place]
    values = noise((1, 300, 300))
    path = write(tmp_path / "a.tif", target_of(values, crs=crs, transform=transform, cog=cog), values)
    with rasterio.open(path) as dataset:
        assert dataset.crs == crs
        assert dataset.transform.almost_equals(transform, 1e-9)
        assert (dataset.read() == values).all()


@pytest.mark.parametrize("cog", [False, True])
def test_feature_a_crs_that_geotiff_cannot_say_goes_beside_it(tmp_path, cog):
    crs = rasterio.CRS.from_user_input(
        "+proj=ob_tran +o_proj=longlat +o_lat_p=39.25 +o_lon_p=0 +lon_0=18 +R=6371229"
    )
    values = noise((1, 60, 60))
    target = target_of(values, crs=crs, transform=Affine(0.1, 0, 5, 0, -0.1, 50), cog=cog)
    path = write(tmp_path / "a.tif", target, values)
    assert sorted(os.listdir(tmp_path)) == ["a.tif", "a.tif.aux.xml"]
    with rasterio.open(path) as dataset:
        assert dataset.crs == crs


@pytest.mark.parametrize("cog", [False, True])
def test_feature_everything_said_of_the_bands_is_kept(tmp_path, cog):
    values = noise((4, 600, 300), "uint16")
    target = target_of(
        values,
        descriptions=("B04", "grün", None, "alpha"),
        colorinterp=(RED, GREEN, BLUE, ALPHA),
        units=("DN", None, "", "%"),
        scales=(1e-4, 0.5, 1.0, 1.0),
        offsets=(-0.1, 0.0, 2.0, 0.0),
        band_tags=({"wavelength": "665"}, {}, {"STATISTICS_MEAN": "7"}, {}),
        tags={"KESTREL_MODEL": "dark_channel", "NODATA_VALUES": "0 0 0 0"},
        nodata=0,
        cog=cog,
    )
    with rasterio.open(write(tmp_path / "a.tif", target, values)) as dataset:
        assert dataset.descriptions == ("B04", "grün", None, "alpha")
        assert dataset.colorinterp == target.colorinterp
        assert [unit or "" for unit in dataset.units] == ["DN", "", "", "%"]
        assert dataset.scales == target.scales
        assert dataset.offsets == target.offsets
        assert dataset.tags(1)["wavelength"] == "665"
        assert not any(name.startswith("STATISTICS") for name in dataset.tags(3))  # of other pixels
        assert dataset.tags()["KESTREL_MODEL"] == "dark_channel"
        assert "NODATA_VALUES" not in dataset.tags()
        assert dataset.nodata == 0
    assert os.listdir(tmp_path) == ["a.tif"]


@pytest.mark.parametrize(
    "meanings",
    [
        (RED, GREEN, BLUE),
        (RED, GREEN, BLUE, UNDEFINED, UNDEFINED, ALPHA),
        (GRAY, ALPHA),
        (BLUE, GREEN, RED, UNDEFINED),
        (GRAY, UNDEFINED, UNDEFINED),
        (ALPHA, RED, GREEN),
    ],
)
def test_feature_meanings_of_bands(tmp_path, meanings):
    values = noise((len(meanings), 20, 20))
    target = target_of(values, colorinterp=meanings)
    assert creation_profile(target)["photometric"] == (
        "RGB" if meanings[:3] == (RED, GREEN, BLUE) else "MINISBLACK"
    )
    with rasterio.open(write(tmp_path / "a.tif", target, values)) as dataset:
        assert dataset.colorinterp == meanings
    assert os.listdir(tmp_path) == ["a.tif"]


@pytest.mark.parametrize("cog", [False, True])
def test_feature_colour_table_and_overviews_of_classes(tmp_path, cog):
    values = np.where(np.arange(600 * 700).reshape(1, 600, 700) % 2, 3, 9).astype(np.uint8)
    colours = {i: (i, 255 - i, 7, 255 if i < 255 else 0) for i in range(256)}  # GDAL makes nodata clear
    target = target_of(values, colormap=colours, resampling="nearest", nodata=255, cog=cog)
    with rasterio.open(write(tmp_path / "a.tif", target, values)) as dataset:
        assert dataset.colormap(1) == colours
        assert dataset.colorinterp == (ColorInterp.palette,)
        overview = dataset.read(1, out_shape=(300, 350))
        assert set(np.unique(overview)) <= {3, 9}  # never the mean, class 6


@pytest.mark.parametrize("cog", [False, True])
@pytest.mark.parametrize("count", [1, 5])
def test_feature_mask_band(tmp_path, count, cog):
    values = noise((count, 600, 700))
    mask = noise((600, 700), seed=1) > 100
    path = write(tmp_path / "a.tif", target_of(values, mask=True, cog=cog), values, mask)
    assert os.listdir(tmp_path) == ["a.tif"]
    with rasterio.open(path) as dataset:
        assert dataset.mask_flag_enums == ([MaskFlags.per_dataset],) * count
        assert ((dataset.read_masks() != 0) == mask).all()
        assert (dataset.read() == values).all()  # what lies under the mask stays
    with rasterio.open(path, overview_level=0) as dataset:
        assert dataset.read_masks(1).shape == (300, 350)


@pytest.mark.parametrize("cog", [False, True])
@pytest.mark.parametrize("nodata", [-3.4028234663852886e38, -9999.0, float("nan"), float("-inf")])
def test_feature_nodata_declared_at_the_start_or_the_end(tmp_path, nodata, cog):
    values = noise((1, 600, 600), "float32")
    values[0, :300] = nodata
    late = write(tmp_path / "late.tif", target_of(values, cog=cog), values, nodata=nodata)
    early = write(tmp_path / "early.tif", target_of(values, nodata=nodata, cog=cog), values)
    if nodata != nodata:
        return
    for path in (early, late):
        with rasterio.open(path) as dataset:
            assert dataset.nodata == nodata
            assert (dataset.read_masks(1) != 0).sum() == 300 * 600
        with rasterio.open(path, overview_level=0) as dataset:  # made after it was declared
            shown = dataset.read(1)
            assert (shown[:150] == np.float32(nodata)).all()
            assert (np.abs(shown[150:]) < 1e5).all()


def test_feature_average_overviews_leave_nodata_out(tmp_path):
    values = np.full((1, 600, 600), 100, np.uint8)
    values[0, ::2] = 0
    with rasterio.open(
        write(tmp_path / "a.tif", target_of(values, nodata=0), values), overview_level=0
    ) as dataset:
        assert (dataset.read(1) == 100).all()


@pytest.mark.parametrize("cog", [False, True])
@pytest.mark.parametrize("nodata", [None, 0])
def test_feature_an_empty_raster_is_whole(tmp_path, nodata, cog):
    values = np.zeros((2, 1100, 900), np.uint8)
    path = write(tmp_path / "a.tif", target_of(values, nodata=nodata, cog=cog), values)
    with rasterio.open(path) as dataset:
        assert not dataset.read().any()


@pytest.mark.parametrize(
    ("side", "levels"),
    [
        (512, []),
        (513, [2, 4]),
        (1024, [2, 4, 8]),
        (1000, [2, 4]),
        (100_000, [2, 4, 8, 16, 32, 64, 128, 256, 512]),
    ],
)
def test_feature_overview_levels(side, levels):
    assert overview_levels(Target(width=10, height=side, count=1, dtype="uint8")) == levels
    if levels:
        assert -(-side // levels[-1]) < BLOCK <= -(-side // levels[-2])


def test_feature_the_cog_is_laid_out_as_one(tmp_path):
    values = noise((3, 1100, 1300))
    target = target_of(values, cog=True, colorinterp=(RED, GREEN, BLUE))
    with rasterio.open(write(tmp_path / "a.tif", target, values)) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "2"
        assert dataset.block_shapes == [(512, 512)] * 3
        assert dataset.overviews(1) == [2, 4, 8]
        assert dataset.compression == Compression.deflate
        offsets = [
            int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1, **level))
            for level in ({}, {"ovr": 0}, {"ovr": 1}, {"ovr": 2})
        ]
        assert offsets == sorted(offsets, reverse=True)  # the smallest overview first, the pixels last
    assert os.listdir(tmp_path) == ["a.tif"]


def test_feature_the_profile_is_our_own():
    target = Target(width=10, height=10, count=3, dtype="uint16")
    profile = creation_profile(target)
    assert profile["compress"] == "DEFLATE"
    assert profile["predictor"] == 2
    assert profile["bigtiff"] == "IF_SAFER"
    assert (profile["tiled"], profile["blockxsize"], profile["blockysize"]) == (True, 256, 256)
    assert "num_threads" not in profile  # with it a full disk stays silent
    assert creation_profile(Target(width=9, height=9, count=5, dtype="float64"))["predictor"] == 3
    assert creation_profile(target, "zstd")["compress"] == ("ZSTD" if has_zstd() else "DEFLATE")


@pytest.mark.parametrize("dtype", DTYPES)
def test_feature_zstd_where_it_is_known(tmp_path, dtype):
    if not has_zstd():
        pytest.skip("this GDAL has no ZSTD")
    values = noise((2, 300, 300), dtype)
    with rasterio.open(tmp_path / "a.tif", "w", **creation_profile(target_of(values), "zstd")) as dataset:
        dataset.write(values)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.compression == Compression.zstd
        assert (dataset.read() == values).all()


@pytest.mark.parametrize("cog", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 700, 900), (11, 257, 1)])
def test_feature_no_file_is_larger_than_the_bound(tmp_path, shape, cog):
    values = noise(shape)
    target = target_of(values, cog=cog)
    assert write(tmp_path / "a.tif", target, values).stat().st_size <= size_bound(target)


def test_feature_large_files_are_bigtiff(tmp_path):
    target = Target(width=30_000, height=30_000, count=3, dtype="uint8")
    with RasterWriter(target, tmp_path / "a.tif", threading.Event()):
        pass
    assert (tmp_path / "a.tif").read_bytes()[:4] == b"II+\0"


def test_feature_progress_of_finishing(tmp_path):
    events = Silent()
    values = noise((1, 600, 600))
    write(tmp_path / "a.tif", target_of(values, cog=True), values, events=events)
    fractions = [fraction for _, fraction in events.stages]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.9
    assert fractions[-1] == pytest.approx(0.99)
    assert {"overviews", "COG", "checking the raster"} <= {name for name, _ in events.stages}


def test_fault_cancel_is_heard_everywhere(tmp_path):
    values = noise((1, 600, 600))
    for polls in range(1, 12):
        events = Silent()
        asked = itertools.count(1)
        events.cancel.is_set = lambda asked=asked, polls=polls: next(asked) > polls
        with pytest.raises(Cancelled):
            write(tmp_path / "a.tif", target_of(values, cog=True), values, events=events)


@pytest.mark.parametrize(
    ("row", "col", "height", "width"),
    [(1, 0, 256, 600), (0, 7, 256, 593), (0, 0, 255, 600), (0, 0, 256, 599)],
)
def test_exception_windows_off_the_tiles(tmp_path, row, col, height, width):
    target = Target(width=600, height=600, count=1, dtype="uint8")
    with RasterWriter(target, tmp_path / "a.tif", threading.Event()) as writer, pytest.raises(AssertionError):
        writer.write(row, col, np.zeros((1, height, width), np.uint8))


def test_exception_missing_rows(tmp_path):
    target = Target(width=600, height=600, count=1, dtype="uint8")
    with RasterWriter(target, tmp_path / "a.tif", threading.Event()) as writer:
        writer.write(0, 0, np.zeros((1, 256, 600), np.uint8))
        with pytest.raises(AssertionError, match="windows are missing"):
            writer.finish(Track(Silent()))


def test_exception_missing_folder(tmp_path):
    target = Target(width=6, height=6, count=1, dtype="uint8")
    with pytest.raises(EngineError, match=r"out\.tif cannot be created: no such file or directory") as caught:
        RasterWriter(target, tmp_path / "nowhere" / "a.tif", threading.Event(), "out.tif")
    assert caught.value.code == "output"


def damaged(path, values, monkeypatch, damage, **more):
    """Write a raster and damage the closed file before it is read back."""
    verify = RasterWriter._verify

    def spoil_first(self, *args):
        damage(self.path)
        verify(self, *args)

    monkeypatch.setattr(RasterWriter, "_verify", spoil_first)
    write(path, target_of(values, **more), values)


def overwrite(offset_of):
    def damage(path):
        with rasterio.open(path) as dataset:
            offset, size = offset_of(dataset)
        with path.open("r+b") as stream:
            stream.seek(offset)
            stream.write(bytes(size))

    return damage


def tile(dataset, **level):
    return tuple(
        int(dataset.get_tag_item(f"BLOCK_{what}_1_1", "TIFF", bidx=1, **level)) for what in ("OFFSET", "SIZE")
    )


@pytest.mark.parametrize("cog", [False, True])
@pytest.mark.parametrize(
    "offset_of", [tile, lambda d: tile(d, ovr=0), lambda d: (os.path.getsize(d.name) - 3000, 3000)]
)
def test_fault_lost_tiles_are_found(tmp_path, monkeypatch, cog, offset_of):
    with pytest.raises(EngineError, match=r"cannot be read back|was not written completely"):
        damaged(tmp_path / "a.tif", noise((1, 2100, 2100)), monkeypatch, overwrite(offset_of), cog=cog)


def test_fault_pixels_that_decode_but_differ_are_found(tmp_path, monkeypatch):
    def change(path):
        with rasterio.open(path, "r+") as dataset:
            dataset.write(np.zeros((1, 1, 1), np.uint8), window=Window(299, 399, 1, 1))

    values = np.full((1, 600, 600), 7, np.uint8)
    with pytest.raises(
        EngineError, match="was not written completely: rows 256-512 read back as other values"
    ):
        damaged(tmp_path / "a.tif", values, monkeypatch, change)


def test_fault_an_overview_without_bytes_is_found(tmp_path, monkeypatch):
    def sparse(path):
        with rasterio.open(path) as dataset:
            values = dataset.read()
        path.unlink()
        with rasterio.open(path, "w", **creation_profile(target_of(values)), sparse_ok=True) as dataset:
            dataset.write(values)
        with rasterio.Env(SPARSE_OK_OVERVIEW=True), rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2, 4], rasterio.enums.Resampling.average)

    with pytest.raises(EngineError, match="was not written completely: its overview 1:2 lacks a tile"):
        damaged(tmp_path / "a.tif", np.zeros((1, 600, 600), np.uint8), monkeypatch, sparse)


@contextlib.contextmanager
def small_disk(folder, kilobytes):
    """Mount a disk of that size; skips where that is not allowed."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


FULL = noise((3, 1000, 1000))  # 2900 kB that do not pack; the last tiles are written at closing


@pytest.mark.parametrize(
    ("kilobytes", "checked", "message"),
    [
        (32, True, r"a\.tif cannot be written: no space left on device\."),  # 1 %
        (1500, True, r"a\.tif cannot be written: no space left on device\."),
        (2900, True, r"The overviews of a\.tif may need 0\.9 MB, but .* has 0\.\d MB free\."),
        (2900, False, r"a\.tif was not written completely: no space left on device\."),  # GDAL was silent
        (3060, False, r"a\.tif was not written completely: no space left on device\."),  # here too
    ],
)
def test_fault_full_disk(tmp_path, monkeypatch, kilobytes, checked, message):
    if not checked:
        fills_up_meanwhile(monkeypatch)
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        with pytest.raises(EngineError, match=message) as caught:
            write(disk / "a.tif", target_of(FULL), FULL)
        assert caught.value.code == "output"
        assert "Free some space" in caught.value.hint


def test_fault_full_disk_before_the_cog_is_made(tmp_path):
    with (
        small_disk(tmp_path / "disk", 7000) as disk,
        pytest.raises(EngineError, match=r"a\.tif as a COG may need"),
    ):
        write(disk / "a.tif", target_of(FULL, cog=True), FULL)


def fills_up_meanwhile(monkeypatch):
    """Let the space be taken by others after it was checked."""
    monkeypatch.setattr("kestrel.engine.raster_writer.check_space", lambda *_: None)


def outcomes_by_size(folder, sizes, target, mask=None):
    """Return kilobytes -> what was refused, "" for nothing; what was not is right in every pixel."""
    outcomes = []
    for kilobytes in sizes:
        with small_disk(folder, kilobytes) as disk:
            try:
                write(disk / "a.tif", target, FULL, mask)
            except EngineError as error:
                outcomes.append(error.message)
                continue
            outcomes.append("")
            with rasterio.open(disk / "a.tif") as dataset:
                assert (dataset.read() == FULL).all()
                assert mask is None or ((dataset.read_masks(1) != 0) == mask).all()
            for level in (0, 1):
                shape = 3, 500 >> level, 2 << level, 500 >> level, 2 << level
                with rasterio.open(disk / "a.tif", overview_level=level) as dataset:
                    shown = dataset.read()
                    # GDAL averages what the mask leaves
                    weight = np.ones(FULL.shape) if mask is None else np.broadcast_to(mask, FULL.shape)
                    sums = (FULL * weight).reshape(shape).sum(axis=(2, 4))
                    known = weight.reshape(shape).sum(axis=(2, 4))
                    if mask is not None:
                        assert 0.5 < (dataset.read_masks(1) != 0).mean()
                if mask is None:
                    assert np.abs(shown - sums / known).max() <= 1 + level
    return outcomes


def test_oracle_whatever_the_disk_holds_the_file_is_right_or_refused(tmp_path, monkeypatch):
    # around the sizes where GDAL itself says nothing: the last tiles, the directory, the overviews
    fills_up_meanwhile(monkeypatch)
    total = write(tmp_path / "a.tif", target_of(FULL), FULL).stat().st_size // 1024
    sizes = [*range(2900, 3200, 20), *range(total - 120, total + 60, 12)]
    outcomes = outcomes_by_size(tmp_path / "disk", sizes, target_of(FULL))
    refused = [message for message in outcomes if message]
    assert 20 < len(refused) < len(outcomes)
    assert all("no space left on device" in message for message in refused)
    assert not any(outcomes[len(refused) :])  # from some size on it always fits


def test_oracle_whatever_the_disk_holds_with_a_mask(tmp_path):
    # the space is checked here: GDAL 3.10 crashes when a mask's overview does not fit
    mask = noise((1000, 1000), seed=2) > 100
    target = target_of(FULL, mask=True)
    outcomes = outcomes_by_size(tmp_path / "disk", [*range(2900, 3300, 20), 4200], target, mask)
    assert outcomes[0]
    assert not outcomes[-1]


def test_oracle_without_reading_back_a_full_disk_is_silent(tmp_path, monkeypatch):
    # the reason for the checks: should this fail one day, GDAL has learned to speak
    fills_up_meanwhile(monkeypatch)
    monkeypatch.setattr(RasterWriter, "_verify", lambda *_: None)
    for kilobytes, where in ((2900, "tiles"), (3060, "overviews")):
        with small_disk(tmp_path / "disk", kilobytes) as disk:
            write(disk / "a.tif", target_of(FULL), FULL)
            if where == "tiles":
                with rasterio.open(disk / "a.tif") as dataset, pytest.raises(rasterio.errors.RasterioError):
                    dataset.read()
            else:
                with rasterio.open(disk / "a.tif", overview_level=0) as dataset:
                    assert not dataset.read().any()  # a black picture


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on a file's size")
@pytest.mark.parametrize("kilobytes", [20, 1500, 2999, 3100])
def test_fault_limit_on_the_size_of_a_file(tmp_path, kilobytes):
    child = subprocess.run(
        [sys.executable, full_disk_run.__file__, str(tmp_path / "a.tif"), str(kilobytes)],
        capture_output=True,
        text=True,
    )
    assert child.stdout == "output|a.tif|file too large\n", child.stderr
