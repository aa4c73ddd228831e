"""Faults 1-5, 10, 11, 15-18, 20, 23 and 24 of ENGINE.md, section 7, as they concern rasters: refusals.

E = one sentence with a hint, before any output: the folder is as it was.
"""

import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import rasterio
from kestrel.engine.errors import EngineError
from kestrel.engine.run import run_job
from kestrel.tests.support import raster_faults, rasters
from kestrel.tests.support import raster_toys as toys
from kestrel.tests.support.jobs import Recorder
from kestrel.tests.support.raster_faults import hazy, refusal

posix = pytest.mark.skipif(os.name == "nt", reason="links and users as POSIX has them")


@pytest.fixture
def noise():
    """Noise does not compress, so a file's bytes lie where its pixels do."""
    return np.random.default_rng(0).integers(1, 255, (3, 512, 512), dtype=np.uint8)


@pytest.fixture
def scene(tmp_path):
    return rasters.write(tmp_path / "scene ü.tif", hazy(100, 120))


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_fault_01_truncated_geotiff(tmp_path, noise, interleave):
    path = rasters.write(
        tmp_path / "cut.tif", noise, tiled=True, blockxsize=64, blockysize=64, interleave=interleave
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    error = refusal(r"cut\.tif cannot be read at rows \d+-\d+, col", path, tmp_path)
    assert "of bands 1, 2, 3" in error.message
    assert "% of the tiles were done)." in error.message
    assert "truncated or damaged" in error.hint


@pytest.mark.parametrize("threads", [True, False])
def test_fault_01_damage_found_late_leaves_nothing_either(tmp_path, threads):
    """A tile that the statistics' lattice does not meet: the tile loop finds it, while the writer is open."""
    packed = rasters.write(
        tmp_path / "b.tif", hazy(2048, 2048), tiled=True, blockxsize=64, blockysize=64, compress="deflate"
    )
    with rasterio.open(packed) as dataset:
        offset, size = (
            int(dataset.get_tag_item(f"BLOCK_{what}_17_30", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")
        )
    data = bytearray(packed.read_bytes())
    data[offset : offset + size] = bytes(size)
    packed.write_bytes(data)
    (tmp_path / "out.tif").write_bytes(b"precious")
    before = raster_faults.listing(tmp_path)
    job = toys.job(packed, {"raster": tmp_path / "out.tif"}, tile=256)
    with pytest.raises(EngineError, match=r"b\.tif cannot be read at rows") as caught:
        run_job(job, Recorder(), toys.builder(), threads)
    percent = int(caught.value.message.split("(")[-1].split(" %")[0])
    assert percent > 30
    assert raster_faults.listing(tmp_path) == before


@pytest.mark.parametrize("compress", ["deflate", "lzw", "jpeg"])
def test_fault_02_corrupt_compressed_tile(tmp_path, noise, compress):
    path = rasters.write(
        tmp_path / "bad.tif", noise, tiled=True, blockxsize=64, blockysize=64, compress=compress
    )
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 6000] = bytes(6000)
    path.write_bytes(data)
    refusal(r"bad\.tif cannot be read at rows", path, tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"hello, I am text\n" * 9, "cannot be opened as a raster"),
     (b"PK\x03\x04" + bytes(200), "cannot be opened as a raster")],
)  # fmt: skip
def test_fault_03_not_a_raster(tmp_path, content, words):
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    refusal(words, path, tmp_path)


def test_fault_03_missing_or_a_folder(tmp_path):
    refusal("does not exist", tmp_path / "none.tif", tmp_path)
    (tmp_path / "folder.tif").mkdir()
    refusal("is a folder", tmp_path / "folder.tif", tmp_path)


def vrt(path, source, relative=1):
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="{relative}">{source}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    path.write_text(f'<VRTDataset rasterXSize="120" rasterYSize="100">{bands}</VRTDataset>')
    return path


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
class TestFault04Vrt:
    def test_a_good_one_works(self, tmp_path, scene):
        _, out = toys.run(vrt(tmp_path / "a.vrt", scene.name), tmp_path / "out.tif")
        assert np.array_equal(out, hazy(100, 120))

    def test_missing_source(self, tmp_path):
        refusal(r"gone\.tif, which does not exist", vrt(tmp_path / "a.vrt", "gone.tif"), tmp_path)

    def test_loop(self, tmp_path):
        vrt(tmp_path / "b.vrt", "a.vrt")
        path = vrt(tmp_path / "a.vrt", "b.vrt")
        refusal(r"refers to itself: a\.vrt -> b\.vrt -> a\.vrt", path, tmp_path)

    @pytest.mark.parametrize("relative", [0, 1])
    def test_outside_its_folder(self, tmp_path, scene, relative):
        (tmp_path / "sub").mkdir()
        source = f"../{scene.name}" if relative else scene
        refusal("outside the folder", vrt(tmp_path / "sub" / "a.vrt", source, relative), tmp_path)

    def test_a_damaged_source_is_found(self, tmp_path, noise):
        source = rasters.write(tmp_path / "a.tif", noise)
        source.write_bytes(source.read_bytes()[:100_000])
        refusal("cannot be read at rows", vrt(tmp_path / "a.vrt", "a.tif"), tmp_path)

    def test_output_over_a_source(self, tmp_path, scene):
        path = vrt(tmp_path / "a.vrt", scene.name)
        refusal("is also an input", path, tmp_path, scene.name)


@pytest.fixture
def bomb(tmp_path):
    """400 000 x 400 000 x 3 with 256 x 256 valid pixels: 480 GB, a file of some MB."""
    path = tmp_path / "bomb.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=400_000, width=400_000, dtype="uint8", tiled=True,
        blockxsize=4096, blockysize=4096, sparse_ok=True, bigtiff="yes", compress="deflate", nodata=0,
        crs=rasters.UTM, transform=rasters.PLACES["north_up"][1],
    ) as dataset:  # fmt: skip
        dataset.write(hazy(256, 256), window=rasterio.windows.Window(200_000, 200_000, 256, 256))
    return path


@pytest.mark.parametrize("fields", [{}, {"cog": True}])
def test_fault_05_sparse_bomb_is_refused_before_anything_is_read(tmp_path, bomb, monkeypatch, fields):
    from kestrel.engine import raster_prepare

    def read(*_):
        raise AssertionError("statistics were taken of it")

    monkeypatch.setattr(raster_prepare, "band_statistics", read)
    monkeypatch.setattr(
        "kestrel.engine.output_checks.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 10**11)
    )
    error = refusal(r"bomb\.tif may need [\d.]+ GB, but .* has 100\.0 GB free", bomb, tmp_path, **fields)
    assert "EXTENT or AOI" in error.hint


def test_fault_05_an_area_makes_the_bomb_possible(tmp_path, bomb):
    x, y = rasters.PLACES["north_up"][1] * (200_000, 200_000)
    extent = [x, y - 2560, x + 2560, y]
    outcome, out = toys.run(bomb, tmp_path / "out.tif", extent=extent, crs_wkt="EPSG:32633")
    assert np.array_equal(out, hazy(256, 256))
    assert outcome.figures["tiles_run"] <= 7 * 7


def test_fault_10_too_few_bands(tmp_path):
    for count in (1, 2):
        path = rasters.write(tmp_path / f"{count}.tif", hazy(64, 64, bands=count))
        refusal(rf"{count}\.tif has {count} bands?; dehazing needs three visible bands", path, tmp_path)
    path = rasters.write(tmp_path / "la.tif", hazy(64, 64), photometric="minisblack", alpha="yes")
    refusal("has 2 bands besides alpha", path, tmp_path)


@pytest.mark.parametrize(
    ("bands", "words"),
    [([1, 2], "BANDS holds 2 numbers"), ([1, 2, 9], "no band 9"),
     ([1, 2, 2], "names a band twice"), ([1, 2, 3, 4], "BANDS holds 4 numbers")],
)  # fmt: skip
def test_fault_10_bands_that_do_not_fit(tmp_path, bands, words):
    path = rasters.write(tmp_path / "a.tif", hazy(64, 64, bands=5))
    refusal(words, path, tmp_path, bands=bands)


def test_fault_10_sar(tmp_path):
    path = rasters.write(tmp_path / "named.tif", hazy(64, 64))
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("VV", "VH", "VV/VH")
    refusal("Band 1 of named.tif is SAR by its name", path, tmp_path)
    decibels = -22 + hazy(64, 64, "float32") / 20
    path = rasters.write(tmp_path / "db.tif", decibels)
    refusal("look like SAR in decibels", path, tmp_path)


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
def test_fault_11_complex_is_refused(tmp_path, dtype):
    path = rasters.write(tmp_path / "a.tif", hazy(64, 64).astype("complex64"), dtype=dtype)
    refusal("^Complex SAR data: convert to amplitude or intensity first.$", path, tmp_path)


def test_fault_11_palette_is_refused(tmp_path):
    path = rasters.write(tmp_path / "p.tif", hazy(64, 64, bands=1))
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (i, 0, 0, 255) for i in range(256)})
    refusal("has a colour table", path, tmp_path)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_fault_11_constant_band(tmp_path, dtype):
    image = hazy(100, 100, dtype)
    image[1] = 7
    path = rasters.write(tmp_path / "a.tif", image)
    refusal(r"Band 2 of a\.tif is constant \(all valid pixels are 7\)", path, tmp_path)


def test_fault_15_control_points_or_rpc_only(tmp_path):
    path = tmp_path / "gcp.tif"
    with rasterio.open(path, "w", driver="GTiff", count=3, height=64, width=64, dtype="uint8") as dataset:
        dataset.write(hazy(64, 64))
        dataset.gcps = (rasters.gcps(64, 64), rasters.WGS84)
    error = refusal(r"gcp\.tif is georeferenced by GCPs alone", path, tmp_path)
    assert "Warp it first" in error.hint
    from rasterio.rpc import RPC

    path = tmp_path / "rpc.tif"
    line = [0.0, 1.0] + [0.0] * 18
    one = [1.0] + [0.0] * 19
    rpc = RPC(
        height_off=0, height_scale=500, lat_off=45, lat_scale=0.1, line_den_coeff=one, line_num_coeff=line,
        line_off=32, line_scale=32, long_off=15, long_scale=0.1, samp_den_coeff=one,
        samp_num_coeff=[0.0, 0.0, 1.0] + [0.0] * 17, samp_off=32, samp_scale=32,
    )  # fmt: skip
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=64, width=64, dtype="uint8", rpcs=rpc
    ) as dataset:
        dataset.write(hazy(64, 64))
    error = refusal(r"rpc\.tif is georeferenced by RPCs alone", path, tmp_path)
    assert "Warp it first" in error.hint


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"tile": 256, "overlap": 256}, "OVERLAP"), ({"tile": 256, "overlap": 4000}, "OVERLAP"),
     ({"tile": 64}, "TILE 64 is too small"), ({"tile": -1}, "TILE"), ({"other_bands": "keep"}, "OTHER_BANDS"),
     ({"strength": 2}, "STRENGTH"), ({"patch": 14}, "PATCH"), ({"omega": 1.5}, "OMEGA"),
     ({"stretch_min": [9], "stretch_max": [9]}, "STRETCH_MIN 9 must be below"),
     ({"stretch_min": [1, 2], "stretch_max": [9]}, "STRETCH_M")],
)  # fmt: skip
def test_exception_parameters(tmp_path, scene, fields, words):
    refusal(words, scene, tmp_path, **fields)


def pixels(*points):
    """Return WKT of a polygon through pixel corners of a north-up raster."""
    transform = rasters.PLACES["north_up"][1]
    return ", ".join(f"{x} {y}" for x, y in (transform * p for p in (*points, points[0])))


class TestFault17Area:
    def test_disjoint_or_no_polygon(self, tmp_path, scene):
        x, y = rasters.ORIGIN
        far = {"extent": [x + 1e5, y, x + 1.1e5, y + 1e4], "crs_wkt": "EPSG:32633"}
        refusal("EXTENT does not overlap", scene, tmp_path, **far)
        wkt = f"POLYGON(({pixels((500, 0), (600, 0), (600, 50))}))"
        refusal("AOI does not overlap", scene, tmp_path, aoi_wkt=wkt, crs_wkt="EPSG:32633")
        refusal("AOI holds no polygon", scene, tmp_path, aoi_wkt="POLYGON EMPTY")
        refusal("AOI is not a geometry", scene, tmp_path, aoi_wkt="POLYGON((")
        other = {"extent": [x, y - 100, x + 100, y], "crs_wkt": "EPSG:32633", "aoi_wkt": wkt}
        refusal("AOI does not overlap", scene, tmp_path, **other)

    def changed(self, tmp_path, scene, wkt, crs="EPSG:32633"):
        """Return bool (100, 120): which pixels of the raster the run has changed; its output must fit."""
        out = tmp_path / "out.tif"
        make = toys.builder(toys.constant)
        _, after = toys.run(scene, out, make, aoi_wkt=wkt, crs_wkt=crs)
        with rasterio.open(out) as dataset, rasterio.open(scene) as source:
            col, row = ~source.transform * (dataset.transform.c, dataset.transform.f)
            before = source.read()
        row, col = round(row), round(col)
        found = np.zeros(before.shape[1:], bool)
        area = np.s_[row : row + after.shape[1], col : col + after.shape[2]]
        found[area] = (after != before[(slice(None), *area)]).any(axis=0)
        return found

    def test_a_hole_stays(self, tmp_path, scene):
        outer, hole = (
            pixels((10, 10), (90, 10), (90, 80), (10, 80)),
            pixels((30, 30), (60, 30), (60, 50), (30, 50)),
        )
        found = self.changed(tmp_path, scene, f"POLYGON(({outer}), ({hole}))")
        expected = np.zeros((100, 120), bool)
        expected[10:80, 10:90] = True
        expected[30:50, 30:60] = False
        assert not found[~expected].any()
        assert found[expected].mean() > 0.95  # 0.75 of the stretch is some pixels' own value

    def test_a_bow_tie_is_both_triangles(self, tmp_path, scene):
        found = self.changed(tmp_path, scene, f"POLYGON(({pixels((20, 20), (80, 80), (80, 20), (20, 80))}))")
        assert found[50, 22:40].all()
        assert found[50, 62:79].all()
        assert not found[22:40, 50].any()
        assert not found[62:79, 50].any()

    def test_another_crs(self, tmp_path, scene):
        from pyproj import Transformer

        turn = Transformer.from_crs(32633, 4326, always_xy=True).transform
        corners = [(20, 20), (80, 20), (80, 60), (20, 60)]
        ring = [turn(*(rasters.PLACES["north_up"][1] * p)) for p in (*corners, corners[0])]
        wkt = "POLYGON((" + ", ".join(f"{x:.12f} {y:.12f}" for x, y in ring) + "))"
        found = self.changed(tmp_path, scene, wkt, "EPSG:4326")
        assert found[21:59, 21:79].mean() > 0.95
        found[19:61, 19:81] = False
        assert not found.any()


class TestFault18Output:
    def test_output_is_the_input(self, tmp_path, scene):
        refusal("is also an input", scene, tmp_path, scene.name)

    @posix
    @pytest.mark.parametrize("how", ["symbolic", "hard", "input"])
    def test_by_a_link(self, tmp_path, scene, how):
        link = tmp_path / "link.tif"
        os.link(scene, link) if how == "hard" else link.symlink_to(scene)
        if how == "input":
            refusal("is also an input", link, tmp_path, scene.name)
        else:
            refusal("is also an input", scene, tmp_path, link.name)

    def test_by_letter_case(self, tmp_path):
        path = rasters.write(tmp_path / "scene.tif", hazy(64, 64))
        if not (tmp_path / "SCENE.TIF").exists():
            pytest.skip("this file system tells letter cases apart")
        refusal("is also an input", path, tmp_path, "SCENE.TIF")

    def test_haze_or_report_over_the_input(self, tmp_path, scene):
        before = raster_faults.listing(tmp_path)
        for name in ("haze", "report"):
            with pytest.raises(EngineError, match="is also an input"):
                raster_faults.restore(scene, {"raster": tmp_path / "out.tif", name: scene})
        with pytest.raises(EngineError, match="Two outputs"):
            raster_faults.restore(scene, {"raster": tmp_path / "out.tif", "haze": tmp_path / "out.tif"})
        assert raster_faults.listing(tmp_path) == before

    def test_folder_that_is_not_there(self, tmp_path, scene):
        refusal("does not exist", scene, tmp_path, "nowhere/out.tif")
        (tmp_path / "folder.tif").mkdir()
        refusal("is a folder, not a file", scene, tmp_path, "folder.tif")

    @posix
    def test_unwritable_folder(self, tmp_path, scene):
        """As another user where the tests are root's: to root every folder is writable."""
        folder = tmp_path / "closed"
        folder.mkdir()
        folder.chmod(0o555)
        code = (
            "import sys, os, runpy\n"
            "runpy.run_path(sys.argv[3])\n"
            "from kestrel.tests.support import raster_faults\n"
            "from kestrel.engine.errors import EngineError\n"
            "from pathlib import Path\n"
            "source, target = Path(sys.argv[1]), Path(sys.argv[2])\n"
            "import kestrel.engine.raster_run, kestrel.models.classical.dark_channel\n"
            "if os.geteuid() == 0:\n"
            "    os.setgid(65534); os.setuid(65534)\n"
            "try:\n"
            "    raster_faults.restore(source, {'raster': target})\n"
            "except EngineError as error:\n"
            "    print(error.message)\n"
        )
        for parent in (tmp_path, *tmp_path.parents):
            if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o055)
        scene.chmod(0o644)
        done = subprocess.run(
            [sys.executable, "-c", code, scene, folder / "out.tif", raster_faults.CONFTEST],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "cannot be written: permission denied." in done.stdout, done.stderr
        assert list(folder.iterdir()) == []

    @pytest.mark.parametrize("name", ["höhe über NN.tif", "a b.tif", "x" * 251 + ".tif"])
    def test_names_that_work(self, tmp_path, scene, name):
        _, out = toys.run(scene, tmp_path / name)
        assert np.array_equal(out, hazy(100, 120))

    def test_a_name_too_long(self, tmp_path, scene):
        refusal("cannot be written: file name too long", scene, tmp_path, "x" * 300 + ".tif")


@pytest.mark.parametrize("change", ["grows", "touched", "removed"])
@pytest.mark.parametrize("threads", [True, False])
def test_fault_24_input_modified_during_the_run(tmp_path, scene, change, threads):
    (tmp_path / "out.tif").write_bytes(b"precious")

    def answer(image):
        if change == "grows":
            with scene.open("ab") as stream:
                stream.write(b"more")
        elif change == "touched":
            os.utime(scene, ns=(1, 1))
        else:
            scene.unlink(missing_ok=True)
        return image

    job = toys.job(scene, {"raster": tmp_path / "out.tif"})
    with pytest.raises(EngineError, match=r"was changed while it was being read") as caught:
        run_job(job, Recorder(), toys.builder(answer), threads)
    assert caught.value.hint
    assert (tmp_path / "out.tif").read_bytes() == b"precious"
    assert {p.name for p in tmp_path.iterdir()} <= {"out.tif", scene.name}


def test_fault_24_two_runs_to_one_output(tmp_path, scene):
    inside, leave = threading.Event(), threading.Event()
    results = []

    def answer(image):
        inside.set()
        leave.wait(20)
        return image

    def first():
        results.append(toys.run(scene, tmp_path / "out.tif", toys.builder(answer))[1])

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(20)
    try:
        refusal(r"Another run is writing .*out\.tif", scene, tmp_path, make=toys.builder())
        _, other = toys.run(scene, tmp_path / "other.tif")
    finally:
        leave.set()
        thread.join()
    assert np.array_equal(results[0], other)
    assert np.array_equal(other, hazy(100, 120))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.tif", "out.tif", scene.name]


@pytest.mark.parametrize("most", [1, 3])
def test_fault_20_the_batch_halves(tmp_path, scene, most):
    sizes = []

    def build(*arguments):
        def predict(images):
            sizes.append(len(images))
            if len(images) > most:
                raise MemoryError
            return [toys.convolved(image) for image in images]

        return toys.build(*arguments, predict=predict, margin=1)

    _, free = toys.run(scene, tmp_path / "free.tif", toys.builder(toys.convolved, margin=1), batch=1)
    outcome, out = toys.run(scene, tmp_path / "out.tif", build, batch=8)
    np.testing.assert_allclose(out.astype(float), free, atol=1e-5)
    assert sizes[0] == 6  # of the first row: 3 x 2 tiles in all
    assert outcome.figures["params_used"]["batch"] <= most
    assert any("Not enough memory for" in text for text in outcome.warnings)


def small_memory(side, answer=toys.convolved, **changes):
    """A builder whose model has no memory for tiles above ``side``."""

    def build(*arguments):
        def predict(images):
            if images.shape[-1] > side:
                raise MemoryError
            return [answer(image) for image in images]

        return toys.build(*arguments, predict=predict, margin=1, **changes)

    return build


def test_fault_20_the_tile_halves_and_the_result_is_the_same(tmp_path):
    path = rasters.write(tmp_path / "a.tif", hazy(300, 280, "float32"))
    fields = {"stretch_min": [0], "stretch_max": [255], "overlap": 16}
    _, free = toys.run(
        path, tmp_path / "free.tif", toys.builder(toys.convolved, margin=1), tile=256, **fields
    )
    outcome, out = toys.run(path, tmp_path / "out.tif", small_memory(64), tile=256, **fields)
    np.testing.assert_allclose(out / 255, free / 255, atol=1e-5)
    assert outcome.figures["params_used"]["tile"] == 64
    assert sum("starting again with tiles of" in text for text in outcome.warnings) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "free.tif", "out.tif"]


def test_fault_20_without_a_smaller_tile_it_is_one_sentence(tmp_path, scene):
    (tmp_path / "out.tif").write_bytes(b"precious")
    stubborn = {"make": small_memory(8, shrinkable=False)}
    error = refusal("There is not enough memory on cpu for one tile of 64 x 64", scene, tmp_path, **stubborn)
    assert error.code == "memory"
    error = refusal("not enough memory for one tile", scene, tmp_path, make=small_memory(0))
    assert error.code == "memory"


def test_fault_20_a_typed_overlap_gives_way_to_the_halved_tile(tmp_path):
    path = rasters.write(tmp_path / "a.tif", hazy(300, 280, "float32"))
    fields = {"stretch_min": [0], "stretch_max": [255], "overlap": 128, "tile": 256}
    _, free = toys.run(path, tmp_path / "free.tif", toys.builder(toys.convolved, margin=1), **fields)
    _, out = toys.run(path, tmp_path / "out.tif", small_memory(64), **fields)
    np.testing.assert_allclose(out / 255, free / 255, atol=1e-5)


@pytest.mark.parametrize("answer", ["nan", "inf", "shape", "bands"])
def test_fault_23_a_model_that_answers_nonsense(tmp_path, scene, answer):
    wrong = {
        "nan": lambda image: np.full_like(image, np.nan),
        "inf": lambda image: np.where(image > 0.5, np.float32(np.inf), image),
        "shape": lambda image: image[:, ::2],
        "bands": lambda image: image[:2],
    }[answer]
    (tmp_path / "out.tif").write_bytes(b"precious")
    before = raster_faults.listing(tmp_path)
    with pytest.raises(EngineError, match=r"no numbers|answered"):
        run_job(toys.job(scene, {"raster": tmp_path / "out.tif"}), Recorder(), toys.builder(wrong))
    assert raster_faults.listing(tmp_path) == before


@pytest.mark.parametrize("where", ["load", "finish", "prepare"])
@pytest.mark.parametrize("threads", [True, False])
def test_fault_20_no_memory_elsewhere_is_one_sentence_too(tmp_path, scene, monkeypatch, where, threads):
    from kestrel.engine import finish, tiles

    def fail(*_):
        raise MemoryError("Unable to allocate 9.31 GiB")

    changes = {}
    if where == "load":
        monkeypatch.setattr(tiles.Loader, "load", fail)
    elif where == "finish":
        monkeypatch.setattr(finish.Restored, "finish", fail)
    else:
        changes = {"prepare": fail, "shrinkable": False}
    (tmp_path / "out.tif").write_bytes(b"precious")
    before, alive = raster_faults.listing(tmp_path), set(threading.enumerate())
    job = toys.job(scene, {"raster": tmp_path / "out.tif"})
    with pytest.raises(EngineError, match="not enough memory") as caught:
        run_job(job, Recorder(), toys.builder(**changes), threads)
    assert caught.value.code == "memory"
    assert caught.value.hint
    assert raster_faults.listing(tmp_path) == before
    assert set(threading.enumerate()) <= alive


def test_fault_24_one_model_in_two_threads(tmp_path, scene):
    def work(name):
        raster_faults.restore(scene, {"raster": tmp_path / f"{name}.tif"}, tile=256)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [(tmp_path / f"{name}.tif").read_bytes() for name in ("one", "two", "three")]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("reference", ["missing.tif", "text.tif", "far.tif", "two.tif"])
def test_fault_16_references_that_do_not_fit(tmp_path, scene, reference):
    (tmp_path / "text.tif").write_text("dear reader")
    far = rasters.write(tmp_path / "far.tif", hazy(100, 120))
    with rasterio.open(far, "r+") as dataset:
        dataset.transform = rasterio.Affine.translation(1e6, 0) * dataset.transform
    rasters.write(tmp_path / "two.tif", hazy(100, 120, bands=2))
    refusal(reference.replace(".", r"\."), scene, tmp_path, reference=tmp_path / reference)
