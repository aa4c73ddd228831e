"""Which bands are red, green and blue: every kind of evidence, its order, and what is no colour."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from kestrel.engine.band_names import by_numbers, by_wavelength, by_words
from kestrel.engine.bands import bands_for, check_typed, choose_rgb, refuse_sar
from kestrel.engine.errors import EngineError
from kestrel.engine.events import Track
from kestrel.engine.scene import open_scene
from kestrel.engine.statistics import Statistics, band_statistics
from kestrel.models.task import Input
from kestrel.tests.support import rasters
from kestrel.tests.support.jobs import Recorder
from kestrel.tests.support.toys import toy_task
from rasterio.enums import ColorInterp

DATA = Path(os.environ.get("KESTREL_DATA") or Path(__file__).parents[3] / "shared" / "data")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no development data at {DATA}; set KESTREL_DATA")

NAMES = ["Coastal", "Blue", "Green", "Yellow", "Red", "Red Edge", "NIR1", "NIR2"]


def make(path, names=None, count=None, meanings=None, tags=(), dtype="uint16", **file_tags):
    """Write a 4 x 4 raster whose bands are called ``names`` and have band ``tags``."""
    count = count or len(names or tags)
    image = np.arange(count * 16).reshape(count, 4, 4).astype(dtype)
    rasters.write(path, image, photometric="MINISBLACK")
    with rasterio.open(path, "r+") as dataset:
        for band, name in enumerate(names or [], 1):
            if name:
                dataset.set_band_description(band, name)
        for band, values in enumerate(tags, 1):
            dataset.update_tags(band, **values)
        if meanings:
            dataset.colorinterp = meanings
        dataset.update_tags(**file_tags)
    return path


def choose(path):
    with rasterio.open(path) as dataset:
        return choose_rgb(dataset)


def words(*names):
    found = by_words(dict(enumerate(names, 1)))
    return found and found.bands


def numbers(*names, marks=""):
    found = by_numbers({band: name for band, name in enumerate(names, 1) if name}, marks)
    return found and found.bands


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (NAMES, (5, 3, 2)),
        (["red (665 nm)", "green (560 nm)", "blue (490 nm)"], (1, 2, 3)),
        (["B2 - Blue", "B3 - Green", "B4 - Red", "B5 - RedEdge"], (3, 2, 1)),
        (["coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"], (6, 4, 2)),
        (["B", "G", "R"], (3, 2, 1)),
        (["Red_edge", "Near Infra Red", "infrared", "blue", "green"], None),
        (["red/green ratio", "green", "blue", "ndvi red"], None),
        (["red", "green", "NIR"], None),
        (["b", "g", "nir"], None),
    ],
)
def test_feature_words(names, expected):
    assert words(*names) == expected


def test_feature_a_colour_named_twice_is_said():
    found = by_words(dict(enumerate(["red", "red", "green", "blue"], 1)))
    assert (found.bands, found.warning) == (
        (1, 3, 4), "More than one band is called red; the first of each is used.",
    )  # fmt: skip


S2 = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12"]
SR = "SR_B{}".format


@pytest.mark.parametrize(
    ("names", "marks", "expected"),
    [
        (S2, "", (4, 3, 2)),
        (["B02", "B03", "B04", "B08"], "", (3, 2, 1)),
        (["B8", "B4", "B3", "B2"], "", (2, 3, 4)),
        (["B4, central wavelength 665 nm", "B3, central wavelength 560 nm", "B2, ..."], "", (1, 2, 3)),
        (["T32TQM_20200101T101031_B04_10m", "x_B03_10m", "x_B02_10m"], "", (1, 2, 3)),
        (["band 8", "band 4", "Band 3", "band_2"], "", (2, 3, 4)),
        ([SR(i) for i in (1, 2, 3, 4, 5, 6, 7)], "", (4, 3, 2)),  # Landsat 8/9: has SR_B6
        ([SR(i) for i in (1, 2, 3, 4, 5, 7)], "", (3, 2, 1)),  # Landsat 5/7: SR_B7 but no SR_B6
        ([SR(i) for i in (4, 3, 2)], "", (1, 2, 3)),
        ([SR(i) for i in (1, 2, 3)], "", (3, 2, 1)),
        ([SR(i) for i in (1, 2, 3, 4)], "LE07_L2SP_193027_20010101.tif", (3, 2, 1)),
        ([SR(i) for i in (1, 2, 3, 4)], "a.tif LANDSAT_8", (4, 3, 2)),
        ([f"LT05_L1TP_193027_B{i}" for i in (1, 2, 3, 4, 5, 7)], "", (3, 2, 1)),
        (["B1", "B2", "B3", "B4", "B5", "B6", "B7"], "LANDSAT_5", (3, 2, 1)),
        (["sur_refl_b01", "sur_refl_b02", "sur_refl_b03", "sur_refl_b04"], "", (1, 4, 3)),
        (["Band 1", "Band 2", "Band 3", "Band 4"], "", None),  # ENVI's headers count like that
        (["Band 1", "Band 2", "Band 3", "Band 4"], "Sentinel-2A", None),
        (["B8A", "B9", "B11"], "", None),
        (["b14", "b13", "b12"], "", None),
    ],
)
def test_feature_numbers(names, marks, expected):
    assert numbers(*names, marks=marks) == expected


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["B1", "B2", "B3", "B4"], "choose BANDS if they only count"),
        ([SR(i) for i in (1, 2, 3, 4)], "taken for those of Landsat 8/9"),
        (["B2", "B3", "B4", "B2", "B3", "B4"], "More than one band is called band 4 and band 3 and band 2"),
    ],
)
def test_feature_doubtful_numbers_warn(names, words):
    assert words in by_numbers(dict(enumerate(names, 1)), "").warning


@pytest.mark.parametrize("family", [S2, ["B02", "B03", "B04"], [SR(i) for i in range(1, 8)]])
def test_feature_clear_numbers_do_not_warn(family):
    assert by_numbers(dict(enumerate(family, 1)), "").warning is None


@given(st.permutations(NAMES), st.lists(st.booleans(), min_size=8, max_size=8))
def test_property_words_are_found_wherever_they_stand_and_however_written(order, upper):
    written = [n.upper() if up else n.lower() for n, up in zip(order, upper, strict=True)]
    assert words(*written) == tuple(order.index(colour) + 1 for colour in ("Red", "Green", "Blue"))


@given(st.permutations(S2), st.booleans())
def test_property_numbers_are_found_wherever_they_stand(order, upper):
    assert numbers(*(n if upper else n.lower() for n in order)) == tuple(
        order.index(name) + 1 for name in ("B4", "B3", "B2")
    )


@given(st.permutations([443, 490, 560, 665, 705, 740, 783, 842]))
def test_property_wavelengths_are_found_wherever_they_stand(order):
    found = by_wavelength({band: float(nm) for band, nm in enumerate(order, 1)})
    assert found.bands == tuple(order.index(nm) + 1 for nm in (665, 560, 490))


@given(st.lists(st.floats(400, 2500), min_size=3, max_size=200))
def test_property_wavelengths_lie_in_their_ranges_and_none_is_nearer(values):
    found = by_wavelength(dict(enumerate(values, 1)))
    ranges = ((620, 690), (520, 600), (450, 520))
    if found is None:
        assert any(not any(low <= nm <= high for nm in values) or high == 520 for low, high in ranges)
        return
    assert len(set(found.bands)) == 3
    for band, (low, high) in zip(found.bands, ranges, strict=True):
        assert low <= values[band - 1] <= high
        assert abs(values[band - 1] - (low + high) / 2) <= min(abs(nm - (low + high) / 2) for nm in values)


WAVELENGTHS = [
    [{"wavelength": v, "wavelength_units": "Micrometers"} for v in ("0.842", "0.665", "0.560", "0.485")],
    [{"wavelength": v, "wavelength_units": "nm"} for v in ("842", "665", "560", "485")],
    [{"CENTER_WAVELENGTH": v} for v in ("0.842", "0.665", "0.560", "0.485")],
    [{"central_wavelength_nm": v} for v in ("842.0", "665.0", "560.0", "485.0")],
    [{"wavelength": v} for v in ("842 nm", "665 nm", "560 nm", "485 nm")],
    [{"ns": "IMAGERY", "CENTRAL_WAVELENGTH_UM": v} for v in ("0.842", "0.665", "0.560", "0.485")],
]


@pytest.mark.parametrize("tags", WAVELENGTHS)
def test_feature_wavelengths_in_band_tags(tmp_path, tags):
    choice = choose(make(tmp_path / "a.tif", tags=tags))
    assert choice.bands == (2, 3, 4)
    assert choice.how == "by wavelength"


@pytest.mark.parametrize(("units", "values"), [("Nanometers", "842, 665, 560, 485"),
                                           ("Micrometers", "0.842, 0.665, 0.56, 0.485")])  # fmt: skip
def test_feature_wavelengths_of_an_envi_header(tmp_path, units, values):
    with rasterio.open(
        tmp_path / "a.img", "w", driver="ENVI", count=4, height=2, width=2, dtype="uint16",
        transform=rasters.PLACES["north_up"][1],
    ) as dataset:  # fmt: skip
        dataset.write(np.ones((4, 2, 2), np.uint16))
    header = tmp_path / "a.hdr"
    header.write_text(
        header.read_text()
        + f"band names = {{Band 1, Band 2, Band 3, Band 4}}\nwavelength units = {units}\n"
        + f"wavelength = {{{values}}}\n"
    )
    assert choose(tmp_path / "a.img").bands == (2, 3, 4)


def test_feature_wavelengths_as_a_list_in_the_envi_domain(tmp_path):
    path = make(tmp_path / "a.tif", count=4)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="ENVI", wavelength="{485, 560, 655, 840}", wavelength_units="Nanometers")
    assert choose(path).bands == (3, 2, 1)


def test_feature_the_nearest_of_many_wavelengths(tmp_path):
    tags = [{"wavelength": str(nm), "wavelength_units": "nm"} for nm in range(400, 1000, 10)]
    # 650 and 660 are both 5 nm from the middle of red, 480 and 490 of blue: the first of the file
    assert choose(make(tmp_path / "a.tif", tags=tags)).bands == (26, 17, 9)


def test_feature_colour_interpretation_comes_first(tmp_path):
    meanings = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
    choice = choose(make(tmp_path / "a.tif", count=4, meanings=meanings))
    assert (choice.bands, choice.how, choice.warning) == ((3, 2, 1), "by colour interpretation", None)


def test_feature_names_against_colour_interpretation_are_said(tmp_path):
    meanings = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined]
    choice = choose(make(tmp_path / "a.tif", ["B02", "B03", "B04", "B08"], meanings=meanings))
    assert choice.bands == (1, 2, 3)
    assert "set BANDS to 3,2,1 if the names are right" in choice.warning


@pytest.mark.parametrize(("count", "warns"), [(3, False), (4, False), (5, True)])
def test_feature_else_the_first_three(tmp_path, count, warns):
    choice = choose(make(tmp_path / "a.tif", count=count))
    assert choice.bands == (1, 2, 3)
    assert choice.warning == (
        "a.tif has 5 bands and nothing says which are red, green and blue; bands 1, 2, 3 are used: "
        "choose BANDS if others are meant." if warns else None
    )  # fmt: skip


def test_feature_infrared_among_the_first_three_is_said(tmp_path):
    choice = choose(make(tmp_path / "a.tif", ["NIR", "Red", "Green"]))
    assert choice.bands == (1, 2, 3)
    assert "Band 1 of a.tif is not visible light (NIR)" in choice.warning


def test_feature_alpha_is_never_a_colour(tmp_path):
    path = make(tmp_path / "a.tif", count=4, meanings=[ColorInterp.alpha, *[ColorInterp.undefined] * 3])
    assert choose(path).bands == (2, 3, 4)
    with (
        rasterio.open(path) as dataset,
        pytest.raises(EngineError, match=r"Band 1 of a.tif is its alpha band"),
    ):
        check_typed([1, 2, 3], dataset)


@pytest.mark.parametrize(("count", "words"), [(1, "a.tif has 1 band; dehazing needs three visible bands"),
                                          (2, "a.tif has 2 bands; dehazing")])  # fmt: skip
def test_exception_too_few_bands(tmp_path, count, words):
    path = make(tmp_path / "a.tif", count=count)
    with pytest.raises(EngineError, match=words) as error:
        choose(path)
    assert error.value.code == "input"
    with rasterio.open(path) as dataset, pytest.raises(EngineError, match=words):
        check_typed([1, 2, 3], dataset)


def test_exception_two_bands_and_alpha(tmp_path):
    meanings = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha]
    with pytest.raises(EngineError, match=r"a.tif has 2 bands besides alpha; dehazing needs three"):
        choose(make(tmp_path / "a.tif", count=3, meanings=meanings))


def test_exception_colour_table(tmp_path):
    path = make(tmp_path / "a.tif", count=1, dtype="uint8")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {0: (255, 0, 0, 255), 1: (0, 0, 255, 255)})
    with pytest.raises(EngineError, match=r"Band 1 of a.tif has a colour table: its index values are not"):
        choose(path)


@pytest.mark.parametrize(
    ("bands", "words"),
    [
        ([1, 2], r"BANDS holds 2 numbers \(1, 2\) for a.tif, it must hold three"),
        ([1, 2, 3, 4], "BANDS holds 4 numbers"),
        ([1, 2, 9], "a.tif has 5 bands, so there is no band 9"),
        ([0, 1, 2], "so there is no band 0"),
        ([1, 2, 2], "BANDS 1, 2, 2 for a.tif names a band twice"),
    ],
)
def test_exception_typed_bands(tmp_path, bands, words):
    with rasterio.open(make(tmp_path / "a.tif", count=5)) as dataset:
        assert check_typed([5, 1, 3], dataset) == (5, 1, 3)
        with pytest.raises(EngineError, match=words) as error:
            check_typed(bands, dataset)
    assert error.value.code == "parameter"


def scene_of(path, bands=(1, 2, 3)):
    return open_scene(str(path), bands)


def decibels(*means):
    rng = np.random.default_rng(0)
    return [Statistics(np.sort(rng.normal(m, 4, 5000)).astype(np.float32), "the whole raster") for m in means]


@pytest.mark.parametrize("name", ["VV", "sigma0_vh_db", "Gamma0 HH", "S1A_IW_VV_20200101", "backscatter"])
def test_exception_bands_named_as_radar(tmp_path, name):
    path = make(tmp_path / "a.tif", [name, "x", "y", "B2", "B3", "B4"])
    with pytest.raises(EngineError, match=r"Band 1 of a.tif is SAR by its name") as error:
        refuse_sar(scene_of(path))
    assert name in error.value.message
    refuse_sar(scene_of(path, (6, 5, 4)))  # the optical part of a mixed stack


def test_exception_polarisation_in_tags(tmp_path):
    path = make(tmp_path / "a.tif", tags=[{}, {"POLARISATION": "VH"}, {}])
    with pytest.raises(EngineError, match=r"Band 2 of a.tif is SAR by its tag POLARISATION \(VH\)"):
        refuse_sar(scene_of(path))
    path = make(tmp_path / "b.tif", count=3, polarizations="VV VH")
    with pytest.raises(EngineError, match=r"Band 1 of b.tif is SAR by its tag polarizations"):
        refuse_sar(scene_of(path))


def test_exception_decibels(tmp_path):
    scene = scene_of(make(tmp_path / "a.tif", count=3, dtype="float32"))
    with pytest.raises(EngineError, match=r"look like SAR in decibels.*quartiles from -60 to 0"):
        refuse_sar(scene, decibels(-12, -15, -20))


def test_feature_what_is_not_decibels_passes(tmp_path):
    scene = scene_of(make(tmp_path / "a.tif", count=3, dtype="float32"))
    refuse_sar(scene, decibels(-12, -15, 0))  # one band is not
    refuse_sar(scene, decibels(0, 0, 0))  # standardised values
    refuse_sar(scene, decibels(-9999, -9999, -9999))  # a nodata value that nobody declared
    refuse_sar(scene, (None, None, None))


@needs_data
@pytest.mark.parametrize(
    ("name", "bands"),
    [
        ("RGB.byte.tif", (1, 2, 3)),
        ("Spain_7370579_S2Hand.tif", (4, 3, 2)),
        ("terratorch_reflectance_10band.tif", (1, 2, 3)),
        ("iamap_s2_11band.tif", (1, 2, 3)),
    ],
)
def test_feature_real_optical_rasters_pass(name, bands):
    scene = bands_of(DATA / "demo_rasters" / name)
    assert scene.bands == bands
    refuse_sar(scene, band_statistics(scene, None, Track(Recorder())))


@needs_data
def test_feature_real_sar_is_refused():
    scene = bands_of(DATA / "demo_rasters" / "solaris_sar_masked_4band_nan.tif")
    with pytest.raises(EngineError, match="look like SAR in decibels"):
        refuse_sar(scene, band_statistics(scene, None, Track(Recorder())))


def bands_of(path, typed=(), wanted=3, events=None):
    task = toy_task(inputs=(Input("image", bands=wanted),), change=True)
    return bands_for(task, open_scene(str(path), 1), list(typed), Track(events or Recorder()))


def test_feature_a_scene_gets_the_bands_its_task_wants(tmp_path):
    path = make(tmp_path / "a.tif", ["B02", "B03", "B04", "B08", "B11"])
    events = Recorder()
    assert bands_of(path, events=events).bands == (3, 2, 1)
    assert bands_of(path, typed=[4, 3, 2]).bands == (4, 3, 2)
    assert bands_of(path, wanted=1).bands == (1,)
    assert bands_of(path, wanted=2).bands == (1, 2)
    assert ("info", "Red, green, blue are bands 3, 2, 1 of a.tif (by the bands' names).") in events.lines
    with pytest.raises(EngineError, match="One band is needed, not 2"):
        bands_of(path, typed=[1, 2], wanted=1)
    with pytest.raises(EngineError, match=r"a.tif has 5 bands, so there is no band 6"):
        bands_of(path, wanted=6)


def test_exception_complex_bands(tmp_path):
    with pytest.raises(EngineError, match="Complex SAR data"):
        bands_of(make(tmp_path / "a.tif", count=3, dtype="complex64"))
