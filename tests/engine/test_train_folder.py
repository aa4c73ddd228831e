"""A folder of tiles to learn from: what belongs together, what is cut, what is held out, what is refused."""

import numpy as np
import pytest
from kestrel.engine.errors import EngineError
from kestrel.tests.support.date_pairs import Keeper, date, folder_inputs, kept, write_tile
from kestrel.tests.support.rasters import write


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))


@pytest.fixture
def folder(tmp_path):
    """Six tiles of 32 x 48, each its number in the first pixel of both dates; changes in 1, 4 and 10."""
    folder = tmp_path / "tiles"
    for number in (1, 2, 3, 4, 10, 11):
        before, after = date(32, 48, number), date(32, 48, number + 100)
        label = np.zeros((32, 48), bool)
        if number in (1, 4, 10):
            label[2:9, 5:30] = True
        write_tile(folder, f"site_{number}", before, after, label)
    return folder


def test_oracle_crops_are_the_tiles_pixels_and_whole_images_are_held_out(folder, tmp_path):
    (folder / "A" / "site_1.png.aux.xml").write_text("<x/>")
    (folder / "label" / "readme.txt").write_text("made by hand")
    (folder / "B" / "own.safetensors").write_text("of an earlier training")
    crops, events = kept(folder_inputs(folder), tmp_path)
    assert crops.images["before"].shape == (6 * 6, 3, 16, 16)
    assert [crops.images[role].dtype for role in ("before", "changes")] == [np.uint8, np.uint8]
    for position, number in enumerate((1, 2, 3, 4, 10, 11)):  # by the size of numbers, not letter by letter
        for role, seed in (("before", number), ("after", number + 100)):
            image = date(32, 48, seed)
            for index in range(6):
                row, col = (16 * part for part in divmod(index, 3))
                crop = crops.images[role][6 * position + index]
                np.testing.assert_array_equal(crop, image[:, row : row + 16, col : col + 16])
        held_out = crops.validation[6 * position : 6 * position + 6]
        assert held_out.all() or not held_out.any()
    changed = crops.images["changes"].any(axis=(1, 2, 3))
    assert changed[crops.validation].any()
    assert changed[~crops.validation].any()
    assert crops.images["changes"].sum() == 3 * 7 * 25
    said = [text for _, text in events.lines]
    assert "Red, green, blue of 6 file(s) in A/: bands 1, 2, 3 (by colour interpretation)." in said
    assert any("by whole images" in text for text in said)


@pytest.mark.parametrize("empty", [0, 2])
def test_feature_changes_in_one_image_only_are_split_into_blocks(tmp_path, empty):
    label = np.zeros((128, 128), bool)
    label[::20, ::20] = True
    for name in "abc"[: 1 + empty]:
        write_tile(tmp_path / "t", name, date(128, 128, 1), date(128, 128, 2), label & (name == "a"))
    crops, events = kept(folder_inputs(tmp_path / "t"), tmp_path)
    assert 0.1 < crops.validation.mean() < 0.35
    changed = crops.images["changes"].any(axis=(1, 2, 3))
    assert changed[crops.validation].any()
    assert changed[~crops.validation].any()
    assert any("in blocks of" in text for _, text in events.lines)


def test_feature_geotiffs_of_sixteen_bits_have_one_stretch_over_all_files(tmp_path):
    dates = []
    for number in range(4):
        pair = [date(32, 32, 10 * number + i, "uint16") // (number + 1) for i in range(2)]
        dates += pair
        for sub, image in zip("AB", pair, strict=True):
            (tmp_path / "t" / sub).mkdir(parents=True, exist_ok=True)
            write(tmp_path / "t" / sub / f"{number}.tif", image, place="bare")
        (tmp_path / "t" / "label").mkdir(exist_ok=True)
        label = np.zeros((32, 32), np.uint8)
        label[5:9, 5:20] = 1
        # 0 declared as nodata, as masks often have it: it is "no change" all the same
        write(tmp_path / "t" / "label" / f"{number}.tif", label, place="bare", nodata=0)
    crops, _ = kept(folder_inputs(tmp_path / "t", before=[3, 2, 1]), tmp_path)
    turned = [image[::-1] if i % 2 == 0 else image for i, image in enumerate(dates)]
    every = np.concatenate([image.reshape(3, -1) for image in turned], axis=1)
    low, high = (np.percentile(every, p, axis=1)[:, None, None] for p in (2, 98))
    wanted = np.clip((turned[2] - low) / (high - low), 0, 1)[:, :16, :16]
    np.testing.assert_allclose(crops.images["before"][4], wanted, atol=1e-5)
    assert crops.images["changes"].sum() == 4 * 4 * 15


def test_feature_labels_of_any_colour_and_what_they_leave_unknown(tmp_path):
    """A drawing with a clear background; a mask whose 255 means that nobody looked."""
    for name in ("drawn", "mask"):
        write_tile(tmp_path / "t", name, date(32, 32, 1), date(32, 32, 2), np.zeros((32, 32), bool))
    (tmp_path / "t" / "label" / "mask.png").unlink()
    drawn = np.zeros((4, 32, 32), np.uint8)
    drawn[1:4, 2:6, 3:9] = 200  # green, blue and opaque
    drawn[0, 20:25, 20:25] = 90  # left behind under a clear pixel
    write(tmp_path / "t" / "label" / "drawn.png", drawn, place="bare", driver="PNG")
    mask = np.zeros((32, 32), np.uint8)
    mask[18:20, 2:9] = 1
    mask[5, 30] = 255
    write(tmp_path / "t" / "label" / "mask.tif", mask, place="bare", nodata=255)
    crops, _ = kept(folder_inputs(tmp_path / "t"), tmp_path)
    labels = crops.images["changes"][:, 0]
    assert len(labels) == 4 + 3  # the crop of the second tile's upper right corner is left out
    assert labels.sum(axis=(1, 2)).tolist() == [24, 0, 0, 0, 0, 14, 0]


def remove(folder):
    (folder / "B" / "site_2.png").unlink()


def rename(folder):
    (folder / "label").rename(folder / "labels")


def resize(folder):
    write(folder / "label" / "site_3.png", np.zeros((30, 48), np.uint8), place="bare", driver="PNG")


def grey(folder):
    write(folder / "B" / "site_3.png", np.zeros((32, 48), np.uint8), place="bare", driver="PNG")


def double(folder):
    write(folder / "A" / "site_3.tif", date(32, 48, 1), place="bare")


def text(folder):
    (folder / "A" / "site_3.png").write_text("no picture")


def deep(folder):
    write(folder / "B" / "site_3.png", date(32, 48, 1, "uint16"), place="bare", driver="PNG")


def unlabelled(folder):
    for file in (folder / "label").iterdir():
        write(file, np.zeros((32, 48), np.uint8), place="bare", driver="PNG")


def emptied(folder):
    for file in (folder / "B").iterdir():
        file.unlink()


REFUSALS = {
    "partner": (remove, r"A/site_2.png has no partner of that name in B/"),
    "sub-folder": (rename, r"FOLDER tiles has no sub-folder label/"),
    "size": (resize, r"label/site_3.png has 48 x 30 pixels, A/site_3.png 48 x 32"),
    "bands": (grey, r"B/site_3.png: site_3.png has 1 band; change detection needs three visible bands"),
    "double": (double, r"A/ holds site_3.png and site_3.tif, so it is not sure which one"),
    "text": (text, r"A/site_3.png: .* cannot be opened as a raster"),
    "units": (deep, r"B/site_3.png is uint16 and A/site_1.png uint8, so one automatic stretch cannot"),
    "no-change": (unlabelled, r"None of the 36 crops of 16 x 16 pixels holds a pixel of CHANGES"),
    "empty": (emptied, r"B/ in FOLDER tiles holds no image"),
    "few": (None, r"The 6 images of FOLDER tiles hold 0 crops of 64 x 64 pixels"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_exception_names_the_file_that_does_not_fit(folder, tmp_path, case):
    change, words = REFUSALS[case]
    if change is not None:
        change(folder)
    keeper = Keeper(16 if change else 64)
    with pytest.raises(EngineError, match=words) as error:
        kept(folder_inputs(folder), tmp_path, keeper)
    assert "\n" not in error.value.message
    assert keeper.crops is None
