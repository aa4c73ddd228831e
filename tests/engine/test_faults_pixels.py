"""Faults 6-9 and 12-15 of ENGINE.md, section 7: odd sizes, missing pixels, odd places."""

import numpy as np
import pytest
import rasterio
from kestrel.engine.errors import EngineError
from kestrel.models.task import Input
from kestrel.tests.support import rasters, toys
from kestrel.tests.support.jobs import run


def centres(found):
    return sorted(zip(found["x_px"].tolist(), found["y_px"].tolist(), strict=True))


@pytest.mark.parametrize("pad", [0.0, 114 / 255, "reflect"])
@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 200), (200, 1), (2, 2), (5, 7), (63, 64), (64, 64), (65, 64), (65, 65), (127, 131), (40, 400)],
)
def test_fault_06_any_size(tmp_path, height, width, pad):
    image = rasters.sea(height, width, [])
    ships = []
    if min(height, width) > 20:
        ships = [(5, 5, 13, 11), (width - 14, height - 12, width - 4, height - 5)]
        image = rasters.sea(height, width, ships)
    shapes = set()

    def build(*_):
        def prepare(tiles):
            shapes.add(tiles.images["image"].shape)
            assert np.isfinite(tiles.images["image"]).all()
            assert tiles.valid.shape == tiles.images["image"][:, 0].shape
            return tiles.images["image"][:, 0]

        return toys.toy_task(prepare=prepare, inputs=(Input("image", pad=pad),))

    outcome, found = run(rasters.write(tmp_path / "a.tif", image), tmp_path, builder=build)
    assert centres(found) == sorted(((a + c) / 2, (b + d) / 2) for a, b, c, d in ships)
    (shape,) = shapes
    assert shape[2] == (64 if height >= 64 else -(-height // 8) * 8)
    assert shape[3] == (64 if width >= 64 else -(-width // 8) * 8)
    assert outcome.figures["valid_pixels"] == height * width


def test_fault_06_one_pixel_is_constant_and_refused(tmp_path):
    path = rasters.write(tmp_path / "a.tif", np.array([[7]], np.uint8))
    with pytest.raises(EngineError, match="have the value 7"):
        run(path, tmp_path)


def test_fault_06_padding_is_as_the_task_says_and_never_valid(tmp_path):
    image = rasters.sea(10, 12, [])
    seen = {}

    def build(pad):
        def prepare(tiles):
            seen[pad] = (tiles.images["image"][0, 0], tiles.valid[0])
            return tiles.images["image"][:, 0]

        return lambda *_: toys.toy_task(prepare=prepare, inputs=(Input("image", pad=pad),), multiple=32)

    path = rasters.write(tmp_path / "a.tif", image)
    for pad in (0.25, "reflect"):
        run(path, tmp_path, builder=build(pad))
        padded, valid = seen[pad]
        assert padded.shape == (32, 32)
        assert np.allclose(padded[:10, :12], image / 255, atol=1e-7)
        assert valid[:10, :12].all()
        assert valid.sum() == 120
    assert (seen[0.25][0][10:] == 0.25).all()
    # repeated reflection, by its definition: the index runs to and fro
    to_and_fro = np.abs((np.arange(32) + 9) % 18 - 9)
    assert np.allclose(seen["reflect"][0][:, 0], image[to_and_fro, 0] / 255, atol=1e-7)


def test_fault_06_boxes_centred_in_the_padding_are_dropped(tmp_path):
    answer = np.array([[5.0, 5, 9, 9, 0.9, 0], [8, 20, 14, 26, 0.8, 0], [8, 8, 15, 12, 0.7, 0]])
    path = rasters.write(tmp_path / "a.tif", rasters.sea(20, 12, []))
    _, found = run(path, tmp_path, builder=lambda *_: toys.toy_task(lambda _: answer))
    assert centres(found) == [(7, 7), (10, 10)]  # the last one is cut to the raster: 8..12
    assert found["w_px"].tolist() == [4, 4]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_fault_07_fully_nodata_is_refused(tmp_path, dtype):
    image = np.zeros((100, 100), dtype)
    path = rasters.write(tmp_path / "a.tif", image, nodata=0)
    with pytest.raises(EngineError, match="are nodata"):
        run(path, tmp_path)


def test_fault_07_nearly_all_nodata_runs_only_the_rest(tmp_path):
    image = np.zeros((2048, 2048), np.uint8)
    ship = (700, 900, 720, 906)
    image[880:930, 680:740] = rasters.sea(50, 60, [(20, 20, 40, 26)])
    calls = []

    def answer(tile):
        calls.append(1)
        return toys.bright_boxes(tile)

    path = rasters.write(tmp_path / "a.tif", image, nodata=0)
    outcome, found = run(path, tmp_path, builder=lambda *_: toys.toy_task(answer))
    assert centres(found) == [((ship[0] + ship[2]) / 2, (ship[1] + ship[3]) / 2)]
    figures = outcome.figures
    assert len(calls) == figures["tiles_run"] <= 9
    assert figures["tiles_run"] + figures["tiles_nodata"] == figures["tiles_total"]
    assert figures["valid_pixels"] == 50 * 60
    assert figures["valid_pixels"] + figures["invalid_pixels"] == image.size


@pytest.mark.parametrize("fill", ["median", "zero", "nearest"])
def test_fault_08_nodata_never_reaches_the_model(tmp_path, fill):
    image = rasters.sea(64, 64, []).astype(np.float32)
    image[:, :5] = -9999
    image[30, 40] = np.nan
    seen = []

    def build(*_):
        def prepare(tiles):
            seen.append((tiles.images["image"][0, 0], tiles.valid[0]))
            return tiles.images["image"][:, 0]

        return toys.toy_task(prepare=prepare, inputs=(Input("image", fill=fill),))

    outcome, _ = run(rasters.write(tmp_path / "a.tif", image, nodata=-9999), tmp_path, builder=build)
    filled, valid = seen[0]
    assert np.argwhere(~valid).shape == (64 * 5 + 1, 2)
    good = image[valid]
    low, high = np.percentile(good.astype(float), (1, 99.5))
    scale = lambda v: np.clip((v - low) / (high - low), 0, 1)  # noqa: E731
    if fill == "median":
        assert np.allclose(filled[~valid], scale(np.median(good)), atol=1e-6)
    elif fill == "zero":
        assert (filled[~valid] == 0).all()
    else:
        assert np.allclose(filled[:, :5], scale(image[:, 5:6]), atol=1e-6)
        near = image[[29, 31, 30, 30], [40, 40, 39, 41]]
        assert np.isclose(filled[30, 40], scale(near), atol=1e-6).any()
    assert outcome.figures["invalid_pixels"] == 64 * 5 + 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, -3.4e38])
def test_fault_09_bad_values_without_nodata_are_counted_and_change_nothing(tmp_path, value):
    ships = [(20, 20, 40, 26), (100, 50, 120, 56)]
    image = rasters.sea(128, 160, ships).astype(np.float32)
    image[80:90, 80:90] = value
    outcome, found = run(rasters.write(tmp_path / "a.tif", image), tmp_path)
    assert centres(found) == [(30, 23), (110, 53)]
    assert outcome.figures["invalid_pixels"] == 100


SHIPS = [(20, 20, 40, 26), (100, 50, 112, 80)]
IMAGE = rasters.sea(128, 160, SHIPS)


@pytest.mark.parametrize("place", [p for p in rasters.PLACES if p != "bare"])
def test_fault_14_polygons_follow_the_full_affine(tmp_path, place):
    _, found = run(rasters.write(tmp_path / "a.tif", IMAGE, place), tmp_path)
    rings = {round(x): p for x, p in zip(found["x_px"], found["polygon"], strict=True)}
    for ship in SHIPS:
        ring = np.array(rings[round((ship[0] + ship[2]) / 2)].exterior.coords)[:4]
        expected = rasters.corners(ship, rasters.PLACES[place][1])
        assert np.allclose(np.sort(ring, axis=0), np.sort(expected, axis=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("place", ["no_crs", "bare"])
def test_fault_12_no_crs_keeps_pixels_and_leaves_metres_null(tmp_path, place):
    outcome, found = run(rasters.write(tmp_path / "a.tif", IMAGE, place), tmp_path)
    assert centres(found) == [(30, 23), (106, 65)]
    for name in ("long_m", "short_m", "area_m2", "lon", "lat"):
        assert np.isnan(found[name].astype(float)).all()
    assert any("Layer has no CRS" in text for text in outcome.warnings)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.crs is None


@pytest.mark.parametrize(
    ("place", "length", "width"),
    [("north_up", 200.08, 60.02), ("rotated", 200.08, 60.02), ("south_up", 200.08, 60.02),
     ("oblong", 200.08, 120.05)],
)  # fmt: skip
def test_fault_13_metres_are_metres_on_the_ground(tmp_path, place, length, width):
    _, found = run(rasters.write(tmp_path / "a.tif", IMAGE, place), tmp_path)
    ship = int(np.flatnonzero(found["x_px"] == 30)[0])
    assert found["long_m"][ship] == pytest.approx(length, abs=0.02)
    assert found["short_m"][ship] == pytest.approx(width, abs=0.02)
    assert found["area_m2"][ship] == pytest.approx(length * width, rel=1e-3)


def test_fault_13_degrees(tmp_path):
    _, found = run(rasters.write(tmp_path / "a.tif", IMAGE, "degrees"), tmp_path)
    per_lon, per_lat = rasters.metres_per_degree(45.0 - 23e-4)
    ship = int(np.flatnonzero(found["x_px"] == 30)[0])
    assert found["long_m"][ship] == pytest.approx(20e-4 * per_lon, rel=1e-4)
    assert found["short_m"][ship] == pytest.approx(6e-4 * per_lat, rel=1e-4)
    assert found["lon"][ship] == pytest.approx(15 + 30e-4, abs=1e-9)
    assert found["lat"][ship] == pytest.approx(45 - 23e-4, abs=1e-9)


@pytest.mark.parametrize("side", [2, 6])
def test_fault_15_gcps_only(tmp_path, side):
    path = rasters.write_gcps(tmp_path / "a.tif", IMAGE, rasters.gcps(128, 160, side=side))
    outcome, found = run(path, tmp_path)
    _, plain = run(rasters.write(tmp_path / "b.tif", IMAGE), tmp_path)
    assert "WGS 84" in outcome.figures["crs"]
    for name in ("lon", "lat"):
        assert np.allclose(found[name], plain[name], rtol=0, atol=2e-6)
    assert np.allclose(found["long_m"], plain["long_m"], rtol=1e-3)
    for polygon, lon, lat in zip(found["polygon"], found["lon"], found["lat"], strict=True):
        centre = polygon.centroid
        assert (centre.x, centre.y) == pytest.approx((lon, lat), abs=1e-8)


def test_fault_15_gcps_on_both_sides_of_the_antimeridian(tmp_path):
    points = rasters.gcps(128, 160)
    for point in points:
        point.x += 180 - 15.01
        point.x -= 360 * (point.x > 180)
    _, found = run(rasters.write_gcps(tmp_path / "a.tif", IMAGE, points), tmp_path)
    assert centres(found) == [(30, 23), (106, 65)]
    assert (np.abs(found["lon"]) <= 180).all()
    assert found["long_m"].max() < 400
