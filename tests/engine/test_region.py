"""EXTENT and AOI in any CRS (fault 17), and which tiles and boxes they leave."""

import numpy as np
import pytest
import shapely
from kestrel.engine.errors import EngineError
from kestrel.engine.events import Track
from kestrel.engine.grid import plan_grid
from kestrel.engine.region import read_region
from kestrel.engine.scene import open_scene
from kestrel.tests.support import rasters, toys
from kestrel.tests.support.jobs import Recorder, run
from pyproj import Transformer

SHIPS = [(20, 20, 40, 26), (150, 40, 170, 46), (60, 150, 66, 170), (200, 200, 230, 206)]
IMAGE = rasters.sea(256, 256, SHIPS)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("region")
    found = {name: rasters.write(folder / f"{name}.tif", IMAGE, name) for name in rasters.PLACES}
    found["gcp"] = rasters.write_gcps(folder / "gcp.tif", IMAGE, rasters.gcps(256, 256, side=4))
    return found


def area(name, box):
    """Return a pixel box as a polygon in the layer's CRS."""
    if name == "gcp":
        to_lonlat = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
        corners = rasters.corners(box, rasters.PLACES["north_up"][1])
        return shapely.Polygon(np.column_stack(to_lonlat.transform(*corners.T)))
    transform = rasters.PLACES[name][1]
    if name == "bare":
        transform = transform.scale(1, -1)
    return shapely.Polygon(rasters.corners(box, transform))


def crs(name):
    if name == "gcp":
        return "EPSG:4326"
    crs = rasters.PLACES[name][0]
    return crs.to_wkt() if crs else None


def ids(found):
    """Return which of SHIPS were found, by their centres."""
    centres = [((a + c) / 2, (b + d) / 2) for a, b, c, d in SHIPS]
    return sorted(centres.index((x, y)) for x, y in zip(found["x_px"], found["y_px"], strict=True))


@pytest.mark.parametrize("name", [*rasters.PLACES, "gcp"])
def test_feature_aoi_keeps_what_is_centred_inside(files, tmp_path, name):
    outcome, found = run(files[name], tmp_path, aoi_wkt=area(name, (10, 10, 100, 200)).wkt, crs_wkt=crs(name))
    assert ids(found) == [0, 2]
    assert outcome.figures["tiles_run"] < outcome.figures["tiles_total"]
    assert outcome.figures["tiles_run"] + outcome.figures["tiles_skipped"] == outcome.figures["tiles_total"]


@pytest.mark.parametrize("name", ["north_up", "rotated", "degrees", "gcp"])
@pytest.mark.parametrize("target", ["EPSG:4326", "EPSG:3857", "EPSG:3035"])
def test_feature_aoi_in_another_crs(files, tmp_path, name, target):
    to_target = Transformer.from_crs(crs(name), target, always_xy=True)
    moved = shapely.transform(
        area(name, (10, 10, 100, 200)), lambda xy: np.column_stack(to_target.transform(*xy.T))
    )
    _, found = run(files[name], tmp_path, aoi_wkt=moved.wkt, crs_wkt=target)
    assert ids(found) == [0, 2]


def test_feature_extent(files, tmp_path):
    bounds = area("north_up", (10, 10, 100, 200)).bounds
    outcome, found = run(files["north_up"], tmp_path, extent=list(bounds), crs_wkt="EPSG:32633")
    assert ids(found) == [0, 2]
    full, _ = run(files["north_up"], tmp_path)
    assert outcome.figures["scaling"] == full.figures["scaling"]


def test_feature_extent_and_aoi_meet(files, tmp_path):
    aoi = area("north_up", (10, 10, 240, 100))
    extent = list(area("north_up", (100, 10, 240, 240)).bounds)
    _, found = run(files["north_up"], tmp_path, extent=extent, aoi_wkt=aoi.wkt, crs_wkt="EPSG:32633")
    assert ids(found) == [1]


def test_oracle_region_run_equals_that_part_of_the_full_run(tmp_path):
    # ships up to twice the overlap: many are joined from pieces
    rng = np.random.default_rng(4)
    ships = [(20, y, 20 + int(rng.integers(5, 75)), y + 5) for y in range(8, 500, 12)]
    path = rasters.write(tmp_path / "a.tif", rasters.sea(512, 160, ships))
    _, full = run(path, tmp_path, tile=64, overlap=40)
    for x in range(0, 150, 17):
        box = (x, 100, x + 30, 400)
        _, part = run(path, tmp_path, tile=64, overlap=40, aoi_wkt=area("north_up", box).wkt)
        inside = (full["x_px"] >= x) & (full["x_px"] <= x + 30) & (full["y_px"] > 100) & (full["y_px"] < 400)
        assert sorted(p.wkt for p in part["polygon"]) == sorted(p.wkt for p in full["polygon"][inside])


@pytest.mark.parametrize(
    ("box", "tiles"),
    [((9, 9, 30, 30), [0]), ((9, 9, 39, 30), [0]), ((9, 9, 45, 30), [0, 1]), ((125, 125, 130, 130), [12])],
)  # fmt: skip
def test_feature_only_tiles_that_touch_the_region_run(files, tmp_path, box, tiles):
    # 64 pixels with 16 overlap: starts 0, 48, 96, 144, 192
    seen = []

    def build(*_):
        def prepare(batch):
            seen.extend(batch.rows // 48 * 5 + batch.cols // 48)
            return batch.images["image"][:, 0]

        return toys.toy_task(prepare=prepare)

    run(files["north_up"], tmp_path, builder=build, aoi_wkt=area("north_up", box).wkt)
    assert seen == tiles


def test_fault_17_bow_tie_and_holes(files, tmp_path):
    corners = rasters.corners((10, 10, 100, 200), rasters.PLACES["north_up"][1])
    bow = shapely.Polygon(corners[[0, 1, 3, 2]])
    assert not bow.is_valid
    _, found = run(files["north_up"], tmp_path, aoi_wkt=bow.wkt)
    assert ids(found) == [0, 2]
    hole = area("north_up", (15, 15, 60, 60))
    aoi = area("north_up", (10, 10, 100, 200)).difference(hole)
    _, found = run(files["north_up"], tmp_path, aoi_wkt=aoi.wkt)
    assert ids(found) == [2]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"extent": [0, 0, 10, 10], "crs_wkt": "EPSG:32633"}, "EXTENT does not overlap north_up.tif"),
        ({"aoi_wkt": "POLYGON ((0 0, 1 0, 1 1, 0 0))", "crs_wkt": "EPSG:4326"}, "AOI does not overlap"),
        ({"aoi_wkt": "POINT (0 0)"}, "AOI holds no polygon"),
        ({"aoi_wkt": "POLYGON EMPTY"}, "AOI holds no polygon"),
        ({"aoi_wkt": "nonsense"}, "AOI is not a geometry"),
        ({"aoi_wkt": "POLYGON ((0 0, 1 0, 1 1, 0 0))", "crs_wkt": "nonsense"}, "CRS of EXTENT/AOI"),
        ({"extent": [-1e9, -1e9, 1e9, 1e9], "crs_wkt": 'LOCAL_CS["x",UNIT["metre",1]]'}, "No way leads from"),
    ],
)  # fmt: skip
def test_fault_17_exception(files, tmp_path, fields, words):
    with pytest.raises(EngineError, match=words):
        run(files["north_up"], tmp_path, **fields)


def test_fault_17_aoi_across_the_antimeridian_does_not_crash(files, tmp_path):
    world = "POLYGON ((-180 -90, 180 -90, 180 90, -180 90, -180 -90))"
    _, found = run(files["degrees"], tmp_path, aoi_wkt=world, crs_wkt="EPSG:4326")
    assert ids(found) == [0, 1, 2, 3]
    with pytest.raises(EngineError, match="does not overlap"):
        run(
            files["north_up"], tmp_path, crs_wkt="EPSG:4326",
            aoi_wkt="POLYGON ((170 40, 190 40, 190 50, 170 50, 170 40))",
        )  # fmt: skip


def test_feature_no_crs_takes_the_layers_own_coordinates(files, tmp_path):
    outcome, found = run(
        files["no_crs"], tmp_path, aoi_wkt=area("no_crs", (10, 10, 100, 200)).wkt, crs_wkt="EPSG:4326"
    )
    assert ids(found) == [0, 2]
    assert any("layer's own coordinates" in text for text in outcome.warnings)


@pytest.mark.parametrize("west", [179.99, -180.01])
def test_fault_17_raster_across_the_antimeridian_meets_areas_on_both_sides(tmp_path, west):
    transform = rasters.PLACES["degrees"][1]
    path = rasters.write(
        tmp_path / "a.tif", IMAGE, "degrees", transform=transform.translation(west - 15, 0) * transform
    )
    for lon, expected in ((179.985, [0, 2]), (-179.9999, [1, 3])):  # the line lies at column 100
        box = shapely.box(lon, 44, lon + 0.0149, 46)
        _, found = run(path, tmp_path, aoi_wkt=box.wkt, crs_wkt="EPSG:4326")
        assert ids(found) == expected
        assert (np.sign(found["lon"]) == np.sign(lon)).all()


@pytest.mark.parametrize("target", ["EPSG:4326", "EPSG:3857"])
@pytest.mark.parametrize("name", ["north_up", "degrees", "gcp"])
def test_feature_an_area_around_the_whole_earth_is_the_whole_raster(files, tmp_path, name, target):
    """UTM has no place for the poles and the other side of the Earth; the raster lies inside anyway."""
    world = [-180, -90, 180, 90] if target == "EPSG:4326" else [-20037508, -20037508, 20037508, 20037508]
    for given in ({"extent": world}, {"aoi_wkt": shapely.box(*world).wkt}):
        _, found = run(files[name], tmp_path, crs_wkt=target, **given)
        assert len(ids(found)) == len(SHIPS)


@pytest.mark.parametrize(
    "wkt", ["POLYGON((inf 0, 1 1, 2 2, inf 0))", "CURVEPOLYGON(CIRCULARSTRING(0 0, 4 0, 4 4, 0 4, 0 0))", "x"]
)
def test_exception_aoi_that_is_no_polygon_of_finite_lines(files, tmp_path, wkt):
    with pytest.raises(EngineError, match="AOI is not a geometry"):
        run(files["north_up"], tmp_path, aoi_wkt=wkt, crs_wkt="EPSG:32633")


def test_oracle_pixels_of_an_area_are_counted_once_each(files, tmp_path):
    """Two corners of the raster: the tiles that run are no rectangle, and each pixel counts once."""
    wanted = shapely.union_all([area("north_up", (0, 0, 90, 30)), area("north_up", (0, 0, 20, 150))])
    outcome, _ = run(files["north_up"], tmp_path, aoi_wkt=wanted.wkt, crs_wkt="EPSG:32633")
    scene = open_scene(str(files["north_up"]), 1)
    region = read_region(scene, None, wanted.wkt, "EPSG:32633", Track(Recorder()))
    grid = plan_grid(scene.height, scene.width, 64, 16, 8, 0)
    seen = np.zeros((scene.height, scene.width), bool)
    for tile in region.tiles(grid):
        seen[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] = True
    assert outcome.figures["valid_pixels"] + outcome.figures["invalid_pixels"] == seen.sum()
