"""Faults 6-9 and 11-14 of ENGINE.md, section 7, as they concern rasters: the right pixels come out.

Expected values follow from the rule y = x + (f(u) - u)(max - min) with f(u) = 0.9 u, or from the
identity; the dark channel is held to what its kind promises (place, dtype, marks).
"""

import numpy as np
import pytest
import rasterio
from kestrel.engine.errors import EngineError
from kestrel.tests.support import raster_faults, rasters
from kestrel.tests.support import raster_toys as toys
from kestrel.tests.support.jobs import Recorder
from kestrel.tests.support.raster_faults import darker, hazy

#: Such that no result lies halfway between two integers.
STRETCH = {"stretch_min": [20.3], "stretch_max": [240.3]}
DARKER = toys.builder(toys.darkened)


def darkened(path, tmp_path, **fields):
    """Run the toy with a given stretch of 20.3..240.3; return the outcome and the pixels."""
    return toys.run(path, tmp_path / "out.tif", DARKER, **{**STRETCH, **fields})


def expected(image):
    """Return what the toy makes of valid pixels, in the image's dtype."""
    result = darker(image, 20.3, 240.3)
    return np.rint(result).astype(image.dtype) if image.dtype.kind in "iu" else result.astype(image.dtype)


def same(out, wanted):
    """Integers are equal, floats are to 1e-5 of the stretch."""
    if out.dtype.kind in "iu":
        assert np.array_equal(out, wanted)
    else:
        np.testing.assert_allclose(out, wanted, rtol=0, atol=220e-5)


def profile(path):
    with rasterio.open(path) as dataset:
        return {
            "dtypes": dataset.dtypes, "crs": dataset.crs, "transform": dataset.transform,
            "shape": dataset.shape, "count": dataset.count, "nodata": tuple(map(repr, dataset.nodatavals)),
            "colorinterp": dataset.colorinterp, "descriptions": dataset.descriptions,
            "scales": dataset.scales, "offsets": dataset.offsets, "units": dataset.units,
        }  # fmt: skip


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 90), (90, 1), (7, 5), (61, 67), (64, 64), (65, 65), (129, 64), (2, 300)]
)
def test_fault_06_any_size_with_the_real_model(tmp_path, size):
    path = rasters.write(tmp_path / "a.tif", hazy(*size))
    outcome = raster_faults.restore(path, {"raster": tmp_path / "out.tif", "haze": tmp_path / "haze.tif"})
    assert profile(tmp_path / "out.tif") == profile(path)
    with rasterio.open(tmp_path / "haze.tif") as dataset:
        assert dataset.shape == size
        assert np.isfinite(dataset.read()).all()
    assert outcome.figures["valid_pixels"] == size[0] * size[1]


@pytest.mark.parametrize("nodata", [0, 255, -9999, float("nan")])
@pytest.mark.filterwarnings("error")
def test_fault_07_fully_nodata_proceeds(tmp_path, nodata):
    dtype = "uint8" if nodata in (0, 255) else "float32"
    image = np.full((3, 300, 200), nodata, dtype)
    path = rasters.write(tmp_path / "a.tif", image, nodata=nodata)
    outputs = {name: tmp_path / f"{name}.{end}" for name, end in
               [("raster", "tif"), ("haze", "tif"), ("report", "html")]}  # fmt: skip
    outcome = raster_faults.restore(path, outputs)
    assert profile(outputs["raster"]) == profile(path)
    with rasterio.open(outputs["raster"]) as out, rasterio.open(outputs["haze"]) as haze:
        assert out.read().tobytes() == image.tobytes()
        assert not haze.dataset_mask().any()
    assert outcome.figures["tiles_run"] == 0
    assert outcome.figures["tiles_nodata"] == outcome.figures["tiles_total"] > 0
    assert any("no valid pixel" in text for text in outcome.warnings)
    assert outputs["report"].stat().st_size > 1000


def test_fault_07_nearly_all_nodata_runs_only_the_rest(tmp_path):
    image = np.zeros((3, 2048, 2048), np.uint8)
    image[:, 1000:1040, 700:760] = hazy(40, 60)
    path = rasters.write(tmp_path / "a.tif", image, nodata=0, tiled=True, compress="deflate")
    calls = []

    def answer(tile):
        calls.append(1)
        return toys.darkened(tile)

    events = Recorder()
    outcome, out = toys.run(path, tmp_path / "out.tif", toys.builder(answer), events, **STRETCH)
    figures = outcome.figures
    # 40 x 60 pixels touch at most 2 x 3 tiles of 64 with 48 between two
    assert len(calls) == figures["tiles_run"] <= 3 * 3
    assert figures["tiles_run"] + figures["tiles_nodata"] == figures["tiles_total"] == 43 * 43
    assert figures["valid_pixels"] == 40 * 60
    same(out[:, 1000:1040, 700:760], expected(hazy(40, 60)))
    out[:, 1000:1040, 700:760] = 0
    assert not out.any()
    steps = [step[0] for step in events.steps if step[3] == "tiles"]
    assert len(set(steps)) >= 3  # progress moves over nodata too (it is told a few times a second)
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("int16", -9999), ("int16", -32768), ("uint16", 0), ("uint16", 65535), ("uint8", 0), ("uint8", 255),
     ("float32", -9999), ("float32", float("nan")), ("float32", -3.4028234663852886e38), ("float64", -9999.0),
     ("float32", 0), ("int32", -2147483648)],
)  # fmt: skip
def test_fault_08_nodata_stays_and_valid_pixels_are_right(tmp_path, dtype, nodata):
    image = hazy(150, 130, dtype)
    image[:, 40:60, 30:80] = nodata
    image[:, :, 0] = nodata
    wanted = expected(image)
    there = image[0] != nodata if nodata == nodata else ~np.isnan(image[0])
    path = rasters.write(tmp_path / "a.tif", image, nodata=nodata)
    outcome, out = darkened(path, tmp_path)
    assert profile(tmp_path / "out.tif") == profile(path)
    assert out[:, ~there].tobytes() == image[:, ~there].tobytes()
    same(out[:, there], wanted[:, there])
    assert outcome.figures["invalid_pixels"] == np.count_nonzero(~there)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert np.array_equal(dataset.read_masks(1) != 0, there)
    raster_faults.restore(path, {"raster": tmp_path / "dark.tif"})
    with rasterio.open(tmp_path / "dark.tif") as dataset:
        assert dataset.read()[:, ~there].tobytes() == image[:, ~there].tobytes()
        assert np.array_equal(dataset.read_masks(1) != 0, there)


def test_fault_08_a_dark_valid_result_does_not_become_nodata_0(tmp_path):
    image = hazy(80, 90)
    image[:, 10:20] = 0  # no data
    image[:, 30:40] = 1
    path = rasters.write(tmp_path / "a.tif", image, nodata=0)
    make = toys.builder(np.zeros_like)  # the model answers black everywhere
    _, out = toys.run(path, tmp_path / "out.tif", make, stretch_min=[0], stretch_max=[255])
    assert (out[:, 10:20] == 0).all()
    assert (np.delete(out, np.s_[10:20], axis=1) == 1).all()
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.nodata == 0


def test_fault_08_a_bright_valid_result_does_not_become_nodata_255(tmp_path):
    image = hazy(80, 90)
    image[:, 10:20] = 255
    path = rasters.write(tmp_path / "a.tif", image, nodata=255)
    make = toys.builder(np.ones_like)
    _, out = toys.run(path, tmp_path / "out.tif", make, stretch_min=[0], stretch_max=[255])
    assert (out[:, 10:20] == 255).all()
    assert (np.delete(out, np.s_[10:20], axis=1) == 254).all()


def test_fault_08_minus_9999_on_uint8_marks_nothing(tmp_path):
    path = tmp_path / "a.tif"
    rasters.write(path, hazy(70, 80))
    vrt = tmp_path / "a.vrt"
    vrt.write_text(_vrt(["a.tif"] * 3, [-9999] * 3, 70, 80))
    outcome, out = darkened(vrt, tmp_path)
    same(out, expected(hazy(70, 80)))
    assert outcome.figures["invalid_pixels"] == 0


def _vrt(sources, nodata, height, width, dtype="Byte"):
    crs, transform = rasters.PLACES["north_up"]
    place = ", ".join(map(str, transform.to_gdal()))
    bands = "".join(
        f'<VRTRasterBand dataType="{dtype}" band="{i}">'
        + (f"<NoDataValue>{value}</NoDataValue>" if value is not None else "")
        + f'<SimpleSource><SourceFilename relativeToVRT="1">{source}</SourceFilename>'
        f"<SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
        for i, (source, value) in enumerate(zip(sources, nodata, strict=True), 1)
    )
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>{crs.to_wkt()}</SRS>'
        f"<GeoTransform>{place}</GeoTransform>{bands}</VRTDataset>"
    )


def test_fault_08_nodata_per_band(tmp_path):
    """Each band keeps its own validity; a pixel invalid in any chosen band stays as it is in all."""
    image = hazy(80, 90)
    holes = [(5, 15), (30, 40), (60, 70)]
    marks = [7, 9, None]
    for band, ((top, bottom), mark) in enumerate(zip(holes, marks, strict=True)):
        if mark is not None:
            image[band, top:bottom] = mark
    image[2, 70, 0] = 7  # valid: the third band has no mark
    rasters.write(tmp_path / "a.tif", image)
    vrt = tmp_path / "a.vrt"
    vrt.write_text(_vrt(["a.tif"] * 3, marks, 80, 90))
    outcome, out = darkened(vrt, tmp_path)
    assert out[2, 70, 0] == 8  # it has stepped aside of the output's mark
    out[2, 70, 0] = 7
    everywhere = np.ones(80, bool)
    everywhere[5:15] = everywhere[30:40] = False
    same(out[:, everywhere], expected(image)[:, everywhere])
    assert outcome.figures["invalid_pixels"] == 20 * 90
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.nodata == 7
        masks = dataset.read_masks() != 0
    # the first band's mark is the output's; the second band's pixels are marked by it too
    assert (out[0, 5:15] == 7).all()
    assert (out[1, 30:40] == 7).all()
    # the other bands are there, unchanged
    for band, (top, bottom) in ((1, holes[0]), (2, holes[0]), (0, holes[1]), (2, holes[1])):
        assert np.array_equal(out[band, top:bottom], image[band, top:bottom])
        assert masks[band, top:bottom].all()
    assert not masks[0, 5:15].any()
    assert not masks[1, 30:40].any()


def test_fault_08_a_pixel_invalid_in_one_band_is_unchanged_in_all(tmp_path):
    image = hazy(80, 90, "float32")
    image[1, 20:30, 20:30] = np.nan
    image[2, 50, 60] = -9999
    path = rasters.write(tmp_path / "a.tif", image, nodata=-9999)
    _, out = darkened(path, tmp_path)
    lost = np.zeros((80, 90), bool)
    lost[20:30, 20:30] = True
    lost[50, 60] = True
    same(out[:, ~lost], expected(image)[:, ~lost])
    assert np.array_equal(out[0, lost], image[0, lost])
    assert (out[1, 20:30, 20:30] == -9999).all()  # NaN becomes the band's nodata
    assert np.array_equal(out[2, 20:30, 20:30], image[2, 20:30, 20:30])
    assert np.array_equal(out[:, 50, 60], image[:, 50, 60])


@pytest.mark.parametrize("internal", [False, True])
def test_fault_08_masks_go_along(tmp_path, internal):
    image = hazy(90, 100)
    path = rasters.write(tmp_path / "a.tif", image)
    shown = np.full((90, 100), 255, np.uint8)
    shown[30:50, 20:70] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(shown)
    assert (tmp_path / "a.tif.msk").exists() is not internal
    outcome, out = darkened(path, tmp_path)
    there = shown != 0
    same(out[:, there], expected(image)[:, there])
    assert np.array_equal(out[:, ~there], image[:, ~there])
    assert outcome.figures["invalid_pixels"] == 20 * 50
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.nodata is None
        for band in (1, 2, 3):
            assert np.array_equal(dataset.read_masks(band), shown)
    assert not (tmp_path / "out.tif.msk").exists()


@pytest.mark.parametrize("copy", ["copy", "drop"])
def test_fault_08_alpha_passes_through_bit_for_bit(tmp_path, copy):
    image = hazy(90, 100, bands=4)
    image[3] = np.random.default_rng(1).integers(0, 256, (90, 100))
    image[3, 40:60] = 0
    path = rasters.write(tmp_path / "a.tif", image, photometric="RGB", alpha="YES")
    outcome, out = darkened(path, tmp_path, other_bands=copy)
    there = image[3] != 0
    assert np.array_equal(out[3], image[3])
    same(out[:3, there], expected(image[:3])[:, there])
    assert np.array_equal(out[:3, ~there], image[:3, ~there])
    assert profile(tmp_path / "out.tif") == profile(path)
    assert outcome.figures["invalid_pixels"] == np.count_nonzero(~there)


@pytest.mark.parametrize("nodata", [None, -9999])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, -3e38])
def test_fault_09_no_numbers(tmp_path, nodata, value):
    image = hazy(90, 100, "float32")
    image[:, 20:30, 20:30] = value
    image[0, 50, 50] = value
    path = rasters.write(tmp_path / "a.tif", image, nodata=nodata)
    outcome, out = darkened(path, tmp_path)
    lost = np.zeros((90, 100), bool)
    lost[20:30, 20:30] = True
    lost[50, 50] = True
    same(out[:, ~lost], expected(image)[:, ~lost])
    assert np.isfinite(out).all()
    with rasterio.open(tmp_path / "out.tif") as dataset:
        mark = dataset.nodata
        assert mark == (nodata or pytest.approx(-3.4028234663852886e38))
        masks = dataset.read_masks() != 0
    assert (out[:, 20:30, 20:30] == np.float32(mark)).all()
    assert not masks[:, 20:30, 20:30].any()
    assert not masks[0, 50, 50]
    assert masks[1:, 50, 50].all()
    assert np.array_equal(out[1:, 50, 50], image[1:, 50, 50])
    assert outcome.figures["invalid_pixels"] == 101


def test_fault_09_without_any_no_nodata_is_declared(tmp_path):
    path = rasters.write(tmp_path / "a.tif", hazy(70, 80, "float32"))
    darkened(path, tmp_path)
    assert profile(tmp_path / "out.tif") == profile(path)


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64", "int64", "uint64"]
)
def test_fault_11_types(tmp_path, dtype):
    image = hazy(150, 140, "int64")
    stretch = STRETCH
    if dtype == "int8":
        image -= 130
        stretch = {"stretch_min": [-100], "stretch_max": [100]}
    elif dtype not in ("uint8",):
        image, stretch = image * 100, {"stretch_min": [2000], "stretch_max": [24000]}
    image = image.astype(dtype)
    path = rasters.write(tmp_path / "a.tif", image)
    _, out = darkened(path, tmp_path, **stretch)
    wanted = darker(image, stretch["stretch_min"][0], stretch["stretch_max"][0])
    atol = (stretch["stretch_max"][0] - stretch["stretch_min"][0]) * 1e-6
    whole = np.dtype(dtype).kind in "iu"
    np.testing.assert_allclose(out.astype(float), wanted, rtol=0, atol=0.5 + atol if whole else 2 * atol)
    assert profile(tmp_path / "out.tif") == profile(path)
    raster_faults.restore(path, {"raster": tmp_path / "dark.tif"})  # automatic stretch
    assert profile(tmp_path / "dark.tif") == profile(path)


def test_fault_11_ten_bits_in_uint16(tmp_path):
    image = hazy(80, 90, "uint16") * 4
    path = rasters.write(tmp_path / "a.tif", image, nbits=10)
    _, out = toys.run(path, tmp_path / "out.tif", DARKER, stretch_min=[0], stretch_max=[1023])
    np.testing.assert_allclose(out.astype(float), darker(image, 0, 1023), rtol=0, atol=0.501)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.dtypes == ("uint16",) * 3


def test_fault_11_results_beyond_10_bits_and_beyond_the_dtype_are_kept_or_clamped(tmp_path):
    image = hazy(80, 90, "uint16") * 4
    path = rasters.write(tmp_path / "a.tif", image, nbits=10)
    make = toys.builder(lambda tile: 20 * tile)
    _, out = toys.run(path, tmp_path / "out.tif", make, stretch_min=[0], stretch_max=[1000])
    np.testing.assert_allclose(out.astype(float), 20.0 * np.minimum(image, 1000), rtol=0, atol=1)
    path = rasters.write(tmp_path / "b.tif", hazy(80, 90))
    _, out = toys.run(path, tmp_path / "out.tif", make, stretch_min=[0], stretch_max=[255])
    assert np.array_equal(out, np.full_like(out, 255))


def test_fault_11_one_bit(tmp_path):
    image = np.random.default_rng(0).integers(0, 2, (3, 80, 90), dtype=np.uint8)
    path = rasters.write(tmp_path / "a.tif", image, nbits=1)
    _, out = toys.run(path, tmp_path / "out.tif")
    assert np.array_equal(out, image)
    raster_faults.restore(path, {"raster": tmp_path / "dark.tif"})
    assert profile(tmp_path / "dark.tif")["dtypes"] == ("uint8",) * 3


def mixed(tmp_path):
    """A VRT of 3 bands of uint8 and one of float32, as no GeoTIFF can be."""
    rasters.write(tmp_path / "a.tif", hazy(70, 80))
    rasters.write(tmp_path / "b.tif", hazy(70, 80, "float32", bands=4))
    text = _vrt(["a.tif"] * 3 + ["b.tif"], [None] * 4, 70, 80)
    first, _, last = text.rpartition('dataType="Byte"')
    path = tmp_path / "mixed.vrt"
    path.write_text(first + 'dataType="Float32"' + last)
    return path


def test_fault_11_mixed_types_are_refused_or_dropped(tmp_path):
    path = mixed(tmp_path)
    error = raster_faults.refusal("has bands of different types", path, tmp_path, make=DARKER)
    assert "OTHER_BANDS to drop" in error.hint
    _, out = darkened(path, tmp_path, other_bands="drop")
    same(out, expected(hazy(70, 80)))


@pytest.mark.parametrize("bands", [[1, 2, 3], [5, 3, 2]])
def test_fault_10_other_bands_are_copied_bit_for_bit_in_input_order(tmp_path, bands):
    image = hazy(150, 140, "uint16", bands=6)
    image[3] = np.random.default_rng(2).integers(0, 65536, (150, 140))
    path = rasters.write(tmp_path / "a.tif", image, photometric="minisblack")
    outcome, out = darkened(path, tmp_path, bands=bands)
    chosen = [band - 1 for band in bands]
    others = [i for i in range(6) if i not in chosen]
    assert np.array_equal(out[others], image[others])
    same(out[chosen], expected(image[chosen]))
    assert profile(tmp_path / "out.tif") == profile(path)
    assert outcome.figures["output_bands"] == bands
    _, out = darkened(path, tmp_path, bands=bands, other_bands="drop")
    same(out, expected(image[chosen]))  # in the order typed: red, green, blue


@pytest.mark.parametrize("drop", [False, True])
def test_fault_10_invalid_pixels_of_other_bands_do_not_matter_to_the_chosen_ones(tmp_path, drop):
    image = hazy(90, 100, "int16", bands=5)
    image[3, 20:40] = -9999
    path = rasters.write(tmp_path / "a.tif", image, nodata=-9999, photometric="minisblack")
    _, out = darkened(path, tmp_path, other_bands="drop" if drop else "copy")
    same(out[:3], expected(image[:3]))
    if not drop:
        assert np.array_equal(out[3:], image[3:])


def test_feature_tags_are_kept(tmp_path):
    path = rasters.write(tmp_path / "a.tif", hazy(70, 80, "int16", bands=4), nodata=-1)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("Blue", "Green", "Red", "NIR ü")
        dataset.scales, dataset.offsets = (1e-4, 1e-4, 2e-4, 1e-4), (0.0, 0.0, -0.1, 0.0)
        dataset.units = ("1", "1", "reflectance", "1")
        kinds = rasterio.enums.ColorInterp
        dataset.colorinterp = (kinds.blue, kinds.green, kinds.red, kinds.undefined)
        dataset.update_tags(ACQUIRED="2024-07-01")
        dataset.update_tags(2, CENTRE="560 nm")
    wanted = profile(path)
    outcome, out = darkened(path, tmp_path)
    assert profile(tmp_path / "out.tif") == wanted
    assert outcome.figures["bands"] == [3, 2, 1]
    same(out[:3], expected(hazy(70, 80, "int16", bands=4)[:3]))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.tags()["ACQUIRED"] == "2024-07-01"
        assert dataset.tags(2)["CENTRE"] == "560 nm"


@pytest.mark.parametrize("place", list(rasters.PLACES))
@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_fault_12_14_every_place_is_kept(tmp_path, place):
    image = hazy(80, 100)
    path = rasters.write(tmp_path / "a.tif", image, place)
    outcome, out = darkened(path, tmp_path)
    same(out, expected(image))
    assert profile(tmp_path / "out.tif") == profile(path)
    outputs = {"raster": tmp_path / "dark.tif", "haze": tmp_path / "haze.tif"}
    raster_faults.restore(path, outputs)
    for output in outputs.values():
        found = profile(output)
        assert (found["crs"], found["transform"]) == (profile(path)["crs"], profile(path)["transform"])
    assert any("CRS" in text for text in outcome.warnings) is (place in ("no_crs", "bare"))


@pytest.mark.parametrize("place", ["rotated", "sheared", "south_up", "oblong", "degrees", "no_crs", "bare"])
@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_fault_14_an_area_by_any_affine_is_a_window_on_the_same_grid(tmp_path, place):
    """A polygon around pixels 30..60, 20..50, whatever its shape on the ground, gives these pixels."""
    image = hazy(80, 100)
    path = rasters.write(tmp_path / "a.tif", image, place)
    transform = rasters.PLACES[place][1]
    if place == "bare":  # laid out as QGIS shows it
        transform = rasterio.Affine(1, 0, 0, 0, -1, 0)
    ring = [transform * p for p in ((30, 20), (60, 20), (60, 50), (30, 50), (30, 20))]
    wkt = "POLYGON((" + ", ".join(f"{x!r} {y!r}" for x, y in ring) + "))"
    crs = rasters.PLACES[place][0]
    _, out = darkened(path, tmp_path, aoi_wkt=wkt, crs_wkt=crs.to_wkt() if crs else None)
    assert out.shape == (3, 30, 30)
    same(out, expected(image)[:, 20:50, 30:60])
    with rasterio.open(tmp_path / "out.tif") as dataset:
        for pixel in ((0, 0), (30, 0), (30, 30)):
            there = transform * (pixel[0] + 30, pixel[1] + 20)
            np.testing.assert_allclose(dataset.transform * pixel, there, rtol=1e-12, atol=1e-9)


def test_fault_13_nothing_is_measured_in_metres_in_degrees(tmp_path):
    """PATCH is in pixels: the same pixels in degrees and in metres give the same result."""
    image = hazy(90, 100)
    results = []
    for place in ("degrees", "north_up"):
        path = rasters.write(tmp_path / f"{place}.tif", image, place)
        raster_faults.restore(path, {"raster": tmp_path / "out.tif"})
        with rasterio.open(tmp_path / "out.tif") as dataset:
            results.append(dataset.read())
    assert np.array_equal(*results)
    assert not np.array_equal(results[0], image)


@pytest.mark.parametrize("threads", [True, False])
@pytest.mark.parametrize("memory", [0, 1])
def test_fault_08_marks_across_tiles_panels_and_threads(tmp_path, threads, memory):
    """Holes over seams of tiles and blocks: a hole's rim is right wherever it lies."""
    image = hazy(530, 610, "int16")
    rng = np.random.default_rng(3)
    for _ in range(40):
        row, col = rng.integers(0, 520), rng.integers(0, 600)
        image[:, row : row + rng.integers(1, 60), col : col + rng.integers(1, 60)] = -9999
    there = image[0] != -9999
    path = rasters.write(tmp_path / "a.tif", image, nodata=-9999)
    _, out = toys.run(
        path, tmp_path / "out.tif", DARKER, threads=threads, **STRETCH, **({"memory_mb": 1} if memory else {})
    )
    same(out[:, there], expected(image)[:, there])
    assert (out[:, ~there] == -9999).all()


def test_fault_10_a_reference_of_another_size_is_refused(tmp_path):
    path = rasters.write(tmp_path / "a.tif", hazy(90, 100))
    other = rasters.write(tmp_path / "b.tif", hazy(64, 64), "degrees")
    with pytest.raises(EngineError) as caught:
        raster_faults.restore(path, {"raster": tmp_path / "out.tif"}, reference=other)
    assert "b.tif" in caught.value.message
    assert not (tmp_path / "out.tif").exists()


def as_mask(path):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        shown = np.full(dataset.shape, 255, np.uint8)
        shown[30:50, 20:70] = 0
        dataset.write_mask(shown)


def as_tagged(path):
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (1e-4, 2e-4, 3e-4), (0.0, -0.1, 0.0)
        dataset.descriptions = ("Red ü", "Green", "Blue")
        dataset.units = ("1", "reflectance", "1")


VARIANTS = {
    "mask": ({}, as_mask),
    "alpha": ({"bands": 4, "photometric": "RGB", "alpha": "YES"}, None),
    "alpha and nodata": ({"bands": 4, "photometric": "RGB", "alpha": "YES", "nodata": 0}, None),
    "alpha first of the others": ({"bands": 5, "photometric": "RGB", "alpha": "YES"}, None),
    "uint16 alpha": ({"bands": 4, "dtype": "uint16", "photometric": "RGB", "alpha": "YES"}, None),
    "nan": ({"dtype": "float32", "nodata": float("nan")}, None),
    "int8": ({"dtype": "int8", "nodata": -128}, None),
    "float64": ({"dtype": "float64", "nodata": -9999}, None),
    "rotated": ({"place": "rotated"}, None),
    "south_up": ({"place": "south_up"}, None),
    "no_crs": ({"place": "no_crs"}, None),
    "bare": ({"place": "bare"}, None),
    "11 bands": ({"bands": 11, "dtype": "int16", "photometric": "minisblack"}, None),
    "tags": ({}, as_tagged),
    "jpeg": ({"compress": "jpeg", "photometric": "ycbcr", "tiled": True}, None),
}


@pytest.mark.parametrize("cog", [False, True])
@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.filterwarnings("ignore:Dataset has no geotransform", "ignore:The given matrix is equal")
def test_feature_every_kind_of_raster_comes_back_the_same_from_the_identity(tmp_path, variant, cog):
    fields, then = VARIANTS[variant]
    fields = dict(fields)
    bands, dtype = fields.pop("bands", 3), fields.pop("dtype", "uint8")
    image = hazy(600, 560, "int16", bands=bands)
    if dtype == "int8":
        image -= 120
    image = image.astype(dtype)
    if "nodata" in fields:
        image[:3, 100:150, 200:230] = fields["nodata"]
    if fields.get("alpha"):
        image[3] = np.random.default_rng(1).integers(0, 256, (600, 560))
    path = rasters.write(tmp_path / "a.tif", image, fields.pop("place", "north_up"), **fields)
    if then:
        then(path)
    _, out = toys.run(path, tmp_path / "out.tif", cog=cog)
    with rasterio.open(path) as source, rasterio.open(tmp_path / "out.tif") as dataset:
        assert out.tobytes() == source.read().tobytes()
        assert np.array_equal(dataset.read_masks(), source.read_masks())
        assert dataset.overviews(1)
        if cog:
            assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert profile(tmp_path / "out.tif") == profile(path)


@pytest.mark.parametrize("nodata", [None, -9999, float("nan")])
def test_fault_09_without_any_valid_pixel_it_proceeds_too(tmp_path, nodata):
    image = np.full((3, 90, 100), np.inf, "float32")
    image[0], image[1] = np.nan, 1e38
    path = rasters.write(tmp_path / "a.tif", image, nodata=nodata)
    outcome = raster_faults.restore(path, {"raster": tmp_path / "out.tif", "haze": tmp_path / "haze.tif"})
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert not dataset.read_masks().any()
    assert outcome.figures["valid_pixels"] == 0
    assert any("no valid pixel" in text for text in outcome.warnings)


def test_fault_09_one_valid_pixel(tmp_path):
    image = np.full((3, 90, 100), -9999, "float32")
    image[:, 40, 50] = 7, 8, 9
    path = rasters.write(tmp_path / "a.tif", image, nodata=-9999)
    raster_faults.restore(path, {"raster": tmp_path / "out.tif", "report": tmp_path / "r.html"})
    with rasterio.open(tmp_path / "out.tif") as dataset:
        out = dataset.read()
    assert np.isfinite(out[:, 40, 50]).all()
    out[:, 40, 50] = -9999
    assert (out == -9999).all()
