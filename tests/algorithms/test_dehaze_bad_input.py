"""Every refusal of kestrel:dehazedarkchannel before the run: one sentence, no worker, nothing written."""

import os
import re
import subprocess
from pathlib import Path

import processing
import pytest
from kestrel.tests.support.algorithm_tools import (
    ROOT,
    folder_state,
    make_polygons,
    make_raster,
    square,
)
from kestrel.tests.support.raster_tools import hazy_raster
from osgeo import gdal, ogr
from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProject,
    QgsRasterLayer,
)

DEHAZE = "kestrel:dehazedarkchannel"


def text_file(folder):
    (folder / "text.tif").write_text("not a raster, but long enough to look like a file")
    return str(folder / "text.tif")


def two_bands(folder):
    return make_raster(folder / "two.tif", bands=2)


def grey_alpha(folder):
    colours = (gdal.GCI_GrayIndex, gdal.GCI_Undefined, gdal.GCI_AlphaBand)
    return make_raster(folder / "grey.tif", bands=3, colours=colours)


def with_alpha(folder):
    colours = (gdal.GCI_RedBand, gdal.GCI_GreenBand, gdal.GCI_BlueBand, gdal.GCI_AlphaBand)
    return make_raster(folder / "rgba.tif", bands=4, colours=colours)


def complex_raster(folder):
    return make_raster(folder / "slc.tif", bands=3, kind=gdal.GDT_CFloat32)


def palette(folder):
    path = make_raster(folder / "palette.tif")
    data = gdal.Open(path, gdal.GA_Update)
    colours = gdal.ColorTable()
    colours.SetColorEntry(0, (1, 2, 3, 255))
    data.GetRasterBand(1).SetColorTable(colours)
    del data
    return path


def radar(folder):
    path = make_raster(folder / "s1.tif", bands=3, kind=gdal.GDT_Float32)
    data = gdal.Open(path, gdal.GA_Update)
    for number, name in enumerate(("Sigma0_VV_db", "Sigma0_VH_db", "angle"), 1):
        data.GetRasterBand(number).SetDescription(name)
    del data
    return path


def gcps(folder):
    return make_raster(folder / "gcp.tif", bands=3, gcps=True)


def rpc(folder):
    path = make_raster(folder / "rpc.tif", bands=3, epsg=0)
    numbers = " ".join(["1"] + ["0"] * 19)
    names = ("LINE", "SAMP", "LAT", "LONG", "HEIGHT")
    values = {f"{name}_{end}": "1" for name in names for end in ("OFF", "SCALE")}
    values |= {f"{name}_COEFF": numbers for name in ("LINE_NUM", "LINE_DEN", "SAMP_NUM", "SAMP_DEN")}
    data = gdal.Open(path, gdal.GA_Update)
    data.SetMetadata(values, "RPC")
    del data
    return path


def bare(folder):
    return make_raster(folder / "bare.tif", bands=3, epsg=0)


def small_bare(folder):
    return make_raster(folder / "small.tif", bands=3, epsg=0, width=9)


def points(folder):
    return make_polygons(folder / "points.gpkg", ["POINT(1 1)"], kind=ogr.wkbPoint)


def no_polygon(folder):
    return make_polygons(folder / "none.gpkg", [])


#: parameters (a function gets the folder), words of the sentence
CASES = {
    "missing": ({"INPUT": "/nowhere/a.tif"}, r"INPUT: /nowhere/a\.tif does not exist"),
    "nothing": ({"INPUT": ""}, "INPUT: choose a raster"),
    "network": ({"INPUT": "https://example.org/a.tif"}, r"INPUT: https://.* lies on the network"),
    "text": ({"INPUT": text_file}, r"INPUT: .*text\.tif is not a raster that can be read"),
    "bands": ({"INPUT": two_bands}, r"INPUT: two has 2 band\(s\), but three visible bands are needed"),
    "grey": ({"INPUT": grey_alpha}, r"INPUT: grey has 2 band\(s\) besides alpha, but three visible"),
    "complex": ({"INPUT": complex_raster}, "INPUT: band 1 of slc is complex, which is SAR data"),
    "palette": ({"INPUT": palette}, r"INPUT: band 1 of palette has a palette.*gdal:pcttorgb"),
    "radar": ({"INPUT": radar}, "INPUT: band 1 of s1 is SAR by its name"),
    "gcp": ({"INPUT": gcps}, "INPUT: gcp is placed by ground control points only.*warp it first"),
    "rpc": ({"INPUT": rpc}, r"INPUT: rpc is placed by rational polynomials \(RPC\) only.*warp it first"),
    "bands-two": ({"BANDS": [1, 2]}, "BANDS is 1,2; choose three different bands"),
    "bands-one": ({"BANDS": 2}, "BANDS is 2; choose three different bands"),
    "bands-twice": ({"BANDS": [1, 2, 2]}, "BANDS is 1,2,2; choose three different bands"),
    "bands-four": ({"BANDS": "1,2,3,1"}, "BANDS is 1,2,3,1; choose three different bands"),
    "bands-0": ({"BANDS": [0, 1, 2]}, "BANDS names band 0, but hazy has 3 bands, counted from 1"),
    "bands-5": ({"BANDS": [1, 2, 5]}, "BANDS names band 5, but"),
    "bands-text": ({"BANDS": "red,green,blue"}, "BANDS is red,green,blue; write three band numbers"),
    "bands-half": ({"BANDS": "1,2.5,3"}, r"BANDS is 1,2\.5,3; write three band numbers"),
    "bands-alpha": (
        {"INPUT": with_alpha, "BANDS": [1, 2, 4]},
        "BANDS: band 4 of rgba is its alpha band, not a colour",
    ),
    "others": ({"OTHER_BANDS": "keep"}, "OTHER_BANDS"),
    "stretch-text": ({"STRETCH_MIN": "low", "STRETCH_MAX": "9"}, "STRETCH_MIN is low; write one number"),
    "stretch-two": ({"STRETCH_MIN": "1,2", "STRETCH_MAX": "9"}, "STRETCH_MIN is 1,2; write one number, or"),
    "stretch-nan": ({"STRETCH_MIN": "0", "STRETCH_MAX": "nan"}, "STRETCH_MAX is nan; write one number"),
    "stretch-inf": ({"STRETCH_MIN": "-inf", "STRETCH_MAX": "1"}, "STRETCH_MIN is -inf; write one number"),
    "stretch-min": ({"STRETCH_MIN": "1"}, "STRETCH_MIN is given without STRETCH_MAX; give both"),
    "stretch-max": ({"STRETCH_MAX": "1"}, "STRETCH_MAX is given without STRETCH_MIN; give both"),
    "stretch-order": (
        {"STRETCH_MIN": "1,2,3", "STRETCH_MAX": "2,3,3"},
        r"STRETCH_MIN \(3\) must be less than STRETCH_MAX \(3\) in every band; look at value 3",
    ),
    "extent": ({"EXTENT": "5,5,1,2"}, "EXTENT 5,5,1,2 is no area"),
    "extent-crs": ({"EXTENT": "0,1,0,1 [EPSG:99999]"}, "EXTENT: the CRS EPSG:99999 is not known"),
    "aoi-points": ({"AOI": points}, "AOI: .* holds no polygons"),
    "aoi-empty": ({"AOI": no_polygon}, "AOI: .* holds no polygons; choose a layer"),
    "patch": ({"PATCH": 0}, "PATCH is 0; it must lie between 1 and 101"),
    "patch-large": ({"PATCH": 103}, "PATCH is 103; it must lie between 1 and 101"),
    "patch-even": ({"PATCH": 14}, "PATCH is 14; it must be an odd number, such as 13 or 15"),
    "omega": ({"OMEGA": 1.01}, r"OMEGA is 1\.01; it must lie between 0 and 1"),
    "omega-nan": ({"OMEGA": "nan"}, "OMEGA is nan"),
    "strength": ({"STRENGTH": -0.5}, r"STRENGTH is -0\.5; it must lie between 0 and 1"),
    "tile": ({"TILE": 32}, "TILE is 32; it must lie between 64 and 16384"),
    "tile-large": ({"TILE": 20000}, "TILE is 20000; it must lie between"),
    "overlap": ({"TILE": 256, "OVERLAP": 256}, r"OVERLAP is 256; it must be less than TILE \(256\)"),
    "overlap-negative": ({"OVERLAP": -1}, "OVERLAP is -1"),
    "reference": ({"REFERENCE": "/nowhere/a.tif"}, r"REFERENCE: /nowhere/a\.tif does not exist"),
    "reference-bands": ({"REFERENCE": two_bands}, r"REFERENCE: two has 2 band\(s\), but three"),
    "reference-gcp": ({"REFERENCE": gcps}, "REFERENCE: gcp is placed by ground control points"),
    "reference-size": (
        {"INPUT": bare, "REFERENCE": small_bare},
        "REFERENCE: small has 9 x 48 pixels, INPUT 64 x 48, and without georeference",
    ),
    "output-none": ({"OUTPUT": ""}, "OUTPUT: choose a file for the result"),
}


def old_outputs(out):
    for name in ("clear.tif", "clear.qml", "clear.tif.kestrel.json"):
        (out / name).write_text(f"old {name}")
    return {"OUTPUT": str(out / "clear.tif")}


def one_sentence(caught):
    message = str(caught.value).removeprefix("Unable to execute algorithm\n").strip()
    return "\n" not in message


@pytest.mark.parametrize("case", CASES)
def test_exception_bad_value_is_refused_with_one_sentence(raster_stub, hazy, out, tmp_path, case):
    values, words = CASES[case]
    folder = tmp_path / "made"
    folder.mkdir()
    parameters = {"INPUT": hazy, **old_outputs(out)}
    parameters.update({name: v(folder) if callable(v) else v for name, v in values.items()})
    before = folder_state(out)
    with pytest.raises(QgsProcessingException, match=words) as caught:
        processing.run(DEHAZE, parameters)
    assert one_sentence(caught)
    assert raster_stub.jobs == []
    assert folder_state(out) == before


def of_the_input(hazy, out):
    return {"OUTPUT": hazy}


def link_to_the_input(hazy, out):
    os.symlink(hazy, out / "link.tif")
    return {"OUTPUT": str(out / "link.tif")}


def source_of_the_vrt(hazy, out):
    gdal.Translate(
        str(out / "outer.vrt"), gdal.Translate(str(out / "scene.vrt"), hazy, format="VRT"), format="VRT"
    )
    return {"INPUT": str(out / "outer.vrt"), "OUTPUT": hazy}


def of_the_reference(hazy, out):
    reference = hazy_raster(out / "clear.tif")
    return {"REFERENCE": reference, "OUTPUT": reference}


def of_the_area(hazy, out):
    area = make_polygons(out / "area.tif", [square(0, 0, 100)])
    return {"AOI": area, "OUTPUT": area}


def namesake_of_the_input(hazy, out):
    folder = Path(hazy).parent
    gdal.Translate(str(folder / "hazy.vrt"), hazy, format="VRT")
    return {"INPUT": hazy, "OUTPUT": str(folder / "hazy.tiff")}


def no_folder(hazy, out):
    return {"OUTPUT": str(out / "none" / "clear.tif")}


def is_a_folder(hazy, out):
    (out / "clear.tif").mkdir()
    return {"OUTPUT": str(out / "clear.tif")}


def folder_without_an_ending(hazy, out):
    return {"OUTPUT": str(out)}


def full_of_devices(hazy, out):
    return {"OUTPUT": "/proc/clear.tif"}


def long_name(hazy, out):
    return {"OUTPUT": str(out / ("n" * 240 + ".tif"))}


def other_format(hazy, out):
    return {"OUTPUT": str(out / "clear.img")}


def jpeg_haze(hazy, out):
    return {"OUTPUT": str(out / "clear.tif"), "OUTPUT_HAZE": str(out / "haze.jpg")}


def a_database(hazy, out):
    return {"OUTPUT": "postgres:dbname='a' table=\"b\""}


def haze_in_the_output(hazy, out):
    return {"OUTPUT": str(out / "clear.tif"), "OUTPUT_HAZE": str(out / "clear.tif")}


def haze_with_the_style_of_the_output(hazy, out):
    return {"OUTPUT": str(out / "clear.tif"), "OUTPUT_HAZE": str(out / "clear.tiff")}


def haze_in_the_input(hazy, out):
    return {"OUTPUT": str(out / "clear.tif"), "OUTPUT_HAZE": hazy}


def report_in_the_output(hazy, out):
    return {"OUTPUT": str(out / "clear.tif"), "REPORT": str(out / "clear.tif")}


def report_in_the_history(hazy, out):
    return {"OUTPUT": str(out / "clear.tif"), "REPORT": str(out / "clear.tif.kestrel.json")}


def report_in_the_input(hazy, out):
    return {"OUTPUT": str(out / "clear.tif"), "REPORT": hazy}


def report_in_no_folder(hazy, out):
    return {"OUTPUT": str(out / "clear.tif"), "REPORT": str(out / "none" / "r.html")}


OUTPUTS = {
    of_the_input: "OUTPUT is the same file as INPUT",
    link_to_the_input: "OUTPUT is the same file as INPUT",
    source_of_the_vrt: "OUTPUT is the same file as INPUT",
    of_the_reference: "OUTPUT is the same file as REFERENCE",
    of_the_area: "OUTPUT is the same file as AOI",
    namesake_of_the_input: r"OUTPUT: hazy\.tiff would take over hazy\.qml, which belongs to INPUT",
    no_folder: "OUTPUT: the folder .*none does not exist",
    is_a_folder: r"OUTPUT: .*clear\.tif is a folder",
    folder_without_an_ending: "OUTPUT: .*out is a folder",
    full_of_devices: "OUTPUT: the folder /proc cannot be written to",
    long_name: r"OUTPUT: the file name n+\.\.\. is too long \(244 characters\)",
    other_format: r"OUTPUT: clear\.img must end with \.tif or \.tiff, because only GeoTIFF is written",
    jpeg_haze: r"OUTPUT_HAZE: haze\.jpg must end with \.tif",
    a_database: "OUTPUT: postgres:.* is no file; rasters are written as GeoTIFF",
    haze_in_the_output: "OUTPUT_HAZE is the same file as OUTPUT",
    haze_with_the_style_of_the_output: r"OUTPUT_HAZE: clear\.tiff would take over clear\.qml, which",
    haze_in_the_input: "OUTPUT_HAZE is the same file as INPUT",
    report_in_the_output: "REPORT is the same file as OUTPUT",
    report_in_the_history: "REPORT is the same file as OUTPUT",
    report_in_the_input: "REPORT is the same file as INPUT",
    report_in_no_folder: "REPORT: the folder .*none does not exist",
}


@pytest.mark.parametrize("make", OUTPUTS, ids=lambda f: f.__name__)
def test_exception_bad_output_is_refused(raster_stub, hazy, out, make):
    parameters = {"INPUT": hazy, **make(hazy, out)}
    before = sorted(os.listdir(out))
    original = Path(hazy).read_bytes()
    with pytest.raises(QgsProcessingException, match=OUTPUTS[make]) as caught:
        processing.run(DEHAZE, parameters)
    assert one_sentence(caught)
    assert raster_stub.jobs == []
    assert sorted(os.listdir(out)) == before
    assert Path(hazy).read_bytes() == original


@pytest.mark.parametrize("name", ["OUTPUT", "OUTPUT_HAZE"])
def test_exception_output_loaded_in_the_project_is_refused(raster_stub, hazy, out, name):
    loaded = hazy_raster(out / "loaded.tif")
    QgsProject.instance().addMapLayer(QgsRasterLayer(loaded, "loaded"))
    state = Path(loaded).read_bytes()
    with pytest.raises(
        QgsProcessingException, match=rf"{name}: .*loaded\.tif is loaded .* close the layer first"
    ):
        processing.run(DEHAZE, {"INPUT": hazy, "OUTPUT": str(out / "a.tif"), name: loaded})
    assert raster_stub.jobs == []
    assert Path(loaded).read_bytes() == state


def test_exception_checks_are_repeated_where_nobody_checked(raster_stub, hazy, out, qgis_app):
    """Inside a model QGIS calls no checkParameterValues."""
    from kestrel.algorithms.dehaze_dark_channel import DehazeDarkChannel

    feedback = QgsProcessingFeedback()
    parameters = {"INPUT": hazy, "PATCH": 4, "OUTPUT": str(out / "clear.tif")}
    _, ok = DehazeDarkChannel().create().run(parameters, QgsProcessingContext(), feedback)
    assert not ok
    assert "PATCH is 4; it must be an odd number" in feedback.textLog()
    assert raster_stub.jobs == []
    assert os.listdir(out) == []


@pytest.mark.parametrize("case", ["missing", "bands", "complex", "stretch-order", "overlap", "gcp"])
def test_exception_qgis_process_exits_with_1_and_writes_nothing(hazy, out, tmp_path, case):
    values, words = CASES[case]
    folder = tmp_path / "made"
    folder.mkdir()
    values = {"INPUT": hazy, **old_outputs(out), **values}
    before = folder_state(out)
    typed = [f"{name}={v(folder) if callable(v) else v}" for name, v in values.items()]
    done = subprocess.run(
        [str(ROOT / "scripts" / "qgis_process"), "run", DEHAZE, "--", *typed],
        env={**os.environ, "KESTREL_HOME": str(tmp_path / "home"), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert re.search(words, done.stdout + done.stderr)
    assert folder_state(out) == before


def test_exception_tile_of_a_network_is_a_multiple_of_its_stride(provider, hazy, out):
    from kestrel.algorithms.dehaze_dark_channel import DehazeDarkChannel

    class Network(DehazeDarkChannel):
        STRIDE = 8
        TILES = (64, 1024)

    algorithm = Network()
    algorithm.initAlgorithm()
    parameters = {"INPUT": hazy, "OUTPUT": str(out / "a.tif")}
    for tile, words in (
        (100, "TILE is 100; it must be a multiple of 8, such as 96 or 104."),
        (2048, "TILE is 2048; it must lie between 64 and 1024."),
        (512, None),
    ):
        assert algorithm.problem({**parameters, "TILE": tile}, QgsProcessingContext()) == words
