"""Every refusal of the algorithms of two dates before the run: one sentence, no worker, nothing written."""

import re

import pytest
from kestrel.tests.support.algorithm_tools import folder_state, make_polygons, make_raster, square
from kestrel.tests.support.raster_tools import RGB, hazy_raster
from osgeo import gdal, ogr
from qgis.core import QgsProcessingContext

VECTOR = "detectchangevector"
NETWORK = "detectbuildingchange"


def two_bands(folder):
    return make_raster(folder / "two.tif", bands=2)


def without_crs(folder):
    return hazy_raster(folder / "bare.tif", epsg=None)


def complex_raster(folder):
    return make_raster(folder / "slc.tif", bands=3, kind=gdal.GDT_CFloat32)


def with_alpha(folder):
    return make_raster(folder / "rgba.tif", bands=4, colours=(*RGB, gdal.GCI_AlphaBand))


def by_points(folder):
    return make_raster(folder / "gcp.tif", bands=3, gcps=True)


def lines(folder):
    return make_polygons(folder / "lines.gpkg", ["LINESTRING(0 0,1 1)"], kind=ogr.wkbLineString)


CASES = {
    "no date": (VECTOR, {"AFTER": None}, "AFTER: choose a raster layer or file."),
    "gone": (VECTOR, {"BEFORE": "/no/such.tif"}, "BEFORE: /no/such.tif does not exist"),
    "two bands": (
        VECTOR,
        {"AFTER": two_bands},
        "AFTER: two has 2 band(s), but three visible bands are needed.",
    ),
    "complex": (VECTOR, {"BEFORE": complex_raster}, "is complex, which is SAR data; change is looked for in"),
    "no CRS": (VECTOR, {"AFTER": without_crs}, "AFTER: the file of bare has no CRS, but that of BEFORE has"),
    "gcp": (VECTOR, {"AFTER": by_points}, "AFTER: gcp is placed by ground control points only"),
    "no such band": (VECTOR, {"BANDS_AFTER": [1, 2, 4]}, "BANDS_AFTER names band 4, but after has 3 bands"),
    "two of bands": (VECTOR, {"BANDS_BEFORE": [1, 2]}, "BANDS_BEFORE is 1,2; choose three different bands"),
    "no band": (VECTOR, {"BANDS_BEFORE": "red"}, "BANDS_BEFORE is red; write three band numbers"),
    "alpha": (
        VECTOR,
        {"BEFORE": with_alpha, "BANDS_BEFORE": [2, 3, 4]},
        "BANDS_BEFORE: band 4 of rgba is its alpha band",
    ),
    "half a stretch": (VECTOR, {"STRETCH_MIN": "3"}, "STRETCH_MIN is given without STRETCH_MAX"),
    "threshold": (VECTOR, {"THRESHOLD": 1.5}, "THRESHOLD is 1.5; it must lie between 0 and 1."),
    "area": (VECTOR, {"MIN_AREA": -0.5}, "MIN_AREA is -0.5; it must be 0 or more, or -1 for the default."),
    "simplify": (VECTOR, {"SIMPLIFY": -1}, "SIMPLIFY is -1; it must lie between"),
    "tile": (NETWORK, {"TILE": 100}, "TILE is 100; it must be a multiple of 16, such as 96 or 112."),
    "overlap": (VECTOR, {"OVERLAP": 256}, "OVERLAP is 256; it must be less than TILE (256)"),
    "extent": (VECTOR, {"EXTENT": "1,1,1,1"}, "EXTENT 1,1,1,1 is no area"),
    "reference gone": (VECTOR, {"REFERENCE": "/no/such.gpkg"}, "REFERENCE: /no/such.gpkg is no layer"),
    "reference lines": (VECTOR, {"REFERENCE": lines}, "REFERENCE: lines holds no polygons"),
    "batch": (NETWORK, {"BATCH": -1}, "BATCH is -1; it must lie between 0"),
    "weights gone": (NETWORK, {"WEIGHTS": "/no/such.safetensors"}, "/no/such.safetensors"),
    "mask over input": (VECTOR, {"OUTPUT_MASK": "{BEFORE}"}, "OUTPUT_MASK is the same file as BEFORE"),
    "mask twice": (
        VECTOR,
        {"OUTPUT_MASK": "{out}/a.tif", "OUTPUT_PROBABILITY": "{out}/a.tif"},
        "OUTPUT_PROBABILITY is the same file as OUTPUT_MASK",
    ),
    "mask takes the style": (
        VECTOR,
        {"OUTPUT": "{out}/a.shp", "OUTPUT_MASK": "{out}/a.tif"},
        "OUTPUT_MASK: a.tif would take over a.qml, which belongs to OUTPUT",
    ),
    "no tif": (VECTOR, {"OUTPUT_PROBABILITY": "{out}/p.png"}, "must end with .tif or .tiff"),
    "report over output": (VECTOR, {"REPORT": "{out}/change.gpkg"}, "REPORT is the same file as OUTPUT"),
    "no folder": (VECTOR, {"OUTPUT": "{out}/no/a.gpkg"}, "/no does not exist; create it"),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_exception_is_one_sentence_before_anything_is_written(
    change_stub, dates, tmp_path, out, provider, case
):
    name, changes, sentence = CASES[case]
    known = {"out": str(out), **dates}
    parameters = {**dates, "OUTPUT": str(out / "change.gpkg")}
    if name == NETWORK:
        parameters["WEIGHTS"] = ""
    for key, value in changes.items():
        made = value(tmp_path) if callable(value) else value
        parameters[key] = made.format(**known) if isinstance(made, str) else made
    before = folder_state(out)
    algorithm = provider.algorithm(name).create()
    ok, found = algorithm.checkParameterValues(parameters, QgsProcessingContext())
    assert not ok
    assert sentence in found
    assert len(re.findall(r"[.?!](?=\s|$)", found)) == 1
    assert folder_state(out) == before
    assert change_stub.jobs == []


def test_exception_network_without_shipped_weights_says_so(change_stub, dates, out, provider, monkeypatch):
    from kestrel.plugin import weight_files

    monkeypatch.setattr(weight_files, "shipped", lambda: {"dehazing": {"file": "dehazing.safetensors"}})
    parameters = {**dates, "OUTPUT": str(out / "change.gpkg")}
    ok, found = provider.algorithm(NETWORK).create().checkParameterValues(parameters, QgsProcessingContext())
    assert not ok
    assert found.startswith("WEIGHTS: no weights for building_change come with this version")


def test_feature_polygons_and_square_areas_are_taken_as_reference(dates, provider, change_stub, tmp_path):
    polygons = make_polygons(tmp_path / "known.gpkg", [square(0, 0, 100)])
    for reference in (polygons, dates["BEFORE"]):
        parameters = {**dates, "OUTPUT": "memory:", "REFERENCE": reference}
        algorithm = provider.algorithm(VECTOR).create()
        assert algorithm.checkParameterValues(parameters, QgsProcessingContext()) == (True, "")
