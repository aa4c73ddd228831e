"""Whole Jobs that look for change: mask, polygons, figures, references, and nothing left of a failure."""

import json

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from kestrel.engine import change_run
from kestrel.engine.change_reference import Confusion
from kestrel.engine.errors import Cancelled, EngineError
from kestrel.engine.polygons import Polygoniser
from kestrel.engine.run import run_job
from kestrel.models.otsu import histogram, otsu
from kestrel.tests.support import pair_toys as toys
from kestrel.tests.support import rasters
from kestrel.tests.support.jobs import Recorder
from rasterio.features import rasterize
from rasterio.warp import Resampling, calculate_default_transform, reproject
from scipy import ndimage

SIZE = 300, 290
NODATA = -9999.0
PLACE = rasters.PLACES["north_up"][1]


def blobs(before, after):
    """A probability per pixel that is no multiple of anything: the mean absolute difference, raised."""
    return np.sqrt(toys.difference(before, after))


def pair(seed=0):
    """Two dates as uint8: a smooth ground, and many objects of all shapes in the later one."""
    before = np.rint(toys.ground(*SIZE, seed=seed)).astype("uint8")
    noise = ndimage.gaussian_filter(np.random.default_rng(seed + 1).normal(size=SIZE), 2.5)
    built = noise > 1.2 * noise.std()
    return before, np.where(built, 255 - before // 2, before), built


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    before, after, _ = pair()
    return rasters.write(folder / "a.tif", before), rasters.write(folder / "b.tif", after)


def run(before, after, folder, make=None, reference=None, report=False, zones=None, **fields):
    """Run a Job; return (figures, mask, probability, polygons, their columns, events)."""
    folder.mkdir(exist_ok=True)
    places = {"mask": "m.tif", "probability": "p.tif", "polygons": "c.fgb", "report": "r.html"}
    outputs = {name: folder / file for name, file in places.items() if report or name != "report"}
    asked = toys.job(before, after, outputs, **{"threshold": 0.5, "min_area": 0, **fields})
    if reference is not None:
        asked.inputs["reference"] = {"path": str(reference), "bands": []}
    if zones is not None:
        asked.inputs["zones"] = {"path": str(zones)}
    events = Recorder()
    outcome = run_job(asked, events, make or toys.builder(blobs))
    json.dumps(outcome.figures, allow_nan=False)
    with rasterio.open(outputs["mask"]) as dataset:
        assert dataset.nodata == 255
        mask = dataset.read(1)
    with rasterio.open(outputs["probability"]) as dataset:
        assert dataset.nodata == NODATA
        probability = dataset.read(1)
    meta, _, wkb, data = pyogrio.raw.read(outputs["polygons"])
    return (
        outcome.figures,
        mask,
        probability,
        shapely.from_wkb(wkb),
        dict(zip(meta["fields"], data, strict=True)),
        events,
    )


def drawn(polygons, shape, transform=PLACE):
    """The pixels of polygons that follow pixel borders."""
    if not len(polygons):
        return np.zeros(shape, bool)
    return rasterize(polygons, out_shape=shape, transform=transform, dtype="uint8").astype(bool)


def test_smoke_all_outputs_agree(two, tmp_path):
    figures, mask, probability, polygons, columns, _ = run(
        *two, tmp_path, report=True, date_before="2012-04-30", date_after="20160131"
    )
    assert (mask == (probability >= np.float32(0.5))).all()
    assert 0 < mask.mean() < 1
    assert (drawn(polygons, mask.shape) == (mask == 1)).all()
    assert len(polygons) == ndimage.label(mask)[1] == figures["count"]  # 4-connected, as the engine's
    change = figures["change"]
    assert change["changed_pixels"] == (mask == 1).sum()
    assert change["area_m2"] == pytest.approx(columns["area_m2"].sum())
    assert sum(change["sizes"]["counts"]) == len(polygons)
    assert [each["area_m2"] for each in change["largest"]] == sorted(columns["area_m2"])[:-11:-1]
    assert set(columns["date1"]) == {"2012-04-30"}
    assert set(columns["date2"]) == {"2016-01-31"}
    assert set(columns["model"]) == {"toy@000000000000"}
    page = (tmp_path / "r.html").read_text()
    assert "the mask is never sieved" in page
    assert page.count("data:image") == 21  # sizes, and ten pairs of chips


def test_oracle_tiled_polygons_equal_untiled(two, tmp_path):
    one = run(*two, tmp_path / "one", tile=304)
    cut = run(*two, tmp_path / "cut", tile=64, overlap=16)
    assert cut[2] == pytest.approx(one[2], abs=1e-6)
    assert (cut[1] == one[1]).all()
    assert len(cut[3]) == len(one[3])
    assert shapely.equals(cut[3], one[3]).all()
    assert cut[4]["area_m2"] == pytest.approx(one[4]["area_m2"], rel=1e-9)
    assert cut[4]["p_mean"] == pytest.approx(one[4]["p_mean"], abs=1e-6)


def test_oracle_otsu_over_the_scene(two, tmp_path):
    make = toys.builder(blobs, notes={"threshold": "otsu", "min_area": 0})
    figures, mask, probability, *_ = run(*two, tmp_path, make, threshold=0)
    known = probability != NODATA
    counts = np.histogram(probability[known], bins=1024, range=(0, 1))[0]
    assert (counts == histogram(probability[known])).all()
    # by its definition: the edge where the variance between the classes is largest
    centre = (np.arange(1024) + 0.5) / 1024
    best, where = -1.0, []
    for k in range(1, 1024):
        low, high = counts[:k], counts[k:]
        if low.sum() and high.sum():
            gap = np.average(centre[:k], weights=low) - np.average(centre[k:], weights=high)
            between = float(low.sum()) * float(high.sum()) * gap**2
            where = [k] if between > best * (1 + 1e-12) else where + [k] * int(between >= best * (1 - 1e-12))
            best = max(best, between)
    assert figures["change"]["threshold"] == otsu(counts) == where[len(where) // 2] / 1024
    assert figures["change"]["threshold_source"] == "otsu"
    assert (mask == (probability >= figures["change"]["threshold"])).all()


def test_oracle_threshold_and_min_area(two, tmp_path):
    make = toys.builder(blobs, notes={"threshold": 0.6, "min_area": 2000.0})
    figures, mask, probability, polygons, columns, _ = run(*two, tmp_path, make, threshold=0, min_area=-1)
    assert (mask == (probability >= np.float32(0.6))).all()
    assert figures["change"]["threshold_source"] == "model"
    every = run(*two, tmp_path, make, threshold=0, min_area=0)[4]["area_m2"]
    assert 0 < len(polygons) < len(every)
    assert sorted(columns["area_m2"]) == sorted(every[every >= 2000])
    assert figures["change"]["changed_pixels"] == (mask == 1).sum()  # the mask is not sieved


def test_oracle_nodata_in_either_date(tmp_path):
    before, after, _ = pair()
    before[:, 20:60, 30:90], after[:, 100:150, 200:280] = 0, 0
    a = rasters.write(tmp_path / "a.tif", before, nodata=0)
    b = rasters.write(tmp_path / "b.tif", after, nodata=0)
    _, mask, probability, polygons, _, _ = run(a, b, tmp_path / "out")
    lost = np.zeros(SIZE, bool)
    lost[20:60, 30:90] = lost[100:150, 200:280] = True
    assert ((mask == 255) == lost).all()
    assert ((probability == NODATA) == lost).all()
    assert not (drawn(polygons, SIZE) & lost).any()


def test_oracle_aoi_outside_is_nodata(two, tmp_path):
    whole = run(*two, tmp_path / "whole")
    aoi = shapely.transform(
        shapely.Polygon([(40, 30), (210, 60), (150, 240)]), lambda xy: np.column_stack(PLACE * xy.T)
    )
    figures, mask, _, polygons, _, _ = run(*two, tmp_path / "aoi", aoi_wkt=aoi.wkt, crs_wkt="EPSG:32633")
    inside = drawn([aoi], SIZE)
    rows, cols = slice(30, 240), slice(40, 210)
    assert mask.shape == (210, 170)
    assert ((mask == 255) == ~inside[rows, cols]).all()
    assert (mask[mask != 255] == whole[1][rows, cols][mask != 255]).all()
    assert (drawn(polygons, SIZE) == (inside & (whole[1] == 1))).all()
    assert figures["change"]["valid_pixels"] == inside.sum()


def test_oracle_change_by_zone(two, tmp_path):
    # a line across the scene at x = 145.5 cuts objects; the third zone lies beside the raster
    boxes = [shapely.box(0, 0, 145.5, 300), shapely.box(145.5, 0, 290, 300), shapely.box(400, 0, 500, 300)]
    boxes = shapely.transform(np.array(boxes), lambda xy: np.column_stack(PLACE * xy.T))
    path = tmp_path / "zones.fgb"
    pyogrio.raw.write(
        path, geometry=shapely.to_wkb(boxes), field_data=[np.array(["west", None, "far"], object)],
        fields=["name"], geometry_type="Polygon", crs="EPSG:32633", driver="FlatGeobuf",
        layer_options={"SPATIAL_INDEX": "NO"},
    )  # fmt: skip
    figures, mask, _, _, columns, _ = run(*two, tmp_path / "out", zones=path, report=True)
    west, east = figures["change"]["zones"]
    assert (west["name"], east["name"]) == ("west", "2")
    total = west["area_m2"] + east["area_m2"]
    assert west["area_m2"] / total == pytest.approx(145.5 / 290, rel=1e-4)
    assert west["changed_m2"] + east["changed_m2"] == pytest.approx(columns["area_m2"].sum(), rel=1e-9)
    # every pixel is as large as any other to a few parts in a million here
    pixels = (mask[:, :145] == 1).sum() + (mask[:, 145] == 1).sum() / 2
    assert west["share"] == pytest.approx(pixels / (145.5 * 300), rel=1e-4)
    cut = ndimage.label(mask)[0][:, 145]
    assert west["count"] + east["count"] == len(columns["id"]) + len(set(cut[cut > 0]))
    assert "Change by zone" in (tmp_path / "out" / "r.html").read_text()


def test_oracle_confusion_by_hand():
    counts = Confusion()
    found, true = np.array([1, 1, 1, 0, 0, 0, 0, 1], bool), np.array([1, 1, 0, 1, 0, 0, 0, 0], bool)
    counts.add(found, true, np.array([1, 1, 1, 1, 1, 1, 1, 0], bool))
    figures = counts.figures()
    assert [figures[k] for k in ("tp", "fp", "fn", "tn", "pixels")] == [2, 1, 1, 3, 7]
    assert figures["precision"] == figures["recall"] == pytest.approx(2 / 3)
    assert figures["f1"] == pytest.approx(2 / 3)
    assert figures["iou"] == pytest.approx(1 / 2)
    # 5/7 agree, (3*3 + 4*4)/49 by chance
    assert figures["kappa"] == pytest.approx((5 / 7 - 25 / 49) / (1 - 25 / 49))
    assert Confusion().figures()["f1"] is None


def expected_counts(mask, true, known):
    known = known & (mask != 255)
    pairs = {"tp": (1, 1), "fp": (1, 0), "fn": (0, 1), "tn": (0, 0)}
    return {name: int(((mask == f) & (true == t) & known).sum()) for name, (f, t) in pairs.items()}


def test_oracle_reference_raster_over_a_part(two, tmp_path):
    *_, built = pair()
    part = built[50:200, 100:250].astype("uint8") * 255
    path = rasters.write(tmp_path / "truth.tif", part[None], transform=PLACE * Affine.translation(100, 50))
    figures, mask, *_, events = run(*two, tmp_path / "out", reference=path, report=True)
    known = np.zeros(SIZE, bool)
    known[50:200, 100:250] = True
    quality = figures["quality"]
    assert {k: quality[k] for k in ("tp", "fp", "fn", "tn")} == expected_counts(mask, built, known)
    assert quality["pixels"] == 150 * 150
    assert "kappa" in (tmp_path / "out" / "r.html").read_text()
    text = " ".join(line for _, line in events.lines)
    assert f"F1 {quality['f1']:.3f}, IoU {quality['iou']:.3f}, kappa {quality['kappa']:.3f}" in text


def test_oracle_reference_polygons(two, tmp_path):
    true = np.zeros(SIZE, bool)
    true[60:90, 70:100] = true[120:160, 130:200] = True
    boxes = [shapely.box(*(PLACE * (c, r)), *(PLACE * (e, b))) for r, b, c, e in
             ((60, 90, 70, 100), (120, 160, 130, 200))]  # fmt: skip
    path = tmp_path / "truth.gpkg"
    pyogrio.raw.write(
        path, geometry=shapely.to_wkb(np.array(boxes)), field_data=[], fields=[],
        geometry_type="Polygon", crs="EPSG:32633", driver="GPKG",
    )  # fmt: skip
    figures, mask, *_ = run(*two, tmp_path / "out", reference=path)
    known = np.zeros(SIZE, bool)
    known[60:160, 70:200] = True
    quality = figures["quality"]
    assert {k: quality[k] for k in ("tp", "fp", "fn", "tn")} == expected_counts(mask, true, known)
    assert quality["kind"] == "polygons"


def test_faults_reference_beside_the_output(two, tmp_path):
    far = rasters.write(
        tmp_path / "far.tif", np.ones((1, 50, 50), "uint8"), transform=PLACE * Affine.translation(5000, 0)
    )
    with pytest.raises(EngineError, match=r"far\.tif does not overlap the output"):
        run(*two, tmp_path / "out", reference=far)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resample": True}, "RESAMPLE: toy_change names no pixel size"),
        ({"threshold": 1.5}, "THRESHOLD must be a number from 0 to 1"),
        ({"min_area": -2}, "MIN_AREA must be a number from -1"),
    ],
)
def test_faults_parameters_that_do_not_fit(two, tmp_path, fields, message):
    with pytest.raises(EngineError, match=message):
        run(*two, tmp_path / "out", **fields)
    assert not list((tmp_path / "out").iterdir())


def test_faults_polygons_without_their_mask(two, tmp_path):
    asked = toys.job(*two, {"polygons": tmp_path / "c.fgb", "probability": tmp_path / "p.tif"})
    with pytest.raises(EngineError, match="must name the output 'mask'"):
        run_job(asked, Recorder(), toys.builder(blobs))


def test_faults_nothing_in_common(tmp_path):
    """No pixel is valid in both dates: everything is written, and nothing is in it."""
    before, after, _ = pair()
    before[:, :, 100:], after[:, :, :100] = 0, 0
    a = rasters.write(tmp_path / "a.tif", before, nodata=0)
    b = rasters.write(tmp_path / "b.tif", after, nodata=0)
    figures, mask, _, polygons, *_ = run(a, b, tmp_path / "out", report=True)
    assert (mask == 255).all()
    assert len(polygons) == figures["count"] == figures["change"]["valid_pixels"] == 0


def test_faults_failure_keeps_the_old_files(two, tmp_path, monkeypatch):
    run(*two, tmp_path)
    old = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*args):
        raise EngineError("output", "The disk is full.")

    monkeypatch.setattr(change_run, "write_features", full)  # after the mask is complete
    with pytest.raises(EngineError, match="disk is full"):
        run(*two, tmp_path, threshold=0.7)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == old


@pytest.mark.parametrize(("owner", "name"), [(Polygoniser, "put"), (change_run, "polygon_features")])
def test_fault_21_cancel_after_the_tiles(two, tmp_path, monkeypatch, owner, name):
    """While outlines are found or shaped: the old files stay and no part is left."""
    run(*two, tmp_path)
    old = {path: path.read_bytes() for path in tmp_path.iterdir()}
    events, work = Recorder(), getattr(owner, name)

    def cancelled(*args):
        events.cancel.set()
        return work(*args)

    monkeypatch.setattr(owner, name, cancelled)
    places = {"mask": "m.tif", "probability": "p.tif", "polygons": "c.fgb"}
    asked = toys.job(*two, {role: tmp_path / file for role, file in places.items()}, threshold=0.7)
    with pytest.raises(Cancelled):
        run_job(asked, events, toys.builder(blobs))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == old


def test_warnings_much_change(tmp_path):
    before, _, _ = pair()
    a = rasters.write(tmp_path / "a.tif", before)
    b = rasters.write(tmp_path / "b.tif", 255 - np.flip(before, 2))
    *_, events = run(a, b, tmp_path / "out", threshold=0.05)
    text = " ".join(line for level, line in events.lines if level == "warning")
    assert "of the valid pixels are marked as change" in text


def near(found, wanted, pixels=1):
    """Whether two masks differ only within ``pixels`` of the other's border."""
    square = np.ones((2 * pixels + 1,) * 2, bool)
    return all(
        not (one & ~ndimage.binary_dilation(other, square)).any()
        for one, other in ((found, wanted), (wanted, found))
    )


def objects(height, width):
    """A smooth ground and a few large objects in the later date, so that a border is a small part."""
    before = toys.ground(height, width, sigma=3)
    after = before.copy()
    for row, col, side in ((40, 50, 30), (120, 180, 45), (200, 60, 25)):
        after[:, row : row + side, col : col + side] = np.where(before[:, :1, :1] > 0, 250, 0)
    return np.rint(before).astype("uint8"), np.rint(after).astype("uint8")


def test_oracle_shifted_pair_is_moved_back(tmp_path):
    before, after = objects(280, 300)
    a = rasters.write(tmp_path / "a.tif", before[:, 10:270, 10:290])
    b = rasters.write(tmp_path / "b.tif", after[:, 10:270, 10:290])
    # pictures 3 pixels right of and 2 below their place
    shifted = rasters.write(tmp_path / "s.tif", after[:, 8:268, 7:287])
    wanted = run(a, b, tmp_path / "one")[1]
    _, mask, *_ = run(a, shifted, tmp_path / "two", align="shift")
    known = (mask != 255) & (wanted != 255)
    assert known[:-4, :-4].all()
    assert near((mask == 1) & known, (wanted == 1) & known)
    assert not near(run(a, shifted, tmp_path / "three")[1] == 1, wanted == 1)


def test_oracle_two_crs_give_the_warped_pairs_polygons(tmp_path):
    before, after = objects(280, 300)
    a = rasters.write(tmp_path / "a.tif", before)
    b = rasters.write(tmp_path / "b.tif", after)
    with rasterio.open(b) as dataset:
        transform, width, height = calculate_default_transform(
            dataset.crs, "EPSG:32632", dataset.width, dataset.height, *dataset.bounds
        )
        moved = np.zeros((3, height, width), "uint8")
        reproject(
            dataset.read(), moved, src_transform=dataset.transform, src_crs=dataset.crs, src_nodata=0,
            dst_transform=transform, dst_crs="EPSG:32632", dst_nodata=0, resampling=Resampling.cubic,
        )  # fmt: skip
    other = rasters.write(tmp_path / "c.tif", moved, transform=transform, crs="EPSG:32632", nodata=0)
    wanted = run(a, b, tmp_path / "one")
    found = run(a, other, tmp_path / "two", min_area=5000)
    inside = found[1] != 255
    assert inside[5:-5, 5:-5].all()
    assert len(found[3]) == len(wanted[3]) == 3
    for one, two_ in zip(found[3], wanted[3], strict=True):
        assert shapely.hausdorff_distance(one, two_) <= 10 * 2**0.5 + 1e-6
