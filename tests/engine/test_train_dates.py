"""Two dates and polygons to learn from: where labels lie, which crops are cut, what is refused."""

import numpy as np
import pytest
from kestrel.engine.crops import split
from kestrel.engine.errors import EngineError
from kestrel.tests.support.date_pairs import Keeper, date, kept, layer_inputs, moved, write_polygons
from kestrel.tests.support.rasters import write

#: Pixel rectangles (column, row, column, row): one over four crops of 16, one in a corner, a sliver.
BOXES = [(10, 12, 22, 20), (60, 44, 64, 48), (33, 33, 34, 40)]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))


def drawn(height, width):
    mask = np.zeros((height, width), bool)
    for left, top, right, bottom in BOXES:
        mask[top:bottom, left:right] = True
    return mask


def tiles(image, side=16):
    """(C, H, W) -> (N, C, side, side) in reading order."""
    c, h, w = image.shape
    cut = image.reshape(c, h // side, side, w // side, side)
    return cut.transpose(1, 3, 0, 2, 4).reshape(-1, c, side, side)


@pytest.mark.parametrize(
    ("place", "epsg"),
    [("north_up", None), ("rotated", None), ("rotated", 4326), ("north_up", 3857), ("bare", None)],
)
def test_oracle_labels_lie_where_the_polygons_do(tmp_path, place, epsg):
    images = [date(48, 64, seed) for seed in (1, 2)]
    paths = [write(tmp_path / f"{name}.tif", i, place) for name, i in zip("ab", images, strict=True)]
    changes = write_polygons(tmp_path / "c.gpkg", BOXES, place, epsg)
    crops, events = kept(layer_inputs(*paths, changes), tmp_path)
    for role, image in zip(("before", "after"), images, strict=True):
        assert crops.images[role].dtype == np.uint8
        np.testing.assert_array_equal(crops.images[role], tiles(image))
    np.testing.assert_array_equal(crops.images["changes"], tiles(drawn(48, 64)[None]))
    share = drawn(48, 64).mean()
    without = 12 - len({(r // 16, c // 16) for r, c in np.argwhere(drawn(48, 64))})
    assert any(
        text.startswith(f"{share:.2%} of their pixels") and f"{without} crops hold none, and all" in text
        for _, text in events.lines
    )


def test_oracle_later_date_on_another_grid_and_a_common_ground(tmp_path):
    """AFTER has half the pixel size and covers a part: crops begin where both do."""
    before, after = date(64, 96, 1), date(40, 64, 2)
    fine = after.repeat(2, 1).repeat(2, 2)
    where = moved("north_up", 16, 8, 0.5)
    paths = [write(tmp_path / "a.tif", before), write(tmp_path / "b.tif", fine, transform=where)]
    changes = write_polygons(tmp_path / "c.gpkg", BOXES)
    crops, events = kept(layer_inputs(*paths, changes), tmp_path)
    part = np.s_[:, 8:40, 16:80]
    np.testing.assert_array_equal(crops.images["before"], tiles(before[part]))
    np.testing.assert_array_equal(crops.images["after"], tiles(after[:, :32, :64]))
    np.testing.assert_array_equal(crops.images["changes"], tiles(drawn(64, 96)[None][part]))
    assert any("is resampled (bilinear) to the grid of BEFORE" in text for _, text in events.lines)


def test_feature_sixteen_bits_get_the_stretch_of_both_dates(tmp_path):
    """As a prediction has it: percentiles 2 and 98 of both dates' pixels, band for band."""
    images = [date(48, 64, 1, "uint16"), date(48, 64, 2, "uint16") // 2]
    paths = [write(tmp_path / f"{name}.tif", i) for name, i in zip("ab", images, strict=True)]
    changes = write_polygons(tmp_path / "c.gpkg", BOXES)
    crops, _ = kept(layer_inputs(*paths, changes), tmp_path)
    both = np.concatenate([i.reshape(3, -1) for i in images], axis=1)
    low, high = (np.percentile(both, p, axis=1)[:, None, None] for p in (2, 98))
    for role, image in zip(("before", "after"), images, strict=True):
        wanted = tiles(np.clip((image - low) / (high - low), 0, 1))
        np.testing.assert_allclose(crops.images[role], wanted, atol=1e-5)
    # bands of the later date chosen by hand
    turned = layer_inputs(*paths, changes, after=[3, 2, 1])
    crops, _ = kept(turned, tmp_path, stretch_min=[0], stretch_max=[3000])
    np.testing.assert_allclose(crops.images["after"], tiles(images[1][::-1] / 3000), atol=1e-5)


def test_feature_nodata_of_either_date_leaves_a_crop_out(tmp_path):
    before, after = date(48, 64, 1), date(48, 64, 2)
    before[0, 3, 20] = 0
    after[2, 40, 5] = 0
    paths = [write(tmp_path / f"{n}.tif", i, nodata=0) for n, i in (("a", before), ("b", after))]
    crops, _ = kept(layer_inputs(*paths, write_polygons(tmp_path / "c.gpkg", BOXES)), tmp_path)
    keep = [i for i in range(12) if i not in (1, 8)]
    np.testing.assert_array_equal(crops.images["before"], tiles(before)[keep])
    np.testing.assert_array_equal(crops.images["changes"], tiles(drawn(48, 64)[None])[keep])


def test_feature_changes_on_one_diagonal_of_blocks_are_split_too():
    """Of 4 x 2 crops, each a block, the first and the last are of one fold by the knight's move."""
    places = [(row, col) for row in range(4) for col in range(2)]
    validation, _ = split(places, np.array([9.0, 0, 0, 0, 0, 0, 0, 9.0]))
    assert validation[0] != validation[-1]


@pytest.mark.parametrize("corner", [(0, 0), (11, 3), (5, 11)])
def test_property_both_parts_hold_changes_where_blocks_allow(corner):
    places = [(row, col) for row in range(12) for col in range(12)]
    marks = np.zeros(len(places))
    for row, col in (corner, (corner[0] // 2, 6)):  # two places only
        marks[places.index((row, col))] = 9.0
    validation, side = split(places, marks)
    assert marks[validation].any()
    assert marks[~validation].any()
    assert 0.1 < validation.mean() < 0.35
    assert side in (1, 2, 4)


def far(folder, paths):
    return paths[0], paths[1], write_polygons(folder / "far.gpkg", [(900, 900, 905, 905)])


def beside(folder, paths):
    """Polygons on the ground of both dates, but in no whole crop."""
    paths = [write(folder / f"{n}.tif", date(48, 70, s)) for n, s in (("p", 1), ("q", 2))]
    return *paths, write_polygons(folder / "edge.gpkg", [(65, 5, 69, 9)])


def apart(folder, paths):
    other = write(folder / "apart.tif", date(48, 64, 5), transform=moved("north_up", 500, 0))
    return paths[0], other, paths[2]


def lonely(folder, paths):
    return paths[0], write(folder / "bare.tif", date(48, 64, 5), crs=None), paths[2]


def mixed(folder, paths):
    return paths[0], write(folder / "deep.tif", date(48, 64, 5, "uint16")), paths[2]


def thin(folder, paths):
    return paths[0], write(folder / "thin.tif", date(48, 64, 5)[:2]), paths[2]


REFUSALS = {
    "no-polygon": (far, {}, r"No polygon of CHANGES far.gpkg lies on the ground that BEFORE a.tif and AFTER"),
    "no-mark": (beside, {}, r"None of the 12 crops of 16 x 16 pixels holds a pixel of CHANGES"),
    "same": (lambda _, p: (p[0], p[0], p[2]), {}, r"BEFORE and AFTER are the same raster \(a.tif\)"),
    "apart": (apart, {}, r"BEFORE a.tif and AFTER apart.tif do not overlap"),
    "crs": (lonely, {}, r"bare.tif has no CRS, but a.tif has one"),
    "units": (mixed, {}, r"BEFORE a.tif is uint8 and AFTER deep.tif uint16, so one automatic stretch"),
    "bands": (thin, {}, r"AFTER: thin.tif has 2 bands; change detection needs three visible bands"),
    "no-changes": (lambda _, p: (p[0], p[1]), {}, r"CHANGES: a layer is needed to train toy"),
    "raster": (lambda _, p: (p[0], p[1], p[0]), {}, r"CHANGES .*a.tif cannot be read"),
    "few": (lambda _, p: p, {"crop": 32}, r"BEFORE a.tif and AFTER b.tif hold 2 crops of 32 x 32 .* least 3"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_exception_one_sentence_before_any_step(tmp_path, case):
    paths = [write(tmp_path / f"{n}.tif", date(48, 64, s)) for n, s in (("a", 1), ("b", 2))]
    paths.append(write_polygons(tmp_path / "c.gpkg", BOXES))
    make, changes, words = REFUSALS[case]
    found = make(tmp_path, paths)
    inputs = {role: {"path": str(p)} for role, p in zip(("before", "after", "changes"), found, strict=False)}
    keeper = Keeper(changes.get("crop", 16), least=3)
    with pytest.raises(EngineError, match=words) as error:
        kept(inputs, tmp_path, keeper)
    assert "\n" not in error.value.message
    assert "MATCH_RADIOMETRY" not in error.value.hint
    assert keeper.crops is None


def test_feature_shifted_dates_warn(tmp_path):
    ground = np.kron(date(40, 40, 1), np.ones((1, 8, 8), np.uint8))
    paths = [
        write(tmp_path / "a.tif", ground[:, :256, :256]),
        write(tmp_path / "b.tif", ground[:, 4:260, 6:262]),
    ]
    changes = write_polygons(tmp_path / "c.gpkg", BOXES)
    _, events = kept(layer_inputs(*paths, changes), tmp_path, Keeper(64))
    warned = [text for level, text in events.lines if level == "warning"]
    assert any("AFTER b.tif lies -6.0" in text and "register the dates first" in text for text in warned)
    assert not any("ALIGN" in text for _, text in events.lines)
