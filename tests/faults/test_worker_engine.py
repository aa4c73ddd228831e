"""Faults 1-15, 17, 21, 23 and 24 as far as they concern boxes, through the real worker process.

One warm worker serves all of these tests: it must survive every refusal. E = a clear error and no
output; P = proceeds correctly (numbers: ENGINE.md, section 7).
"""

import os
import shutil
import sys
import threading
import time
import zipfile

import numpy as np
import pytest
import rasterio
import shapely
from kestrel.engine.job import Job
from kestrel.plugin import paths
from kestrel.plugin.errors import WorkerCancelled, WorkerError
from kestrel.plugin.warm import WarmPool
from kestrel.plugin.worker import run_job
from kestrel.tests.support import jobs, rasters
from kestrel.tests.support.worker_tools import LAUNCH_TOY, Feedback, children_with, wait_until

pytestmark = pytest.mark.qgis

#: Values as they are, 0..255 to 0..1: percentiles of so small a scene would stretch its noise.
PLAIN = {"scale_mode": "db", "scale_min": 0, "scale_max": 255}
SHIPS = [(50, 60, 70, 66), (200, 100, 230, 110)]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    home = tmp_path_factory.mktemp("home")
    patch.setenv("KESTREL_HOME", str(home))
    patch.setenv("KESTREL_PYTHON", sys.executable)
    patch.setenv("OMP_NUM_THREADS", "1")
    patch.setattr(paths, "LAUNCH", LAUNCH_TOY)
    pool = WarmPool(minutes=5)
    yield pool
    pool.shut_down()
    assert wait_until(lambda: not children_with(str(home)), 3.0)
    patch.undo()


@pytest.fixture
def detect(pool, tmp_path):
    """Run a toy on a raster through the worker: ``(image, model=, feedback=, **params)`` -> message."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def call(image, model="toy", feedback=None, bands=(1,), land=None, fields=None, **params):
        inputs = {"image": {"path": str(image), "bands": list(bands)}}
        if land is not None:
            inputs["land"] = {"path": str(land)}
        outputs = {"boxes": str(scratch / "boxes.fgb")}
        work = Job("predict", model, inputs, outputs, params, scratch=str(scratch), **(fields or {}))
        return run_job(work, feedback or Feedback(), warm=pool)

    call.scratch = scratch
    return call


def boxes(message):
    """Return (N, 4) pixel boxes x1, y1, x2, y2, sorted."""
    found = jobs.read(message["outputs"]["boxes"])
    half_w, half_h = found["w_px"] / 2, found["h_px"] / 2
    corners = [found["x_px"] - half_w, found["y_px"] - half_h, found["x_px"] + half_w, found["y_px"] + half_h]
    return sorted(tuple(round(float(value), 3) for value in row) for row in np.column_stack(corners))


def refused(detect, image, *words, **more):
    with pytest.raises(WorkerError) as caught:
        detect(image, **more)
    error = caught.value
    assert error.code not in ("internal", "crash", "garbage", "hung"), error.text()
    assert "\n" not in error.message
    for word in words:
        assert word in error.message, error.message
    assert not list(detect.scratch.glob("*.fgb")), "an output was left"
    return error


@pytest.fixture
def scene(tmp_path):
    return rasters.write(tmp_path / "scene ü.tif", rasters.sea(300, 400, SHIPS))


def test_smoke_the_toy_finds_its_ships_through_the_worker(detect, scene):
    message = detect(scene)
    assert boxes(message) == [tuple(map(float, ship)) for ship in sorted(SHIPS)]
    assert message["figures"]["count"] == 2


def tiled(path, image, **profile):
    return rasters.write(path, image, tiled=True, blockxsize=64, blockysize=64, compress="deflate", **profile)


def test_fault_01_truncated_geotiff_names_file_and_place(detect, tmp_path):
    path = tiled(tmp_path / "cut.tif", rasters.sea(512, 512, SHIPS))
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) * 6 // 10)
    error = refused(detect, path, "cut.tif", "rows", "columns")
    assert error.code == "input"


def test_fault_02_corrupt_compressed_tile(detect, tmp_path):
    path = tiled(tmp_path / "bad.tif", rasters.sea(512, 512, SHIPS))
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(size // 2)
        file.write(b"\x55" * 4000)
    refused(detect, path, "bad.tif")


def test_fault_03_what_is_no_raster(detect, tmp_path):
    empty = tmp_path / "empty.tif"
    empty.write_bytes(b"")
    text = tmp_path / "text.tif"
    text.write_text("dear reader\n" * 100)
    archive = tmp_path / "archive.tif"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "x")
    for path in (empty, text, archive, tmp_path / "missing.tif", tmp_path):
        refused(detect, path, path.name)
    refused(detect, "/vsicurl/https://example.org/a.tif", "/vsicurl/")


VRT = (
    '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    '<SourceFilename relativeToVRT="1">{source}</SourceFilename><SourceBand>1</SourceBand>'
    "</SimpleSource></VRTRasterBand></VRTDataset>"
)


def test_fault_04_vrt_with_missing_source_loop_or_source_outside(detect, tmp_path):
    folder = tmp_path / "vrt"
    folder.mkdir()
    rasters.write(tmp_path / "outside.tif", rasters.sea(64, 64, []))
    for name, source, word in (
        ("missing.vrt", "nothing.tif", "nothing.tif"),
        ("loop.vrt", "loop.vrt", "loop.vrt"),
        ("outside.vrt", "../outside.tif", "outside the folder"),
    ):
        (folder / name).write_text(VRT.format(source=source))
        refused(detect, folder / name, word)


def test_fault_05_sparse_bomb_is_refused_at_once_and_an_area_of_interest_makes_it_possible(detect, tmp_path):
    path = tmp_path / "bomb.tif"
    profile = {"driver": "GTiff", "width": 400_000, "height": 400_000, "count": 1, "dtype": "uint8"}
    place = {"crs": rasters.UTM, "transform": rasters.PLACES["north_up"][1]}
    tiles = {"tiled": True, "blockxsize": 1024, "blockysize": 1024, "sparse_ok": True, "bigtiff": "yes"}
    with rasterio.open(path, "w", **profile, **place, **tiles) as target:
        window = rasterio.windows.Window(1024, 1024, 1024, 1024)
        target.write(rasters.sea(1024, 1024, [(100, 100, 130, 110)])[None], window=window)
    started = time.monotonic()
    refused(detect, path, "400000")
    assert time.monotonic() - started < 5
    x, y = rasters.ORIGIN[0] + 10_240, rasters.ORIGIN[1] - 10_240
    fields = {"extent": [x, y - 5_000, x + 5_000, y], "crs_wkt": rasters.UTM.to_wkt()}
    started = time.monotonic()
    message = detect(path, fields=fields)
    assert time.monotonic() - started < 10
    assert boxes(message) == [(1124.0, 1124.0, 1154.0, 1134.0)]


@pytest.mark.parametrize("shape", [(1, 97), (97, 1), (30, 30), (61, 67), (64, 64), (65, 65), (113, 1)])
def test_fault_06_small_and_odd_sizes(detect, tmp_path, shape):
    image = rasters.sea(*shape, [])
    ship = None
    if min(shape) >= 30:
        ship = (5, 7, 15, 12)
        image[ship[1] : ship[3], ship[0] : ship[2]] = 220
    message = detect(rasters.write(tmp_path / "small.tif", image))
    assert boxes(message) == ([tuple(map(float, ship))] if ship else [])


def test_fault_07_fully_nodata_and_nearly(detect, tmp_path):
    # the paper's specification refuses both, section 10
    refused(detect, rasters.write(tmp_path / "no.tif", np.zeros((300, 300), np.uint8), nodata=0), "nodata")
    refused(detect, rasters.write(tmp_path / "one.tif", np.full((1, 1), 7, np.uint8)), "value 7")
    image = np.zeros((400, 400), np.uint8)
    image[100:130, 100:130] = rasters.sea(30, 30, [(8, 9, 18, 14)])
    feedback = Feedback()
    message = detect(rasters.write(tmp_path / "few.tif", image, nodata=0), feedback=feedback)
    assert boxes(message) == [(108.0, 109.0, 118.0, 114.0)]
    assert message["figures"]["tiles_run"] < message["figures"]["tiles_total"] / 10
    assert len(set(feedback.progress)) > 3


@pytest.mark.parametrize("nodata", [float("nan"), 0, 255, -9999])
def test_fault_08_nodata_values(detect, tmp_path, nodata):
    image = rasters.sea(200, 200, [(120, 120, 140, 126)]).astype(np.float32)
    image[:100] = nodata
    message = detect(rasters.write(tmp_path / "nodata.tif", image, nodata=nodata), **PLAIN)
    assert boxes(message) == [(120.0, 120.0, 140.0, 126.0)]
    assert message["figures"]["invalid_pixels"] == 100 * 200


def test_fault_08_impossible_nodata_and_mask_and_alpha(detect, tmp_path):
    image = rasters.sea(200, 200, [(120, 120, 140, 126)])
    path = rasters.write(tmp_path / "mask.tif", image)
    mask = np.full((200, 200), 255, np.uint8)
    mask[:100] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as target:
        target.write_mask(mask)
    assert os.path.exists(f"{path}.msk")
    message = detect(path)
    assert message["figures"]["invalid_pixels"] == 100 * 200
    alpha = rasters.write(
        tmp_path / "alpha.tif", np.stack([image, mask]), alpha="yes", photometric="minisblack"
    )
    assert detect(alpha)["figures"]["invalid_pixels"] == 100 * 200


def test_fault_09_nan_inf_and_huge_pixels_without_nodata(detect, tmp_path):
    image = rasters.sea(200, 200, [(120, 120, 140, 126)]).astype(np.float32)
    image[10, 10:20], image[20, 10:20], image[30, 10:20] = np.nan, np.inf, 1e38
    message = detect(rasters.write(tmp_path / "odd.tif", image), **PLAIN)
    assert boxes(message) == [(120.0, 120.0, 140.0, 126.0)]
    assert message["figures"]["invalid_pixels"] == 30


def test_fault_10_a_band_that_is_not_there(detect, scene):
    refused(detect, scene, "band", bands=(3,))


@pytest.mark.parametrize("dtype", ["int8", "uint16", "uint32", "int16", "float32", "float64"])
def test_fault_11_data_types(detect, tmp_path, dtype):
    image = rasters.sea(200, 200, [(120, 120, 140, 126)])
    image = (image // 2).astype(dtype) if dtype == "int8" else image.astype(dtype)
    message = detect(rasters.write(tmp_path / "t.tif", image), **{**PLAIN, "scale_max": float(image.max())})
    assert boxes(message) == [(120.0, 120.0, 140.0, 126.0)]


def test_fault_11_complex_is_refused_and_a_palette_is_told(detect, tmp_path):
    refused(detect, rasters.write(tmp_path / "c.tif", np.ones((64, 64), np.complex64)), "Complex SAR data")
    path = rasters.write(tmp_path / "p.tif", rasters.sea(64, 64, []), photometric="palette")
    with rasterio.open(path, "r+") as target:
        target.write_colormap(1, {value: (value, 0, 0, 255) for value in range(256)})
    feedback = Feedback()
    detect(path, feedback=feedback)
    assert any("colour table" in text for text in feedback.warnings)


@pytest.mark.parametrize("place", ["no_crs", "bare"])
def test_fault_12_no_crs_keeps_pixels_and_leaves_metres_empty(detect, tmp_path, place):
    feedback = Feedback()
    message = detect(
        rasters.write(tmp_path / "n.tif", rasters.sea(200, 200, SHIPS[:1]), place), feedback=feedback
    )
    found = jobs.read(message["outputs"]["boxes"])
    assert boxes(message) == [tuple(map(float, SHIPS[0]))]
    assert np.isnan(found["long_m"]).all()
    assert any("CRS" in text for text in feedback.warnings)


def test_fault_13_degrees_are_measured_in_metres(detect, tmp_path):
    message = detect(rasters.write(tmp_path / "d.tif", rasters.sea(200, 200, SHIPS[:1]), "degrees"))
    found = jobs.read(message["outputs"]["boxes"])
    per_lon, _ = rasters.metres_per_degree(45.0)
    assert found["long_m"][0] == pytest.approx(20 * 1e-4 * per_lon, rel=0.01)


@pytest.mark.parametrize("place", ["rotated", "sheared", "south_up", "oblong", "north_up"])
def test_fault_14_polygons_follow_the_full_affine(detect, tmp_path, place):
    message = detect(rasters.write(tmp_path / "g.tif", rasters.sea(200, 200, SHIPS[:1]), place))
    [polygon] = jobs.read(message["outputs"]["boxes"])["polygon"]
    wanted = shapely.Polygon(rasters.corners(SHIPS[0], rasters.PLACES[place][1]))
    assert shapely.area(shapely.symmetric_difference(polygon, wanted)) < 1e-6 * wanted.area


def test_fault_15_control_points_only(detect, tmp_path):
    image = rasters.sea(200, 200, SHIPS[:1])
    message = detect(rasters.write_gcps(tmp_path / "gcp.tif", image, rasters.gcps(200, 200)))
    found = jobs.read(message["outputs"]["boxes"])
    assert boxes(message) == [tuple(map(float, SHIPS[0]))]
    assert found["lon"][0] == pytest.approx(15.0, abs=0.05)
    assert found["long_m"][0] == pytest.approx(200, rel=0.02)


def aoi(scene, wkt, crs=rasters.UTM):
    return {"aoi_wkt": wkt, "crs_wkt": crs.to_wkt()}


def pixel_polygon(*points):
    transform = rasters.PLACES["north_up"][1]
    return shapely.Polygon([transform * point for point in points])


def test_fault_17_area_of_interest(detect, scene):
    from pyproj import Transformer

    left = pixel_polygon((0, 0), (150, 0), (150, 300), (0, 300))
    first = [tuple(map(float, SHIPS[0]))]
    assert boxes(detect(scene, fields=aoi(scene, left.wkt))) == first
    # another CRS
    turn = Transformer.from_crs(rasters.UTM, rasters.WGS84, always_xy=True).transform
    degrees = shapely.transform(left, lambda xy: np.column_stack(turn(xy[:, 0], xy[:, 1])))
    assert boxes(detect(scene, fields=aoi(scene, degrees.wkt, rasters.WGS84))) == first
    # a bow-tie, made valid: both triangles count
    bow = pixel_polygon((40, 40), (80, 90), (80, 40), (40, 90))
    assert len(boxes(detect(scene, fields=aoi(scene, bow.wkt)))) <= 1
    # a hole around the first ship
    holed = shapely.difference(left, pixel_polygon((40, 50), (80, 50), (80, 80), (40, 80)))
    assert boxes(detect(scene, fields=aoi(scene, holed.wkt))) == []
    outside = shapely.transform(left, lambda xy: xy + 1e5)
    refused(detect, scene, "does not overlap", fields=aoi(scene, outside.wkt))
    refused(detect, scene, "AOI", fields=aoi(scene, "POLYGON EMPTY"))


@pytest.mark.parametrize("when", ["start", "opening", "tiles"])
def test_fault_21_cancel_is_back_within_2_s_without_output_and_a_rerun_works(detect, scene, when):
    feedback = Feedback(cancel_at_stage=when)
    with pytest.raises(WorkerCancelled):
        detect(scene, model="toy_slow", feedback=feedback)
    assert time.monotonic() - feedback.cancelled_at < 2.0
    assert not list(detect.scratch.glob("*.fgb"))
    assert detect(scene)["figures"]["count"] == 2


def test_fault_23_weights_that_are_none(detect, scene, tmp_path):
    import pickle

    pytest.importorskip("torch")
    bad = tmp_path / "weights.safetensors"
    for content in (
        b"",
        pickle.dumps({"a": 1}),
        (2**62).to_bytes(8, "little") + b"{}",
        b"\x02" + bytes(7) + b"{}",
    ):
        bad.write_bytes(content)
        error = refused(detect, scene, "weights.safetensors", model="sar_ships", weights=str(bad))
        assert error.code == "model"
    refused(
        detect, scene, "nowhere.safetensors", model="sar_ships", weights=str(tmp_path / "nowhere.safetensors")
    )


def test_fault_24_input_modified_during_the_run(detect, tmp_path):
    scene = rasters.write(tmp_path / "small.tif", rasters.sea(100, 100, []))

    class Meddler(Feedback):
        def setProgressText(self, text):
            super().setProgressText(text)
            if text.startswith("tiles") and not self.infos.count("touched"):
                self.infos.append("touched")
                other = scene.with_name("other.tif")
                shutil.copy(scene, other)
                os.replace(other, scene)

    with pytest.raises(WorkerError, match=r"changed|modified"):
        detect(scene, model="toy_slow", feedback=Meddler())
    assert not list(detect.scratch.glob("*.fgb"))


def test_fault_24_two_runs_at_once_have_workers_of_their_own(detect, scene, tmp_path, pool):
    answers = {}

    def work(name):
        scratch = tmp_path / name
        scratch.mkdir()
        inputs = {"image": {"path": str(scene), "bands": [1]}}
        job = Job("predict", "toy", inputs, {"boxes": str(scratch / "b.fgb")}, {}, scratch=str(scratch))
        answers[name] = boxes(run_job(job, Feedback(), warm=pool))

    threads = [threading.Thread(target=work, args=(f"run{number}",)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers["run0"] == answers["run1"] == sorted(tuple(map(float, ship)) for ship in SHIPS)


def test_fault_25_crash_inside_a_model_and_the_next_run_works(detect, scene):
    with pytest.raises(WorkerError, match="SIGSEGV"):
        detect(scene, model="toy_crash")
    assert detect(scene)["figures"]["count"] == 2


def test_a_models_refusal_arrives_in_its_own_words(detect, scene):
    error = refused(detect, scene, "This toy refuses.", model="toy_refuse")
    assert error.hint == "Take another."
