"""Faults 1-5, 10, 11 and 24 of ENGINE.md, section 7: files that are not what they seem."""

import os
import threading

import numpy as np
import pytest
import rasterio
from kestrel.engine.errors import EngineError
from kestrel.engine.run import run_job
from kestrel.engine.scene import open_scene
from kestrel.tests.support import rasters, toys
from kestrel.tests.support.jobs import Recorder, job, run

SHIPS = [(10, 10, 30, 16), (120, 100, 140, 130)]
IMAGE = rasters.sea(256, 256, SHIPS)


def refused(path, tmp_path, words, **fields):
    """Run a Job that must fail: the sentence matches, a hint is there, no output is left."""
    with pytest.raises(EngineError, match=words) as caught:
        run(path, tmp_path / "scratch", **fields)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    left = [p.name for p in (tmp_path / "scratch").glob("*")] if (tmp_path / "scratch").exists() else []
    assert left == []
    return caught.value


@pytest.fixture
def noise():
    """Noise does not compress, so a file's bytes lie where its pixels do."""
    return np.random.default_rng(0).integers(1, 255, (512, 512), dtype=np.uint8)


@pytest.mark.parametrize("threads", [True, False])
def test_fault_01_truncated_geotiff(tmp_path, noise, threads):
    path = rasters.write(tmp_path / "cut.tif", noise, tiled=True, blockxsize=64, blockysize=64)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    error = refused(path, tmp_path, r"cut\.tif cannot be read at rows \d+-\d+, col", threads=threads)
    assert "of band 1" in error.message
    assert error.message.endswith("(0 % of the tiles were done).")
    assert "truncated or damaged" in error.hint


def test_fault_01_truncated_behind_what_the_statistics_read(tmp_path, noise, monkeypatch):
    path = rasters.write(tmp_path / "cut.tif", noise, tiled=True, blockxsize=64, blockysize=64)
    whole = path.read_bytes()
    from kestrel.engine import boxes_run

    sample = boxes_run.scene_statistics(open_scene(str(path), 1), None, boxes_run.Track(Recorder()))
    path.write_bytes(whole[: len(whole) * 6 // 10])
    monkeypatch.setattr(boxes_run, "scene_statistics", lambda *_: sample)
    error = refused(path, tmp_path, r"\(\d+ % of the tiles were done\)")
    percent = int(error.message.split("(")[-1].split(" %")[0])
    assert 20 <= percent <= 70


@pytest.mark.parametrize(
    ("suffix", "driver"), [("jpg", "JPEG"), ("png", "PNG"), ("img", "HFA"), ("dat", "ENVI")]
)
def test_fault_01_truncated_in_other_formats(tmp_path, noise, suffix, driver):
    path = tmp_path / f"cut.{suffix}"
    with rasterio.open(
        path, "w", driver=driver, count=1, height=512, width=512, dtype="uint8", crs=rasters.UTM,
        transform=rasters.PLACES["north_up"][1],
    ) as dataset:  # fmt: skip
        dataset.write(noise, 1)
    path.write_bytes(path.read_bytes()[:120_000])
    refused(path, tmp_path, rf"cut\.{suffix}")


@pytest.mark.parametrize("compress", ["deflate", "lzw", "jpeg"])
def test_fault_02_corrupt_compressed_tile(tmp_path, noise, compress):
    path = rasters.write(tmp_path / "bad.tif", noise, tiled=True, blockxsize=64, blockysize=64,
                         compress=compress)  # fmt: skip
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 6000] = bytes(6000)
    path.write_bytes(data)
    refused(path, tmp_path, r"bad\.tif cannot be read at rows")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"hello, I am text\n" * 9, "cannot be opened as a raster"),
     (b"PK\x03\x04" + bytes(200), "cannot be opened as a raster")],
)  # fmt: skip
def test_fault_03_not_a_raster(tmp_path, content, words):
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    refused(path, tmp_path, words)


def test_fault_03_missing_or_a_folder(tmp_path):
    refused(tmp_path / "none.tif", tmp_path, "does not exist")
    (tmp_path / "folder.tif").mkdir()
    refused(tmp_path / "folder.tif", tmp_path, "is a folder")


@pytest.mark.parametrize(
    "name",
    ["/vsicurl/http://localhost/a.tif", "http://localhost/a.tif", "/vsizip/a.zip/a.tif",
     "<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>", "<GDAL_WMS></GDAL_WMS>",
     "a/<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>"],
)  # fmt: skip
def test_security_remote_and_inline_sources_are_refused(name):
    with pytest.raises(EngineError, match="not a file on this computer"):
        open_scene(name, 1)


def test_security_formats_off_the_list_are_refused(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(
        '<GDAL_WMS><Service name="TMS"><ServerUrl>http://localhost/</ServerUrl></Service></GDAL_WMS>'
    )
    with pytest.raises(EngineError, match="cannot be opened as a raster"):
        open_scene(str(path), 1)


def test_security_a_header_that_opens_other_rasters_is_refused(tmp_path):
    rasters.write(tmp_path / "a.tif", IMAGE)
    path = tmp_path / "a.ers"
    path.write_text(
        'DatasetHeader Begin\n\tDataFile = "a.tif"\n\tDataSetType = Translated\n\tDataType = Raster\n'
        "\tRasterInfo Begin\n\t\tCellType = Unsigned8BitInteger\n\t\tNrOfLines = 256\n"
        "\t\tNrOfCellsPerLine = 256\n\t\tNrOfBands = 1\n\tRasterInfo End\nDatasetHeader End\n"
    )
    with pytest.raises(EngineError, match="cannot be opened as a raster"):
        open_scene(str(path), 1)


def vrt(path, source, relative=1, extra="", tag="SimpleSource"):
    path.write_text(
        f'<VRTDataset rasterXSize="256" rasterYSize="256"><VRTRasterBand dataType="Byte" band="1">{extra}'
        f'<{tag}><SourceFilename relativeToVRT="{relative}">{source}</SourceFilename>'
        f"<SourceBand>1</SourceBand></{tag}></VRTRasterBand></VRTDataset>"
    )
    return path


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
class TestFault04Vrt:
    def test_a_good_one_works(self, tmp_path):
        (tmp_path / "below").mkdir()
        rasters.write(tmp_path / "below" / "a.tif", IMAGE)
        _, found = run(vrt(tmp_path / "a.vrt", "below/a.tif"), tmp_path)
        assert len(found["id"]) == len(SHIPS)

    def test_missing_source(self, tmp_path):
        refused(vrt(tmp_path / "a.vrt", "gone.tif"), tmp_path, r"gone\.tif, which does not exist")

    def test_loop(self, tmp_path):
        vrt(tmp_path / "b.vrt", "a.vrt")
        path = vrt(tmp_path / "a.vrt", "b.vrt")
        refused(path, tmp_path, r"refers to itself: a\.vrt -> b\.vrt -> a\.vrt")

    def test_self_loop_under_another_name(self, tmp_path):
        path = vrt(tmp_path / "a.tif", "a.tif")
        refused(path, tmp_path, r"refers to itself: a\.tif -> a\.tif")

    @pytest.mark.parametrize("relative", [0, 1])
    def test_outside_its_folder(self, tmp_path, relative):
        rasters.write(tmp_path / "a.tif", IMAGE)
        (tmp_path / "sub").mkdir()
        source = "../a.tif" if relative else tmp_path / "a.tif"
        refused(vrt(tmp_path / "sub" / "a.vrt", source, relative), tmp_path, "outside the folder")

    def test_outside_by_a_nested_vrt_or_a_link(self, tmp_path):
        rasters.write(tmp_path / "a.tif", IMAGE)
        (tmp_path / "sub").mkdir()
        vrt(tmp_path / "sub" / "inner.vrt", "../a.tif")
        refused(vrt(tmp_path / "sub" / "a.vrt", "inner.vrt"), tmp_path, "outside the folder")
        os.symlink(tmp_path / "a.tif", tmp_path / "sub" / "link.tif")
        refused(vrt(tmp_path / "sub" / "b.vrt", "link.tif"), tmp_path, "outside the folder")

    @pytest.mark.parametrize("source", ["/vsicurl/http://localhost/a.tif", "http://localhost/a.tif"])
    def test_remote_source(self, tmp_path, source):
        refused(vrt(tmp_path / "a.vrt", source, 0), tmp_path, "not a file in its own folder")

    def test_geolocation_arrays_are_not_followed(self, tmp_path):
        rasters.write(tmp_path / "a.tif", IMAGE)
        arrays = "".join(
            f'<MDI key="{axis}_DATASET">/vsicurl/http://127.0.0.1:1/a.tif</MDI><MDI key="{axis}_BAND">1</MDI>'
            for axis in "XY"
        )
        path = tmp_path / "a.vrt"
        path.write_text(
            '<VRTDataset rasterXSize="9" rasterYSize="9" subClass="VRTWarpedDataset">'
            '<VRTRasterBand dataType="Byte" band="1" subClass="VRTWarpedRasterBand"/><GDALWarpOptions>'
            '<SourceDataset relativeToVRT="1">a.tif</SourceDataset><Transformer><GenImgProjTransformer>'
            f"<SrcGeoLocTransformer><GeoLocTransformer><Metadata>{arrays}</Metadata></GeoLocTransformer>"
            "</SrcGeoLocTransformer></GenImgProjTransformer></Transformer></GDALWarpOptions></VRTDataset>"
        )
        refused(path, tmp_path, "geolocation arrays")

    def test_python_pixel_function(self, tmp_path):
        rasters.write(tmp_path / "a.tif", IMAGE)
        extra = (
            "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
            f"<PixelFunctionCode>open('{tmp_path}/pwned', 'w')</PixelFunctionCode>"
        )
        path = vrt(tmp_path / "a.vrt", "a.tif", extra=extra)
        path.write_text(
            path.read_text().replace("VRTRasterBand d", 'VRTRasterBand subClass="VRTDerivedRasterBand" d')
        )
        refused(path, tmp_path, "Python pixel function")
        assert not (tmp_path / "pwned").exists()

    def test_damaged_or_with_entities(self, tmp_path):
        path = tmp_path / "a.vrt"
        path.write_text('<VRTDataset rasterXSize="1" rasterYSize="1"><VRT')
        refused(path, tmp_path, "damaged VRT")
        path.write_text('<!DOCTYPE x [<!ENTITY a "b">]><VRTDataset rasterXSize="1" rasterYSize="1"/>')
        refused(path, tmp_path, "document type")

    def test_source_is_not_a_raster(self, tmp_path):
        (tmp_path / "a.tif").write_text("text")
        refused(vrt(tmp_path / "a.vrt", "a.tif"), tmp_path, r"a\.tif cannot be opened")


def test_fault_05_sparse_bomb_needs_an_area(tmp_path):
    path = tmp_path / "bomb.tif"
    transform = rasters.PLACES["north_up"][1]
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=400_000, width=400_000, dtype="float32", tiled=True,
        blockxsize=4096, blockysize=4096, sparse_ok=True, bigtiff="yes", compress="deflate",
        crs=rasters.UTM, transform=transform,
    ) as dataset:  # fmt: skip
        patch = rasters.sea(256, 256, SHIPS).astype(np.float32)
        dataset.write(patch, 1, window=rasterio.windows.Window(200_000, 200_000, 256, 256))
    error = refused(path, tmp_path, r"400000 x 400000 pixels, more than 1e\+10")
    assert "EXTENT or AOI" in error.hint
    x, y = transform * (200_000, 200_000)
    extent = [x, y - 2560, x + 2560, y]
    outcome, found = run(path, tmp_path, extent=extent, crs_wkt="EPSG:32633", tile=512, overlap=64)
    assert len(found["id"]) == len(SHIPS)
    assert outcome.figures["tiles_run"] <= 4


@pytest.mark.parametrize("band", [2, 0])
def test_fault_10_band_that_is_not_there(tmp_path, band):
    path = rasters.write(tmp_path / "a.tif", IMAGE)
    with pytest.raises(EngineError, match=f"a.tif has 1 band, so there is no band {band}"):
        open_scene(str(path), band)


def test_fault_10_second_band_is_used_when_asked_for(tmp_path):
    path = rasters.write(tmp_path / "a.tif", np.stack([np.full_like(IMAGE, 9), IMAGE]))
    _, found = run(path, tmp_path, bands=(2,))
    assert len(found["id"]) == len(SHIPS)
    refused(path, tmp_path, "have the value 9", bands=(1,))
    refused(path, tmp_path, "One band is needed, not 2", bands=(1, 2))


def test_fault_10_colour_picture_warns(tmp_path):
    path = rasters.write(tmp_path / "a.tif", np.stack([IMAGE] * 3), photometric="RGB")
    outcome, _ = run(path, tmp_path)
    assert any("not confirmed as SAR" in text for text in outcome.warnings)


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_fault_11_complex_is_refused(tmp_path, dtype):
    path = rasters.write(tmp_path / "a.tif", IMAGE.astype("complex64"), dtype=dtype)
    error = refused(path, tmp_path, "^Complex SAR data: convert to amplitude or intensity first.$")
    assert "a.tif" in error.hint


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_fault_11_other_types_find_the_same_ships(tmp_path, dtype):
    image = IMAGE.astype(np.int64) // 2 if dtype == "int8" else IMAGE.astype(np.int64) * 4
    image = image.astype(dtype)
    outcome, found = run(rasters.write(tmp_path / "a.tif", image), tmp_path)
    assert sorted(zip(found["x_px"], found["y_px"], strict=True)) == [(20, 13), (130, 115)]
    assert outcome.figures["scaling"]["mode"] == "percentile"


def test_fault_11_ten_bits_one_bit_and_palette(tmp_path):
    path = rasters.write(tmp_path / "ten.tif", IMAGE.astype(np.uint16) * 4, nbits=10)
    assert len(run(path, tmp_path)[1]["id"]) == len(SHIPS)
    path = rasters.write(tmp_path / "one.tif", (IMAGE > 100).astype(np.uint8), nbits=1)
    assert len(run(path, tmp_path, scale_mode="percentile")[1]["id"]) == len(SHIPS)
    path = rasters.write(tmp_path / "palette.tif", IMAGE)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (i, 0, 0, 255) for i in range(256)})
    outcome, found = run(path, tmp_path)
    assert len(found["id"]) == len(SHIPS)
    assert any("colour table" in text for text in outcome.warnings)


@pytest.mark.parametrize("change", ["grows", "touched", "removed"])
def test_fault_24_input_modified_during_the_run(tmp_path, change):
    path = rasters.write(tmp_path / "a.tif", IMAGE)

    def answer(image):
        if change == "grows":
            with path.open("ab") as stream:
                stream.write(b"more")
        elif change == "touched":
            os.utime(path, ns=(1, 1))
        else:
            path.unlink(missing_ok=True)
        return toys.bright_boxes(image)

    refused(
        path,
        tmp_path,
        r"a\.tif was changed while it was being read",
        builder=lambda *_: toys.toy_task(answer),
    )


def test_fault_24_two_runs_in_two_threads_do_not_meet(tmp_path):
    path = rasters.write(tmp_path / "a.tif", IMAGE)
    results = {}

    def work(name):
        (tmp_path / name).mkdir()
        done = run_job(job(path, tmp_path / name), Recorder(), builder=toys.build)
        results[name] = done.figures["count"]

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {"a": len(SHIPS), "b": len(SHIPS)}
