"""No stub: kestrel:dehaze with the real worker and a tiny network, by toolbox, model and qgis_process.

Two weight files are made by code: one with random numbers, and one that makes every value darker by a
known share of the stretch, so that what comes out is known for every pixel.
"""

import array
import json
import os
import random
import shutil
import subprocess
import sys

import processing
import pytest
from kestrel.tests.support.algorithm_tools import ORIGIN, ROOT, file_hash, make_raster
from kestrel.tests.support.raster_chain import build_raster_model
from kestrel.tests.support.raster_tools import RGB, pixels
from osgeo import gdal
from qgis.core import QgsProcessingContext, QgsProcessingException, QgsProcessingFeedback

DEHAZE = "kestrel:dehaze"
WIDTH, HEIGHT = 150, 110
#: Two tiles along each axis.
SMALL = {"TILE": 96, "OVERLAP": 32, "DEVICE": "cpu"}
#: What the known network takes off: 20 of 255.
DARKER = 20 / 255


def made(path, *darker, script="write_dehazing_weights.py"):
    """Write weights in a process of its own: torch and QGIS do not live together."""
    command = [sys.executable, str(ROOT / "tests" / "support" / script), str(path), *map(str, darker)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": ""}, check=True)
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Folder with random.safetensors, known.safetensors and, of another model, ships.safetensors."""
    folder = tmp_path_factory.mktemp("weights v1.0 Größe")
    made(folder / "random.safetensors")
    made(folder / "known.safetensors", DARKER)
    made(folder / "ships.safetensors", script="write_ship_weights.py")
    return folder


@pytest.fixture(autouse=True)
def real_worker(provider, monkeypatch, tmp_path):
    monkeypatch.setenv("KESTREL_PYTHON", sys.executable)
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))


def ground(path, *, low=40, high=240, minus=0, width=WIDTH, height=HEIGHT, bands=3, nodata=None, **more):
    """Seeded whole numbers from low to high, less ``minus``; the first 200 pixels are ``nodata``, if any."""
    make_raster(path, bands=bands, width=width, height=height, colours=RGB, **more)
    data = gdal.Open(str(path), gdal.GA_Update)
    for number in range(1, bands + 1):
        dice = random.Random(number)
        values = array.array("f", (dice.randint(low, high) - minus for _ in range(width * height)))
        if nodata is not None:
            data.GetRasterBand(number).SetNoDataValue(nodata)
            values[:200] = array.array("f", [nodata] * 200)
        data.GetRasterBand(number).WriteRaster(
            0, 0, width, height, values.tobytes(), buf_type=gdal.GDT_Float32
        )
    del data
    return str(path)


@pytest.fixture
def scene(tmp_path):
    (tmp_path / "in").mkdir()
    return ground(tmp_path / "in" / "hazy scene.v1.tif")


def dehaze(raster, output, **more):
    feedback = QgsProcessingFeedback()
    processing.run(DEHAZE, {"INPUT": raster, "OUTPUT": str(output), **SMALL, **more}, feedback=feedback)
    return pixels(output), feedback.textLog()


def qgis_process(values):
    typed = [f"{name}={value}" for name, value in values.items()]
    return subprocess.run(
        [str(ROOT / "scripts" / "qgis_process"), "run", DEHAZE, "--json", "--", *typed],
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def history(path):
    with open(f"{path}.kestrel.json", encoding="utf-8") as file:
        return json.load(file)


@pytest.mark.slow
def test_feature_toolbox_model_and_qgis_process_give_the_same_pixels(scene, weights, out):
    more = {**SMALL, "WEIGHTS": str(weights / "random.safetensors")}
    toolbox, _ = dehaze(scene, out / "toolbox.tif", **more)
    feedback = QgsProcessingFeedback()
    targets = {"dehaze:clear": str(out / "model.tif"), "warp:warped": str(out / "warped.tif")}
    model = build_raster_model(DEHAZE, **more).create()
    _, ok = model.run({"SCENE": scene, **targets}, QgsProcessingContext(), feedback)
    assert ok, feedback.textLog()
    done = qgis_process({"INPUT": scene, "OUTPUT": out / "process.tif", **more})
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(done.stdout[done.stdout.index("{") :])["results"]
    assert results == {"OUTPUT": str(out / "process.tif")}
    for name in ("model", "warped", "process"):
        assert pixels(out / f"{name}.tif") == toolbox, name
    before = pixels(scene)
    assert toolbox[1:] == before[1:]
    assert toolbox[0] != before[0]


def test_oracle_known_network_changes_every_pixel_by_what_it_knows(scene, weights, out):
    """Through tiles, blending, stretch and back: 20 of 255 darker, haze 20/255, nearer to the reference."""
    reference = ground(out / "reference.tif", minus=20)
    more = {"OUTPUT_HAZE": str(out / "h.tif"), "REPORT": str(out / "r.html"), "REFERENCE": reference}
    clear, log = dehaze(scene, out / "a.tif", WEIGHTS=str(weights / "known.safetensors"), **more)
    assert clear == pixels(reference)
    haze = array.array("d", pixels(out / "h.tif")[0])
    # half precision keeps the network's number to 1 of 2048
    assert list(haze) == pytest.approx([DARKER] * (WIDTH * HEIGHT), rel=5e-4)
    assert gdal.Open(str(out / "h.tif")).GetRasterBand(1).DataType == gdal.GDT_Float32
    content = history(out / "a.tif")
    # the two rasters differ by 20 everywhere
    assert content["quality"]["input"]["psnr"] == pytest.approx(22.11, abs=0.01)
    assert "Against REFERENCE before: PSNR 22.11 dB" in log
    assert "<html" in (out / "r.html").read_text()
    assert content["stretch"]["high"] == [255, 255, 255]
    assert content["parameters_used"]["tile"] == 96
    assert content["parameters_used"]["overlap"] == 32
    assert content["model"]["sha256"] == file_hash(weights / "known.safetensors")
    assert content["tiles"]["run"] == content["tiles"]["total"] == 4


@pytest.mark.parametrize("strength", [0, 0.5])
def test_oracle_strength_is_a_share_of_the_change(scene, weights, out, strength):
    expected = pixels(ground(out / "expected.tif", minus=20 * strength))
    more = {"WEIGHTS": str(weights / "known.safetensors"), "STRENGTH": strength}
    assert dehaze(scene, out / "a.tif", **more)[0] == expected


def test_oracle_typed_stretch_decides_what_a_share_is(weights, tmp_path, out):
    """16 bits, 2550 wide: 20 of 255 are 200; nodata stays, and a fourth band is copied."""
    kind = {"kind": gdal.GDT_UInt16, "nodata": 65535, "low": 1000, "high": 2000, "bands": 4}
    scene = ground(tmp_path / "scene.tif", **kind)
    more = {"WEIGHTS": str(weights / "known.safetensors"), "STRETCH_MIN": "100", "STRETCH_MAX": "2650"}
    dehaze(scene, out / "a.tif", **more)
    before, after = gdal.Open(scene), gdal.Open(str(out / "a.tif"))
    assert after.RasterCount == 4
    for number in (1, 2, 3, 4):
        was, now = (
            array.array("H", d.GetRasterBand(number).ReadRaster(buf_type=gdal.GDT_UInt16))
            for d in (before, after)
        )
        change = 200 if number < 4 else 0
        assert list(now[:200]) == [65535] * 200
        assert all(a - b == change for a, b in zip(was[200:], now[200:], strict=True))
        assert after.GetRasterBand(number).GetNoDataValue() == 65535


def test_feature_a_tile_left_out_is_the_cards(scene, weights, out):
    known = str(weights / "known.safetensors")
    processing.run(DEHAZE, {"INPUT": scene, "WEIGHTS": known, "DEVICE": "cpu", "OUTPUT": str(out / "a.tif")})
    content = history(out / "a.tif")
    # 110 rows are filled up to a multiple of 8 only
    assert content["parameters_used"]["tile"] == [112, 128]
    assert not [text for text in content["warnings"] if "tiles of" in text]


def test_feature_history_keeps_what_the_weights_warn_of(scene, weights, out):
    _, log = dehaze(scene, out / "a.tif", WEIGHTS=str(weights / "known.safetensors"))
    warnings = history(out / "a.tif")["warnings"]
    for words in (
        "The weights dehazing_tiny were measured with tiles of 128 pixels, not 96",
        "not reflectance",
        "The weights dehazing_tiny 0 are preliminary: tests only",
    ):
        assert any(words in warning for warning in warnings), words
        assert words in log


def test_feature_weights_of_the_user_are_found_by_name(scene, weights, tmp_path, out):
    mine = tmp_path / "home" / "weights"
    mine.mkdir(parents=True)
    os.link(weights / "known.safetensors", mine / "mine.safetensors")
    expected = pixels(ground(out / "expected.tif", minus=20))
    assert dehaze(scene, out / "a.tif", WEIGHTS="mine")[0] == expected


@pytest.mark.slow
def test_feature_dialog_gives_the_same_pixels(scene, weights, tmp_path, out):
    """Under Xvfb where there is one: the weights go through the list of names."""
    more = {**SMALL, "WEIGHTS": str(weights / "random.safetensors")}
    toolbox, _ = dehaze(scene, out / "toolbox.tif", **more)
    script = str(ROOT / "tests" / "support" / "run_dialog.py")
    display = ["xvfb-run", "-a"] if shutil.which("xvfb-run") else []
    hidden = {"QT_QPA_PLATFORM"} if display else set()
    typed = [f"{name}={value}" for name, value in {"OUTPUT": out / "dialog.tif", **more}.items()]
    done = subprocess.run(
        [*display, sys.executable, script, DEHAZE, str(tmp_path / "dialog.png"), scene, *typed],
        env={name: value for name, value in os.environ.items() if name not in hidden},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[done.stdout.index("{") :])["ok"], done.stderr
    assert pixels(out / "dialog.tif") == toolbox


@pytest.mark.slow
def test_feature_extent_gives_that_part_of_the_whole(scene, weights, out):
    more = {"WEIGHTS": str(weights / "random.safetensors")}
    dehaze(scene, out / "whole.tif", **more)
    x, y = ORIGIN[0] + 400, ORIGIN[1] - 300
    part, _ = dehaze(scene, out / "part.tif", EXTENT=f"{x},{x + 500},{y - 300},{y} [EPSG:32630]", **more)
    whole = gdal.Open(str(out / "whole.tif"))
    assert part[0] == whole.ReadRaster(40, 30, 50, 30, buf_type=gdal.GDT_Float64)
    assert part[2] == (x, 10.0, 0.0, y, 0.0, -10.0)


@pytest.mark.parametrize("size", [(64, 64), (71, 65)], ids=str)
def test_property_smallest_raster_and_odd_sides(weights, tmp_path, out, size):
    shape = {"width": size[0], "height": size[1]}
    scene = ground(tmp_path / "small.tif", **shape)
    expected = pixels(ground(tmp_path / "less.tif", minus=20, **shape))
    assert dehaze(scene, out / "a.tif", WEIGHTS=str(weights / "known.safetensors"))[0] == expected


def constant_band(folder, weights):
    path = ground(folder / "constant.tif", kind=gdal.GDT_UInt16)
    data = gdal.Open(path, gdal.GA_Update)
    data.GetRasterBand(2).Fill(7)
    del data
    return {"INPUT": path}, "[Bb]and 2 .*constant"


def ships(folder, weights):
    """The card's paper has no number that the toolbox side knows; the worker looks at the network."""
    content = (weights / "ships.safetensors").read_bytes()
    quoted = rb"\"paper\": \"01\""
    assert content.count(quoted) == 1
    (folder / "other.safetensors").write_bytes(content.replace(quoted, rb"\"paper\": \"xy\""))
    return {"WEIGHTS": str(folder / "other.safetensors")}, r"other\.safetensors .*dehazing"


def damaged(folder, weights):
    content = bytearray((weights / "random.safetensors").read_bytes())
    content[-4:] = b"\x00\x7e\x00\x7e"  # NaN in half precision
    (folder / "nan.safetensors").write_bytes(content)
    return {"WEIGHTS": str(folder / "nan.safetensors")}, r"nan\.safetensors holds NaN"


@pytest.mark.parametrize("make", [constant_band, ships, damaged], ids=lambda f: f.__name__)
def test_exception_what_only_the_worker_sees_keeps_the_old_output(scene, weights, out, tmp_path, make):
    values, words = make(tmp_path, weights)
    (out / "a.tif").write_text("old")
    with pytest.raises(QgsProcessingException, match=words) as caught:
        dehaze(scene, out / "a.tif", **{"WEIGHTS": str(weights / "random.safetensors"), **values})
    assert "Traceback" not in str(caught.value)
    assert os.listdir(out) == ["a.tif"]
    assert (out / "a.tif").read_text() == "old"
