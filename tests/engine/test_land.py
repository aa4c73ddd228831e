"""The land mask: any CRS, buffered in metres, per tile and per box."""

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from kestrel.engine.errors import EngineError
from kestrel.tests.support import rasters, toys
from kestrel.tests.support.jobs import run
from pyproj import Transformer

#: The second ship lies 100 m, ten pixels, east of the coast at column 100.
SHIPS = [(20, 20, 40, 26), (110, 40, 130, 46), (60, 150, 66, 170), (180, 180, 210, 186)]
IMAGE = rasters.sea(256, 256, SHIPS)
COAST = (-50, -50, 100, 300)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("land")
    return {name: rasters.write(folder / f"{name}.tif", IMAGE, name) for name in rasters.PLACES}


def write_land(path, boxes, place="north_up", crs=None, kind="Polygon"):
    """Write pixel boxes of a place as polygons of ``crs`` (None = the place's own)."""
    own, transform = rasters.PLACES[place]
    shapes = [shapely.Polygon(rasters.corners(box, transform)) for box in boxes]
    if crs:
        move = Transformer.from_crs(own, crs, always_xy=True)
        shapes = [
            shapely.transform(shapely.segmentize(s, 50), lambda xy: np.column_stack(move.transform(*xy.T)))
            for s in shapes
        ]
    if kind == "Point":
        shapes = [s.centroid for s in shapes]
    pyogrio.raw.write(
        str(path), geometry=shapely.to_wkb(np.array(shapes, object)), field_data=[], fields=[],
        geometry_type=kind, crs=crs or (own.to_wkt() if own else None), driver="GPKG",
    )  # fmt: skip
    return path


def xs(found):
    return sorted(found["x_px"].tolist())


@pytest.mark.parametrize("crs", [None, "EPSG:4326", "EPSG:3857"])
@pytest.mark.parametrize("place", ["north_up", "rotated", "south_up", "degrees"])
def test_feature_ships_on_land_are_dropped(files, tmp_path, place, crs):
    if place == "degrees" and crs == "EPSG:4326":
        crs = None
    land = write_land(tmp_path / "land.gpkg", [COAST], place, crs)
    outcome, found = run(files[place], tmp_path, land=land)
    assert xs(found) == [120, 195]
    assert outcome.figures["dropped"]["on_land"] == 2


@pytest.mark.parametrize("crs", [None, "EPSG:4326", "EPSG:3857"])
@pytest.mark.parametrize(("buffer_m", "left"), [(0, [120, 195]), (190, [120, 195]), (210, [195])])
def test_feature_buffer_is_metres_on_the_ground(files, tmp_path, crs, buffer_m, left):
    # the ship's centre is 20 pixels of 10 m from the coast
    land = write_land(tmp_path / "land.gpkg", [COAST], crs=crs)
    _, found = run(files["north_up"], tmp_path, land=land, land_buffer=buffer_m)
    assert xs(found) == left


def test_feature_tasks_get_the_land_of_their_tile(files, tmp_path):
    islands = [(16, 16, 50, 40), (170, 170, 220, 200), (90, 10, 95, 250)]
    land = write_land(tmp_path / "land.gpkg", islands)
    expected = np.zeros((256, 256), bool)
    for x1, y1, x2, y2 in islands:
        expected[y1:y2, x1:x2] = True
    seen = []

    def build(*_):
        task = toys.toy_task()

        def prepare(tiles):
            for row, col, mask in zip(tiles.rows, tiles.cols, tiles.land, strict=True):
                assert (mask == expected[row : row + 64, col : col + 64]).all()
                seen.append((row, col))
            return task.prepare(tiles)

        return toys.toy_task(prepare=prepare)

    run(files["north_up"], tmp_path, builder=build, land=land)
    assert len(seen) == 25


def test_feature_without_a_mask_tasks_get_none(files, tmp_path):
    def prepare(tiles):
        assert tiles.land is None
        return tiles.images["image"][:, 0]

    run(files["north_up"], tmp_path, builder=lambda *_: toys.toy_task(prepare=prepare))


def test_feature_land_elsewhere_warns(files, tmp_path):
    land = write_land(tmp_path / "land.gpkg", [(90_000, 90_000, 90_100, 90_100)])
    outcome, found = run(files["north_up"], tmp_path, land=land)
    assert len(found["id"]) == len(SHIPS)
    assert any("no land on this scene" in text for text in outcome.warnings)


def test_feature_empty_mask_is_no_land(files, tmp_path):
    land = write_land(tmp_path / "land.gpkg", [])
    outcome, found = run(files["north_up"], tmp_path, land=land, land_buffer=100)
    assert len(found["id"]) == len(SHIPS)
    assert any("no land on this scene" in text for text in outcome.warnings)


def test_feature_no_crs(files, tmp_path):
    land = write_land(tmp_path / "land.gpkg", [COAST], "no_crs")
    _, found = run(files["no_crs"], tmp_path, land=land)
    assert xs(found) == [120, 195]
    with pytest.raises(EngineError, match="LAND_BUFFER is in metres"):
        run(files["no_crs"], tmp_path, land=land, land_buffer=10)


def test_exception_not_polygons_or_not_a_layer(files, tmp_path):
    land = write_land(tmp_path / "points.gpkg", [COAST], kind="Point")
    with pytest.raises(EngineError, match=r"points\.gpkg holds Point, not polygons"):
        run(files["north_up"], tmp_path, land=land)
    (tmp_path / "text.gpkg").write_text("text")
    with pytest.raises(EngineError, match=r"land mask .*text\.gpkg cannot be read"):
        run(files["north_up"], tmp_path, land=tmp_path / "text.gpkg")
    with pytest.raises(EngineError, match=r"none\.gpkg does not exist"):
        run(files["north_up"], tmp_path, land=tmp_path / "none.gpkg")


def test_exception_virtual_layers_and_tables_without_geometry(files, tmp_path):
    virtual = tmp_path / "land.vrt"
    virtual.write_text(
        '<OGRVRTDataSource><OGRVRTLayer name="x"><SrcDataSource>/vsicurl/http://127.0.0.1:1/x.gpkg'
        "</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
    )
    with pytest.raises(EngineError, match="virtual layer"):
        run(files["north_up"], tmp_path, land=virtual)
    table = tmp_path / "land.csv"
    table.write_text("name,area\nisland,5\n")
    with pytest.raises(EngineError, match="holds no geometries, not polygons"):
        run(files["north_up"], tmp_path, land=table)


@pytest.mark.parametrize("epsg", [3031, 3413])
def test_feature_land_over_a_pole(tmp_path, epsg):
    """In degrees the pole is an edge of the map, and the scene's outline alone does not reach it."""
    image = rasters.sea(200, 200, [(20, 20, 50, 30), (97, 98, 107, 101)])
    path = rasters.write(tmp_path / "a.tif", image, crs=f"EPSG:{epsg}",
                         transform=Affine(1000, 0, -1e5, 0, -1000, 1e5))  # fmt: skip
    land = tmp_path / "land.gpkg"
    sign = -1 if epsg == 3031 else 1
    cap = shapely.box(-180, min(sign * 60, sign * 90), 180, max(sign * 60, sign * 90))
    pyogrio.raw.write(str(land), geometry=shapely.to_wkb(np.array([cap], object)), field_data=[], fields=[],
                      geometry_type="Polygon", crs="EPSG:4326", driver="GPKG")  # fmt: skip
    outcome, found = run(path, tmp_path, land=land)
    assert xs(found) == []
    assert outcome.figures["dropped"]["on_land"] == 2
