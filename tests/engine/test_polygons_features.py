"""Features from outlines: size, holes, smoothing, right angles, columns, the scratch layer."""

from itertools import pairwise

import numpy as np
import pyogrio
import pytest
import shapely
from kestrel.engine.drivers import gdal_env, open_dataset
from kestrel.engine.features import write_features
from kestrel.engine.georef import GEOD, read_georef
from kestrel.engine.grid import plan_grid
from kestrel.engine.polygons import Polygoniser, gather
from kestrel.engine.polygons_features import POLYGON_FIELDS, Labels, ShapeRules, polygon_features
from kestrel.engine.polygons_ground import Frames, frames, measure
from kestrel.engine.polygons_regular import directions, regularise
from kestrel.tests.support import rasters
from rasterio import features as burn
from scipy import ndimage
from shapely import affinity

GRID = plan_grid(120, 160, 64, 16, 16, 0)
LABELS = Labels("change", "2011-05-01", None, "toy@1")


def georef(tmp_path, place="north_up"):
    path = rasters.write(tmp_path / f"{place}.tif", np.ones((50, 50), np.uint8), place)
    with gdal_env(), open_dataset(path) as dataset:
        return read_georef(dataset)


def outlines(mask, cuts=()):
    rng = np.random.default_rng(0)
    score = rng.random(mask.shape, dtype=np.float32)
    polygoniser = Polygoniser(mask.shape[1])
    rows = [0, *cuts, len(mask)]
    parts = [polygoniser.put(a, mask[a:b], score[a:b]) for a, b in pairwise(rows)]
    return gather([*parts, polygoniser.finish()])


def blobs(seed=0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(120, 160)), 2.5)
    return (noise > noise.std()).astype(np.uint8)


def made(tmp_path, mask, place="north_up", cuts=(), **rules):
    where = georef(tmp_path, place)
    return polygon_features(outlines(mask, cuts), where, GRID, ShapeRules(**rules), LABELS)


def rectangle(angle, width=24, height=15):
    return affinity.translate(affinity.rotate(shapely.box(0, 0, width, height), angle), 30, 30)


def burnt(shape):
    return burn.rasterize([(shape, 1)], (GRID.height, GRID.width), dtype=np.uint8)


def squared(*polygons):
    """Regularise polygons in pixels of one metre."""
    count = len(polygons)
    return regularise(np.array(polygons), Frames(np.zeros((count, 2)), np.tile(np.eye(2), (count, 1, 1))))


def iou(one, other):
    return one.intersection(other).area / one.union(other).area


@pytest.mark.parametrize("place", ["north_up", "degrees", "bare"])
def test_save_load_keeps_fields_order_and_nulls(tmp_path, place):
    features = made(tmp_path, blobs(), place)
    assert list(features.columns) == list(POLYGON_FIELDS)
    assert features.columns["id"].tolist() == list(range(1, len(features) + 1))
    path = tmp_path / "out.fgb"
    write_features(path, features, georef(tmp_path, place))
    meta, _, shapes, columns = pyogrio.raw.read(path)
    assert list(meta["fields"]) == list(POLYGON_FIELDS)
    assert shapely.equals_exact(shapely.from_wkb(shapes), features.polygons).all()
    read = dict(zip(meta["fields"], columns, strict=True))
    assert set(read["class"]) == {"change"}
    assert set(read["date1"]) == {"2011-05-01"}
    nothing = len(pyogrio.raw.read(path, where="date2 IS NULL")[2])
    assert nothing == len(features)
    assert len(pyogrio.raw.read(path, where="area_m2 IS NULL")[2]) == (
        len(features) if place == "bare" else 0
    )
    assert np.array_equal(read["p_max"], features.columns["p_max"])


@pytest.mark.parametrize("rules", [{}, {"simplify_m": 15.0}, {"regularise": True}, {"max_hole_m2": 900.0}])
def test_oracle_strips_change_no_feature(tmp_path, rules):
    """Every column and corner alike, so areas agree far better than 1e-9."""
    mask = blobs()
    whole = made(tmp_path, mask, **rules)
    cut = made(tmp_path, mask, cuts=range(7, 120, 7), **rules)
    assert shapely.equals_identical(whole.polygons, cut.polygons).all()
    for name in POLYGON_FIELDS:
        assert np.array_equal(whole.columns[name], cut.columns[name]), name


def test_feature_least_area_counts_filled_holes(tmp_path):
    mask = np.zeros((120, 160), np.uint8)
    mask[10:15, 10:15] = 1
    mask[12, 12] = 0  # 24 pixels of 100 m2 and a hole
    for least, hole, count in ((2450.0, 0.0, 0), (2450.0, 150.0, 1), (2390.0, 0.0, 1), (2390.0, 50.0, 1)):
        features = made(tmp_path, mask, min_area_m2=least, max_hole_m2=hole)
        assert len(features) == count, (least, hole)
        if count:
            filled = hole > 100
            assert shapely.get_num_interior_rings(features.polygons[0]) == (0 if filled else 1)
            expected = (2500 if filled else 2400) / 0.9996**2
            assert features.columns["area_m2"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("place", ["north_up", "rotated", "degrees"])
def test_feature_simplified_within_its_tolerance(tmp_path, place):
    mask = blobs()
    plain, smooth = made(tmp_path, mask, place), made(tmp_path, mask, place, simplify_m=12.0)
    assert len(plain) == len(smooth)
    assert shapely.is_valid(smooth.polygons).all()
    assert (
        shapely.get_num_coordinates(smooth.polygons).sum()
        < 0.5 * shapely.get_num_coordinates(plain.polygons).sum()
    )
    unit = 1.0 if place != "degrees" else 1 / 78_000  # a degree of longitude at 45 degrees is the shortest
    off = shapely.hausdorff_distance(plain.polygons, smooth.polygons)
    assert off.max() <= 12.01 * unit
    # areas are those of the polygons as they are
    area = shapely.area(smooth.polygons)
    if place != "degrees":
        assert np.allclose(smooth.columns["area_m2"], area / 0.9996**2, rtol=1e-5)


@pytest.mark.parametrize("angle", [0, 10, 27, 45, 63, 80])
def test_feature_right_angles_find_a_turned_rectangle(angle):
    """Four corners, its direction within 4 degrees, about as near to the truth as its pixels."""
    truth = rectangle(angle)
    pixels = outlines(burnt(truth)).polygons[0]
    [found] = squared(pixels)
    assert found is not None
    assert len(found.exterior.coords) == 5
    turned = np.degrees(directions(np.array([found.exterior]))[0]) - angle
    assert abs((turned + 45) % 90 - 45) < 4
    assert iou(found, truth) >= iou(pixels, truth) - 0.02
    assert found.area == pytest.approx(pixels.area, rel=0.02)


def test_feature_right_angles_are_right_on_the_ground(tmp_path):
    """At 45 degrees north pixels of degrees are no squares, yet the corners on the ground are square."""
    where = georef(tmp_path, "degrees")
    local = frames(np.array([[50.0, 50.0]]), where)
    metres = affinity.scale(affinity.translate(rectangle(30), -30, -30), 10, 10, origin=(0, 0))
    mask = burnt(local.to_pixels(np.array([metres], object))[0])
    features = polygon_features(outlines(mask), where, GRID, ShapeRules(regularise=True), LABELS)
    ring = shapely.get_coordinates(features.polygons[0])
    assert len(ring) == 5
    azimuth = np.array(GEOD.inv(*ring[:-1].T, *ring[1:].T)[0])
    assert np.allclose((np.diff(azimuth) + 360) % 180, 90, atol=0.05)


@pytest.mark.parametrize(
    "shape",
    [
        shapely.Point(40, 40).buffer(12),
        shapely.Polygon([(10, 10), (50, 15), (20, 50)]),
        shapely.LineString([(5, 5), (60, 30), (30, 80)]).buffer(3),
    ],
    ids=["disc", "triangle", "road"],
)
def test_feature_round_and_oblique_shapes_keep_their_outline(shape):
    assert squared(outlines(burnt(shape)).polygons[0]) == [None]


def test_feature_right_angles_do_not_depend_on_the_place(tmp_path):
    """Like outlines become like shapes, though metres are rounded otherwise everywhere in a UTM zone.

    GEOS makes nothing of a buffer of 1e-14, which is what a smooth outline's may need.
    """
    drawn = np.pad(blobs()[10:100, 10:130], 1)
    shapes = []
    for dx, dy in ((0, 0), (3, 0), (0, 7), (20, 5)):
        mask = np.zeros((120, 160), np.uint8)
        mask[dy : dy + 92, dx : dx + 122] = drawn
        found = made(tmp_path, mask, regularise=True)
        shapes.append(
            shapely.transform(found.polygons, lambda xy, by=(dx, dy): xy + np.multiply(by, (-10, 10)))
        )
    for other in shapes[1:]:
        assert shapely.hausdorff_distance(shapes[0], other).max() < 1e-3


def test_property_right_angles_one_by_one_are_those_of_all(tmp_path):
    polygons = outlines(blobs()).polygons
    together = squared(*polygons)
    assert 0 < sum(each is not None for each in together) < len(polygons)
    for polygon, found in zip(polygons, together, strict=True):
        [alone] = squared(polygon)
        assert (alone is None and found is None) or shapely.equals_identical(alone, found)


def test_smoke_speckle_and_nothing(tmp_path):
    """Objects of one pixel survive every rule; no object makes no feature."""
    mask = np.zeros((120, 160), np.uint8)
    assert len(made(tmp_path, mask, simplify_m=30.0, regularise=True, min_area_m2=1.0)) == 0
    mask[::9, ::9] = 1
    features = made(tmp_path, mask, simplify_m=30.0, regularise=True)
    assert len(features) == mask.sum()
    assert shapely.is_valid(features.polygons).all()
    area, _ = measure(outlines(mask).polygons, georef(tmp_path))
    assert np.allclose(features.columns["area_m2"], area, rtol=0.6)
