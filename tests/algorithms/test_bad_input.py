"""Every refusal before the run: one sentence, no worker, nothing written, an old output untouched."""

import os
import struct
import subprocess
import zipfile
from pathlib import Path

import processing
import pytest
from kestrel.tests.support.algorithm_tools import (
    ROOT,
    fake_weights,
    folder_state,
    make_polygons,
    make_raster,
    square,
)
from osgeo import gdal, ogr
from qgis.core import QgsProcessingContext, QgsProcessingException, QgsProcessingFeedback

SHIPS = "kestrel:detectships"
CFAR = "kestrel:detectshipscfar"


def text_file(folder):
    path = folder / "text.tif"
    path.write_text("not a raster, but long enough to look like a file")
    return str(path)


def zip_file(folder):
    path = folder / "zip.tif"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")
    return str(path)


def empty_file(folder):
    (folder / "empty.tif").write_bytes(b"")
    return str(folder / "empty.tif")


def folder_as_raster(folder):
    (folder / "folder.tif").mkdir()
    return str(folder / "folder.tif")


def complex_raster(folder):
    return make_raster(folder / "slc.tif", kind=gdal.GDT_CFloat32, bands=2)


def bare_raster(folder):
    return make_raster(folder / "bare.tif", epsg=0)


def points(folder):
    return make_polygons(folder / "points.gpkg", ["POINT(1 1)"], kind=ogr.wkbPoint)


def polygons(folder):
    return make_polygons(folder / "area.gpkg", [square(0, 0, 100)])


def no_polygon(folder):
    return make_polygons(folder / "none.gpkg", [])


def pickled_weights(folder):
    path = folder / "evil.safetensors"
    path.write_bytes(b"\x80\x04c__builtin__\nexec\n" * 9)
    return str(path)


def long_header(folder):
    path = folder / "long.safetensors"
    path.write_bytes(struct.pack("<Q", 10**12) + b"{}")
    return str(path)


#: algorithm, parameters (a function gets the folder), words of the sentence
CASES = {
    "missing": (CFAR, {"INPUT": "/nowhere/a.tif"}, r"INPUT: /nowhere/a\.tif does not exist"),
    "network": (CFAR, {"INPUT": "https://example.org/a.tif"}, r"INPUT: https://.* lies on the network"),
    "inside": (CFAR, {"INPUT": "/vsizip/a.zip/b.tif"}, r"INPUT: /vsizip/a\.zip/b\.tif is no file"),
    "subdataset": (CFAR, {"INPUT": 'NETCDF:"a.nc":x'}, 'INPUT: NETCDF:"a.nc":x is no file, and QGIS'),
    "nothing": (CFAR, {"INPUT": ""}, "INPUT: choose a raster"),
    "folder": (CFAR, {"INPUT": folder_as_raster}, r"folder\.tif is a folder"),
    "empty": (CFAR, {"INPUT": empty_file}, r"empty\.tif is empty \(0 bytes\)"),
    "text": (CFAR, {"INPUT": text_file}, r"text\.tif is not a raster that can be read"),
    "zip": (CFAR, {"INPUT": zip_file}, r"zip\.tif is not a raster that can be read"),
    "xml": (CFAR, {"INPUT": "<VRTDataset rasterXSize='9' rasterYSize='9'/>"}, "INPUT: XML text"),
    "inline": (
        CFAR,
        {
            "INPUT": "<VRTDataset rasterXSize='9' rasterYSize='9'>"
            "<VRTRasterBand dataType='Byte' band='1'/></VRTDataset>"
        },
        "INPUT: XML text",
    ),
    "band-0": (CFAR, {"BAND": 0}, r"BAND is 0, but .* has 1 band\(s\), counted from 1"),
    "band-2": (CFAR, {"BAND": 2}, "BAND is 2, but"),
    "complex": (CFAR, {"INPUT": complex_raster, "BAND": 2}, r"Complex SAR data \(band 2 of slc\): convert"),
    "scale": (CFAR, {"SCALE_MODE": "db", "SCALE_MIN": 5, "SCALE_MAX": 5}, r"SCALE_MIN \(5 dB\) must be less"),
    "scale-nan": (CFAR, {"SCALE_MIN": "nan"}, "SCALE_MIN is nan; it must lie between"),
    "mode": (CFAR, {"SCALE_MODE": "sepia"}, "SCALE_MODE"),
    "lengths": (CFAR, {"MIN_LENGTH": 90, "MAX_LENGTH": 50}, r"MIN_LENGTH \(90 m\) is more than MAX_LENGTH"),
    "length": (CFAR, {"MIN_LENGTH": -1}, "MIN_LENGTH is -1; it must lie between"),
    "buffer": (CFAR, {"LAND_BUFFER": -5}, "LAND_BUFFER is -5"),
    "metres": (CFAR, {"INPUT": bare_raster, "MAX_LENGTH": 50}, "MAX_LENGTH: the file of bare has no CRS"),
    "land-bare": (
        CFAR,
        {"INPUT": bare_raster, "LAND_MASK": polygons},
        "LAND_MASK: the file of bare has no CRS",
    ),
    "extent-empty": (CFAR, {"EXTENT": "5,5,1,2"}, "EXTENT 5,5,1,2 is no area; write xmin,xmax,ymin,ymax"),
    "extent-nan": (CFAR, {"EXTENT": "nan,nan,0,1"}, "EXTENT nan,nan,0,1 is no area"),
    "extent-endless": (CFAR, {"EXTENT": "-inf,inf,-inf,inf"}, "EXTENT -inf,inf,-inf,inf is no area"),
    "extent-text": (CFAR, {"EXTENT": "here"}, "EXTENT here is no area"),
    "extent-crs": (CFAR, {"EXTENT": "0,1,0,1 [EPSG:99999]"}, "EXTENT: the CRS EPSG:99999 is not known"),
    "aoi-points": (CFAR, {"AOI": points}, "AOI: .* holds no polygons"),
    "aoi-file": (CFAR, {"AOI": text_file}, r"AOI: .*text\.tif is not a polygon layer"),
    "aoi-empty": (CFAR, {"AOI": no_polygon}, "AOI: .* holds no polygons; choose a layer"),
    "land-points": (CFAR, {"LAND_MASK": points}, "LAND_MASK: .* holds no polygons"),
    "pfa": (CFAR, {"PFA": 0.5}, r"PFA is 0\.5; it must lie between 1e-15 and 0\.1"),
    "pfa-nan": (CFAR, {"PFA": "nan"}, "PFA is nan"),
    "guard": (CFAR, {"GUARD": 0}, "GUARD is 0"),
    "background": (CFAR, {"GUARD": 600}, r"BACKGROUND \(600 m\) must be more than GUARD \(600 m\)"),
    "confidence": (SHIPS, {"CONFIDENCE": 1.5}, r"CONFIDENCE is 1\.5; it must lie between 0 and 1"),
    "confidence-nan": (SHIPS, {"CONFIDENCE": "nan"}, "CONFIDENCE is nan"),
    "nms": (SHIPS, {"NMS_IOU": -0.1}, r"NMS_IOU is -0\.1; it must lie between 0 and 1"),
    "tile": (SHIPS, {"TILE": 700}, "TILE is 700; it must be a multiple of 64, such as 640 or 704"),
    "tile-small": (SHIPS, {"TILE": 32}, "TILE is 32; it must lie between 64 and 8192"),
    "tile-large": (SHIPS, {"TILE": 9000}, "TILE is 9000"),
    "overlap": (SHIPS, {"TILE": 640, "OVERLAP": 640}, r"OVERLAP is 640; it must be less than TILE \(640\)"),
    "overlap-negative": (SHIPS, {"OVERLAP": -1}, "OVERLAP is -1"),
    "batch": (SHIPS, {"BATCH": -1}, "BATCH is -1"),
    "device": (SHIPS, {"DEVICE": "tpu"}, "DEVICE"),
    "weights-missing": (
        SHIPS,
        {"WEIGHTS": "/nowhere/a.safetensors"},
        r"WEIGHTS: /nowhere/a\.safetensors does not exist",
    ),
    "weights-ending": (
        SHIPS,
        {"WEIGHTS": text_file},
        r"text\.tif is neither a \.safetensors file nor a known",
    ),
    "weights-name": (SHIPS, {"WEIGHTS": "yolo11"}, "WEIGHTS: yolo11 is neither"),
    "weights-pickle": (SHIPS, {"WEIGHTS": pickled_weights}, r"evil\.safetensors is not a safetensors file"),
    "weights-header": (SHIPS, {"WEIGHTS": long_header}, r"long\.safetensors is not a safetensors file"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_value_is_refused_with_one_sentence(stub, scene, weights, out, tmp_path, case):
    algorithm, values, words = CASES[case]
    folder = tmp_path / "made"
    folder.mkdir()
    parameters = {"INPUT": scene, "OUTPUT": str(out / "ships.gpkg")}
    if algorithm == SHIPS:
        parameters["WEIGHTS"] = weights
    processing.run(algorithm, parameters)
    before = folder_state(out)
    stub.jobs.clear()
    parameters.update({name: v(folder) if callable(v) else v for name, v in values.items()})
    with pytest.raises(QgsProcessingException, match=words) as caught:
        processing.run(algorithm, parameters)
    message = str(caught.value).removeprefix("Unable to execute algorithm\n").strip()
    assert "\n" not in message
    assert stub.jobs == []
    assert folder_state(out) == before


def same_as_input(scene, out):
    return scene


def linked_input(scene, out):
    os.symlink(scene, out / "link.gpkg")
    return str(out / "link.gpkg")


def no_folder(scene, out):
    return str(out / "none" / "ships.gpkg")


def is_a_folder(scene, out):
    (out / "ships.gpkg").mkdir()
    return str(out / "ships.gpkg")


def long_name(scene, out):
    return str(out / ("n" * 240 + ".gpkg"))


def long_unicode_name(scene, out):
    return str(out / ("ü" * 120 + ".gpkg"))


def unknown_ending(scene, out):
    return str(out / "ships.tiff")


def ending_that_qgis_adds_to(scene, out):
    # Geoconcept: QGIS would write ships.txt.gxt, unguarded
    return str(out / "ships.txt")


def format_without_fields(scene, out):
    return str(out / "ships.dxf")


def folder_without_an_ending(scene, out):
    return str(out)


def table_in_geojson(scene, out):
    return f"ogr:dbname='{out}/ships.geojson' table=\"ships\" (geom)"


OUTPUTS = {
    same_as_input: "OUTPUT is the same file as INPUT",
    linked_input: "OUTPUT is the same file as INPUT",
    no_folder: r"OUTPUT: the folder .*none does not exist",
    is_a_folder: r"OUTPUT: .*ships\.gpkg is a folder",
    long_name: r"OUTPUT: the file name n+\.\.\. is too long \(245 characters\)",
    long_unicode_name: "OUTPUT: the file name ü+... is too long",
    unknown_ending: r"OUTPUT: .*ships\.tiff",
    ending_that_qgis_adds_to: r"OUTPUT: ships\.txt has an ending",
    format_without_fields: r"OUTPUT: ships\.dxf has an ending",
    folder_without_an_ending: r"OUTPUT: .*out is a folder",
    table_in_geojson: r"OUTPUT: ships\.geojson has an ending",
}


@pytest.mark.parametrize("make", OUTPUTS, ids=lambda f: f.__name__)
def test_bad_output_is_refused(stub, scene, out, make):
    output = make(scene, out)
    before = sorted(os.listdir(out))
    original = Path(scene).read_bytes()
    with pytest.raises(QgsProcessingException, match=OUTPUTS[make]):
        processing.run(CFAR, {"INPUT": scene, "OUTPUT": output})
    assert stub.jobs == []
    assert sorted(os.listdir(out)) == before
    assert Path(scene).read_bytes() == original


def test_folder_that_takes_no_file_is_refused_before_the_worker_starts(stub, scene):
    # /proc takes no files, not even root's
    with pytest.raises(QgsProcessingException, match="OUTPUT: the folder /proc cannot be written to"):
        processing.run(CFAR, {"INPUT": scene, "OUTPUT": "/proc/ships.gpkg"})
    assert stub.jobs == []


@pytest.mark.parametrize("name", ["AOI", "LAND_MASK"])
@pytest.mark.parametrize("table", [False, True])
def test_output_in_the_file_of_a_polygon_input_is_refused(stub, scene, out, name, table):
    area = make_polygons(out / "area.gpkg", [square(0, 0, 500)], layer="area")
    before = folder_state(out)
    output = f"ogr:dbname='{area}' table=\"ships\" (geom)" if table else area
    with pytest.raises(QgsProcessingException, match=f"OUTPUT is the same file as {name}"):
        processing.run(CFAR, {"INPUT": scene, name: area, "OUTPUT": output})
    state = {key: value for key, value in folder_state(out).items() if not key.endswith(("-wal", "-shm"))}
    assert state == before
    assert stub.jobs == []


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ("none/r.html", "REPORT: the folder"),
        ("ships.gpkg", "REPORT is the same file as OUTPUT"),
        ("ships.gpkg.kestrel.json", "REPORT is the same file as OUTPUT"),
        ("../in/scene.tif", "REPORT is the same file as INPUT"),
    ],
)
def test_bad_report_is_refused(stub, scene, out, report, words):
    with pytest.raises(QgsProcessingException, match=words):
        processing.run(CFAR, {"INPUT": scene, "OUTPUT": str(out / "ships.gpkg"), "REPORT": str(out / report)})
    assert stub.jobs == []
    assert os.listdir(out) == []


def test_report_that_cannot_be_written_is_named_and_leaves_nothing(stub, scene, out):
    parameters = {"INPUT": scene, "OUTPUT": str(out / "ships.gpkg"), "REPORT": "/proc/r.html"}
    with pytest.raises(QgsProcessingException, match=r"REPORT: /proc/r\.html could not be written"):
        processing.run(CFAR, parameters)
    assert os.listdir(out) == []


def test_checks_are_repeated_where_nobody_checked(stub, scene, out, qgis_app):
    """Inside a model QGIS calls no checkParameterValues."""
    from kestrel.algorithms.detect_ships_cfar import DetectShipsCfar

    parameters = {"INPUT": scene, "BAND": 7, "OUTPUT": str(out / "ships.gpkg")}
    feedback = QgsProcessingFeedback()
    _, ok = DetectShipsCfar().create().run(parameters, QgsProcessingContext(), feedback)
    assert not ok
    assert "BAND is 7, but" in feedback.textLog()
    assert stub.jobs == []
    assert os.listdir(out) == []


def test_missing_default_weights_are_refused(stub, scene, monkeypatch, tmp_path):
    from kestrel.plugin import weight_files

    monkeypatch.setattr(weight_files, "FOLDER", tmp_path / "nothing")
    with pytest.raises(
        QgsProcessingException, match="WEIGHTS: the shipped weights sar_ships are not install"
    ):
        processing.run(SHIPS, {"INPUT": scene, "OUTPUT": "memory:"})
    assert stub.jobs == []


def test_weights_by_name_are_found_in_manifest_and_home(stub, scene, monkeypatch, tmp_path):
    from kestrel.plugin import weight_files

    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr(weight_files, "FOLDER", folder)
    (folder / "manifest.json").write_text('{"sar_ships_s": {"file": "s.safetensors", "pack": "big"}}')
    with pytest.raises(QgsProcessingException, match="sar_ships_s are not installed; install big first"):
        processing.run(SHIPS, {"INPUT": scene, "WEIGHTS": "sar_ships_s", "OUTPUT": "memory:"})
    fake_weights(folder / "s.safetensors")
    mine = tmp_path / "home" / "weights"
    mine.mkdir(parents=True)
    fake_weights(mine / "mine.safetensors")
    for name in ("sar_ships_s", "mine", ""):
        processing.run(SHIPS, {"INPUT": scene, "WEIGHTS": name, "OUTPUT": "memory:"})
    assert [job.params["weights"] for job in stub.jobs] == ["sar_ships_s", "mine", ""]


PROCESS_CASES = ["missing", "text", "complex", "band-2", "scale", "lengths", "background"]


@pytest.mark.parametrize("case", PROCESS_CASES)
def test_qgis_process_exits_with_1_and_writes_nothing(scene, out, tmp_path, case):
    """The same refusal through the real program."""
    algorithm, values, words = CASES[case]
    folder = tmp_path / "made"
    folder.mkdir()
    (out / "ships.gpkg").write_text("old")
    values = {"INPUT": scene, "OUTPUT": str(out / "ships.gpkg"), **values}
    typed = [f"{name}={v(folder) if callable(v) else v}" for name, v in values.items()]
    done = subprocess.run(
        [str(ROOT / "scripts" / "qgis_process"), "run", algorithm, "--", *typed],
        env={**os.environ, "KESTREL_HOME": str(tmp_path / "home"), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    import re

    assert re.search(words, done.stdout + done.stderr)
    assert folder_state(out).keys() == {"ships.gpkg"}
    assert (out / "ships.gpkg").read_text() == "old"
    assert not (tmp_path / "home").exists()
