"""No stub: kestrel:dehazedarkchannel with the real worker, by toolbox, model and qgis_process."""

import array
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import processing
import pytest
from kestrel.tests.support.algorithm_tools import ORIGIN, ROOT, file_hash, make_polygons, make_raster, square
from kestrel.tests.support.raster_chain import build_raster_model
from kestrel.tests.support.raster_tools import RGB, pixels
from osgeo import gdal
from qgis.core import QgsProcessingContext, QgsProcessingException, QgsProcessingFeedback

DEHAZE = "kestrel:dehazedarkchannel"
WIDTH, HEIGHT = 150, 110
#: Two tiles along each axis, with the overlap that a patch of 3 asks for.
SMALL = {"PATCH": 3, "TILE": 96}


def under_haze(path, *, clear=False, width=WIDTH, height=HEIGHT, colours=RGB, kind=gdal.GDT_Byte, **more):
    """Seeded speckle of ground, under haze that thickens to the right: I = J t + A (1 - t)."""
    make_raster(path, bands=3, width=width, height=height, colours=colours, kind=kind, **more)
    data = gdal.Open(str(path), gdal.GA_Update)
    for number, airlight in ((1, 220), (2, 225), (3, 235)):
        dice = random.Random(number)
        values = array.array("f")
        for _ in range(height):
            for x in range(width):
                ground = dice.uniform(10, 150)
                arrives = 1.0 if clear else 1 - 0.8 * x / width
                values.append(round(ground * arrives + airlight * (1 - arrives)))
        band = data.GetRasterBand(number)
        band.WriteRaster(0, 0, width, height, values.tobytes(), buf_type=gdal.GDT_Float32)
    del data
    return str(path)


@pytest.fixture(autouse=True)
def real_worker(provider, monkeypatch, tmp_path):
    monkeypatch.setenv("KESTREL_PYTHON", sys.executable)
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))


@pytest.fixture
def haze(tmp_path):
    (tmp_path / "in").mkdir()
    return under_haze(tmp_path / "in" / "hazy scene.v1.tif")


def command(values, *options):
    typed = [f"{name}={value}" for name, value in values.items()]
    return [str(ROOT / "scripts" / "qgis_process"), "run", DEHAZE, *options, "--", *typed]


def qgis_process(values):
    return subprocess.run(
        command(values, "--json"),
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def dehaze(raster, output, **more):
    feedback = QgsProcessingFeedback()
    parameters = {"INPUT": raster, "OUTPUT": str(output), **SMALL, **more}
    processing.run(DEHAZE, parameters, feedback=feedback)
    return pixels(output), feedback.textLog()


def spread(values, columns):
    """Standard deviation of the first band over some columns, of raw float64 bytes of a scene."""
    numbers = array.array("d", values)[: WIDTH * HEIGHT]
    chosen = [numbers[row * WIDTH + column] for row in range(HEIGHT) for column in columns]
    mean = sum(chosen) / len(chosen)
    return (sum((value - mean) ** 2 for value in chosen) / len(chosen)) ** 0.5


def test_feature_toolbox_model_and_qgis_process_give_the_same_pixels(haze, out):
    toolbox, _ = dehaze(haze, out / "toolbox.tif")
    feedback = QgsProcessingFeedback()
    targets = {"dehaze:clear": str(out / "model.tif"), "warp:warped": str(out / "warped.tif")}
    model = build_raster_model(DEHAZE, **SMALL).create()
    _, ok = model.run({"SCENE": haze, **targets}, QgsProcessingContext(), feedback)
    assert ok, feedback.textLog()
    done = qgis_process({"INPUT": haze, "OUTPUT": out / "process.tif", **SMALL})
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(done.stdout[done.stdout.index("{") :])["results"]
    assert results == {"OUTPUT": str(out / "process.tif")}
    for name in ("model", "warped", "process"):
        assert pixels(out / f"{name}.tif") == toolbox, name
    before = pixels(haze)
    assert toolbox[1:] == before[1:]
    # haze takes four fifths of the contrast on the right and nothing on the left
    right, left = range(WIDTH - 20, WIDTH), range(20)
    assert spread(toolbox[0], right) > 1.5 * spread(before[0], right)
    assert spread(toolbox[0], left) == pytest.approx(spread(before[0], left), rel=0.25)


@pytest.mark.slow
def test_feature_dialog_gives_the_same_pixels_and_the_look_of_the_input(tmp_path, out):
    """Under Xvfb where there is one: a layer in the project, the dialog's button, the layer it loads."""
    haze = under_haze(tmp_path / "sixteen.tif", kind=gdal.GDT_UInt16)
    toolbox, _ = dehaze(haze, out / "toolbox.tif")
    script = str(ROOT / "tests" / "support" / "run_dialog.py")
    typed = [f"{name}={value}" for name, value in {"OUTPUT": out / "dialog.tif", **SMALL}.items()]
    display = ["xvfb-run", "-a"] if shutil.which("xvfb-run") else []
    environment = {
        name: value for name, value in os.environ.items() if name != "QT_QPA_PLATFORM" or not display
    }
    done = subprocess.run(
        [*display, sys.executable, script, DEHAZE, str(tmp_path / "dialog.png"), haze, *typed],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout[done.stdout.index("{") :])
    assert told["ok"], done.stderr
    assert told["results"] == {"OUTPUT": str(out / "dialog.tif")}
    assert pixels(out / "dialog.tif") == toolbox
    looks = {layer["file"]: layer["limits"] for layer in told["layers"]}
    assert looks[str(out / "dialog.tif")] == looks[haze]
    assert os.path.getsize(tmp_path / "dialog.png") > 0


LAYOUTS = {
    "rotated": {"transform": (ORIGIN[0], 8.66, 5.0, ORIGIN[1], 5.0, -8.66)},
    "south-up": {"transform": (ORIGIN[0], 10, 0, ORIGIN[1], 0, 10)},
    "degrees": {"epsg": 4326, "transform": (2.5, 1e-4, 0, 52.0, 0, -1e-4)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_feature_pixels_do_not_depend_on_where_they_lie(haze, tmp_path, out, layout):
    moved = under_haze(tmp_path / "moved.tif", **LAYOUTS[layout])
    (values, *place), _ = dehaze(moved, out / "moved.tif")
    assert place == list(pixels(moved)[1:])
    assert values == dehaze(haze, out / "a.tif")[0][0]


def test_feature_strength_0_changes_nothing(haze, out):
    assert dehaze(haze, out / "a.tif", STRENGTH=0)[0] == pixels(haze)


def test_feature_extent_gives_that_part_of_the_whole(haze, out):
    dehaze(haze, out / "whole.tif")
    x, y = ORIGIN[0] + 400, ORIGIN[1] - 300
    part, _ = dehaze(haze, out / "part.tif", EXTENT=f"{x},{x + 500},{y - 600},{y} [EPSG:32630]")
    whole = gdal.Open(str(out / "whole.tif"))
    assert part[0] == whole.ReadRaster(40, 30, 50, 60, buf_type=gdal.GDT_Float64)
    assert part[2] == (x, 10.0, 0.0, y, 0.0, -10.0)


def test_feature_haze_reference_report_and_history_of_a_real_run(haze, tmp_path, out):
    reference = under_haze(tmp_path / "clear.tif", clear=True)
    more = {"OUTPUT_HAZE": str(out / "h.tif"), "REPORT": str(out / "r.html"), "REFERENCE": reference}
    _, log = dehaze(haze, out / "a.tif", COG=True, **more)
    content = json.loads((out / "a.tif.kestrel.json").read_text())
    quality = content["quality"]
    assert quality["output"]["psnr"] > quality["input"]["psnr"]
    assert f"Against REFERENCE after: PSNR {quality['output']['psnr']:.2f} dB" in log
    assert (content["bands"], content["output_bands"]) == ([1, 2, 3], [1, 2, 3])
    assert content["stretch"]["low"] == [0, 0, 0]
    assert content["parameters_used"]["patch"] == 3
    assert content["tiles"]["run"] == content["tiles"]["total"] == 4
    assert [entry["path"] for entry in content["inputs"]][:2] == [haze, reference]
    assert gdal.Open(str(out / "a.tif")).GetMetadata("IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert gdal.Open(str(out / "h.tif")).GetRasterBand(1).DataType == gdal.GDT_Float32
    assert "<html" in (out / "r.html").read_text()
    assert "<maxValue>255.0</maxValue>" in (out / "a.qml").read_text()


def test_feature_input_is_not_touched(haze, out):
    before = file_hash(haze)
    dehaze(haze, out / "a.tif")
    assert file_hash(haze) == before


def constant_band(folder):
    path = under_haze(folder / "constant.tif", kind=gdal.GDT_UInt16)
    data = gdal.Open(path, gdal.GA_Update)
    data.GetRasterBand(2).Fill(7)
    del data
    return {"INPUT": path}, "[Bb]and 2 .*constant"


def far_area(folder):
    return {"AOI": make_polygons(folder / "far.gpkg", [square(10**6, 0, 100)])}, "AOI"


def truncated(folder):
    path = under_haze(folder / "short.tif")
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)
    return {"INPUT": path}, r"short\.tif"


def far_reference(folder):
    path = under_haze(folder / "far.tif", transform=(0, 10, 0, 0, 0, -10))
    return {"REFERENCE": path}, "REFERENCE .*does not overlap"


@pytest.mark.parametrize(
    "make", [constant_band, far_area, truncated, far_reference], ids=lambda f: f.__name__
)
def test_exception_what_only_the_worker_sees_keeps_the_old_output(haze, out, tmp_path, make):
    values, words = make(tmp_path)
    (out / "a.tif").write_text("old")
    with pytest.raises(QgsProcessingException, match=words):
        dehaze(haze, out / "a.tif", **values)
    assert os.listdir(out) == ["a.tif"]
    assert (out / "a.tif").read_text() == "old"


@pytest.fixture
def long_run(tmp_path, out):
    """A started qgis_process whose worker is at its tiles, and the old outputs."""
    raster = make_raster(tmp_path / "large.tif", bands=3, width=6000, height=6000, colours=RGB)
    data = gdal.Open(raster, gdal.GA_Update)
    rows = random.Random(2).randbytes(6000 * 500)
    for number in (1, 2, 3):
        for row in range(0, 6000, 500):
            data.GetRasterBand(number).WriteRaster(0, row, 6000, 500, rows)
    del data
    for name in ("a.tif", "h.tif", "r.html"):
        (out / name).write_text("old")
    names = {"OUTPUT": "a.tif", "OUTPUT_HAZE": "h.tif", "REPORT": "r.html"}
    # not --json: with it qgis_process 3.22 takes no notice of SIGINT
    process = subprocess.Popen(
        command({"INPUT": raster, **{name: out / file for name, file in names.items()}}),
        env={**os.environ, "PYTHONPATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    part = wait_for(lambda: next(iter(out.glob(".a.tif.*.part.tif")), None))
    time.sleep(0.5)
    yield process, int(re.search(r"\.(\d+)\.part", part.name).group(1))
    process.kill()
    process.wait()


def wait_for(look, seconds=60):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def untouched(out):
    return {path.name: path.read_text() for path in out.iterdir()} == dict.fromkeys(
        ("a.tif", "h.tif", "r.html"), "old"
    )


def test_fault_interrupt_leaves_the_old_outputs_and_no_part(long_run, out):
    """SIGINT is cancel."""
    process, _ = long_run
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    text, _ = process.communicate(timeout=60)
    took_s = time.monotonic() - started
    assert process.returncode == 1, text
    assert "Cancelled; nothing was written." in text
    assert took_s < 10, text
    assert untouched(out), sorted(os.listdir(out))


@pytest.mark.slow
def test_fault_killed_worker_leaves_the_old_outputs_and_no_part(long_run, out):
    process, worker = long_run
    os.kill(worker, signal.SIGKILL)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 1, text
    assert "SIGKILL" in text
    assert untouched(out), sorted(os.listdir(out))


@pytest.mark.slow
def test_fault_killed_qgis_leaves_what_the_next_run_clears(long_run, haze, out):
    process, worker = long_run
    # the wrapper script has become qgis_process itself, which the worker outlives by a moment
    process.kill()
    process.communicate()
    wait_for(lambda: not os.path.exists(f"/proc/{worker}"), 15)
    assert (out / "a.tif").read_text() == "old"
    dehaze(haze, out / "a.tif", OUTPUT_HAZE=str(out / "h.tif"), REPORT=str(out / "r.html"))
    assert not [name for name in os.listdir(out) if name.startswith(".")]
    assert pixels(out / "a.tif")[1] == 3
