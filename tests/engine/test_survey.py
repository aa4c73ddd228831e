"""What a task asks of the whole scene: each block once, scaled, whatever part of it is run."""

import dataclasses

import numpy as np
import pytest
import rasterio
from kestrel.engine.errors import Cancelled
from kestrel.engine.events import Track
from kestrel.engine.scaling import Scaling
from kestrel.engine.scene import Reader, open_scene
from kestrel.engine.statistics import BLOCKS, CELL_PIXELS, band_statistics
from kestrel.engine.stretch import resolve_stretch
from kestrel.engine.survey import survey
from kestrel.models.scaling import stretch_from
from kestrel.tests.support import rasters
from kestrel.tests.support.jobs import Recorder
from kestrel.tests.support.toys import toy_task

UNIT = (Scaling("given", 0.0, 1000.0, "unit", "parameters"),) * 3


def blocks_of(path, region=None, scalings=UNIT, events=None, bands=(1, 2, 3)):
    """Return the blocks that a task is shown, and the task it makes of them."""
    seen = []

    def look(blocks):
        seen.extend(blocks)
        return dataclasses.replace(task, name="surveyed")

    task = toy_task(survey=look)
    scene = open_scene(str(path), bands)
    result = survey(task, scene, scalings, region, Track(events or Recorder()))
    assert result.name == "surveyed"
    return seen


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(1, 1000, (3, height, width), dtype=np.uint16)


def test_smoke_a_task_without_a_survey_is_left_alone(tmp_path):
    task = toy_task()
    scene = open_scene(str(rasters.write(tmp_path / "a.tif", image(5, 5))), (1, 2, 3))
    assert survey(task, scene, UNIT, None, Track(Recorder())) is task


@pytest.mark.parametrize("profile", [{"blockysize": 8}, {"tiled": True, "blockxsize": 64, "blockysize": 128}])
@pytest.mark.parametrize("bands", [(1, 2, 3), (3, 1, 2)])
def test_feature_blocks_cover_a_small_raster_with_its_scaled_values(tmp_path, profile, bands):
    pixels = image(256, 192)
    seen = np.zeros((256, 192), int)
    for block in blocks_of(rasters.write(tmp_path / "a.tif", pixels, **profile), bands=bands):
        assert block.image.dtype == np.float32
        height, width = block.valid.shape
        at = np.s_[block.row : block.row + height, block.col : block.col + width]
        expected = pixels[[b - 1 for b in bands]][(slice(None), *at)] / 1000
        assert np.allclose(block.image, expected, atol=1e-6)
        assert block.valid.all()
        seen[at] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("shape", "profile"),
    [
        ((300, 217), {"blockysize": 1}),
        ((300, 217), {"blockysize": 7}),
        ((200, 200), {"tiled": True, "blockxsize": 16, "blockysize": 16}),
        ((1030, 1030), {"tiled": True, "blockxsize": 1024, "blockysize": 1024}),
        ((1, 700), {}),
        ((700, 1), {}),
        ((63, 65), {}),
        ((3, 2), {}),
    ],
)
def test_shape_blocks_have_room_for_a_neighbourhood(tmp_path, shape, profile):
    path = rasters.write(tmp_path / "a.tif", image(*shape), **profile)
    blocks = blocks_of(path)
    covered = np.zeros(shape, bool)
    for block in blocks:
        height, width = block.valid.shape
        assert height >= min(64, shape[0])
        assert width >= min(64, shape[1])
        assert height * width <= CELL_PIXELS
        covered[block.row : block.row + height, block.col : block.col + width] = True
    assert covered.all()


def test_feature_a_large_raster_is_seen_in_at_most_400_blocks_read_once(tmp_path, monkeypatch):
    path = sparse(tmp_path / "a.tif", size=40_000)
    reads = []
    read = Reader.read_bands
    monkeypatch.setattr(Reader, "read_bands", lambda self, *w: reads.append(w) or read(self, *w))
    with rasterio.open(path, "r+") as dataset:
        # one valid pixel in the lattice's first cell
        first = 40_000 // 20 // 2 // 256 * 256
        dataset.write(np.full((3, 1, 1), 500, np.uint16), window=((first, first + 1), (first, first + 1)))
    blocks = blocks_of(path)
    assert len(reads) == BLOCKS
    assert len(blocks) == 1
    assert blocks[0].image[:, 0, 0].tolist() == [0.5] * 3


def sparse(path, size=40_000, at=None, side=300):
    """A sparse raster, zero = nodata, with a square of valid pixels from ``at`` on."""
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=size, width=size, dtype="uint16", nodata=0, tiled=True,
        blockxsize=256, blockysize=256, sparse_ok=True, crs=rasters.UTM,
        transform=rasters.PLACES["north_up"][1],
    ) as dataset:  # fmt: skip
        if at:
            dataset.write(image(side, side), window=rasterio.windows.Window(at[1], at[0], side, side))
    return path


def test_feature_region_is_asked_where_the_lattice_finds_nothing(tmp_path):
    path = sparse(tmp_path / "a.tif", at=(256, 256))
    blocks = blocks_of(path, region=(256, 256, 300, 300))
    seen = np.zeros((600, 600), bool)
    for block in blocks:
        height, width = block.valid.shape
        seen[block.row : block.row + height, block.col : block.col + width] |= block.valid
    assert seen[256:556, 256:556].all()
    assert seen.sum() == 300 * 300


def test_feature_valid_pixels_that_no_lattice_meets_are_searched(tmp_path):
    path = sparse(tmp_path / "a.tif", size=10_240, at=(4, 4), side=200)  # in the first block of 40 x 40
    (block,) = blocks_of(path)
    assert (block.row, block.col, block.valid.sum()) == (0, 0, 200 * 200)


def test_oracle_a_region_changes_nothing_where_the_lattice_sees_the_scene(tmp_path):
    path = rasters.write(tmp_path / "a.tif", image(300, 200))
    whole, part = blocks_of(path), blocks_of(path, region=(10, 20, 30, 40))
    assert len(whole) == len(part)
    for a, b in zip(whole, part, strict=True):
        assert (a.row, a.col) == (b.row, b.col)
        assert np.array_equal(a.image, b.image)


def test_fault_8_invalid_in_one_band_is_zero_in_all(tmp_path):
    pixels = image(40, 50).astype(np.float32)
    pixels[1, 3, 4] = np.nan
    pixels[2, 5, 6] = -9999
    (block,) = blocks_of(rasters.write(tmp_path / "a.tif", pixels, nodata=-9999))
    assert np.argwhere(~block.valid).tolist() == [[3, 4], [5, 6]]
    assert (block.image[:, ~block.valid] == 0).all()
    assert (block.image[:, block.valid] > 0).all()


def test_fault_7_all_nodata_gives_no_block(tmp_path):
    path = rasters.write(tmp_path / "a.tif", np.zeros((3, 300, 300), np.uint16), nodata=0)
    scene = open_scene(str(path), (1, 2, 3))
    statistics = band_statistics(scene, None, Track(Recorder()))
    assert statistics == (None, None, None)
    assert blocks_of(path, scalings=resolve_stretch(stretch_from({}), statistics)) == []
    assert blocks_of(path) == []  # with a given stretch as well


def test_feature_cancel_is_heard_between_blocks(tmp_path):
    events = Recorder()
    path = rasters.write(tmp_path / "a.tif", image(700, 600), tiled=True, blockxsize=64, blockysize=64)

    def look(blocks):
        next(blocks)
        events.cancel.set()
        next(blocks)

    with pytest.raises(Cancelled):
        survey(toy_task(survey=look), open_scene(str(path), (1, 2, 3)), UNIT, None, Track(events))
