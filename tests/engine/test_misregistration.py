"""Phase correlation of two dates: known shifts, what hides them, and what has none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.engine import misregistration as reg
from kestrel.engine.events import Track
from kestrel.engine.joined import joined
from kestrel.engine.scene import open_scene
from kestrel.tests.support import pair_toys as toys
from kestrel.tests.support import rasters
from kestrel.tests.support.jobs import Recorder
from scipy import ndimage

shifts = st.floats(-10, 10)


def moved(image, x, y):
    return ndimage.shift(image, (y, x), order=3, mode="reflect")


def measured(tmp_path, before, after, **profile):
    paths = [rasters.write(tmp_path / f"{n}.tif", each, **profile) for n, each in enumerate((before, after))]
    scenes = [(role, open_scene(str(p), 1)) for role, p in zip(("before", "after"), paths, strict=True)]
    return reg.measure(joined(scenes), Track(Recorder()))


@given(x=shifts, y=shifts)
@settings(max_examples=15, deadline=None)
def test_property_a_shift_is_found_to_a_tenth_of_a_pixel(x, y):
    image = toys.ground(128, 128, 1)[0]
    found, quality = reg.peak(reg.surface(image - image.mean(), moved(image, x, y) - image.mean()))
    assert found == pytest.approx((x, y), abs=0.1)
    assert quality > reg.CLEAR


def test_feature_the_peak_of_equal_patches_is_one():
    image = toys.ground(64, 64, 1)[0] - 127
    found = reg.surface(image, image)
    assert found[32, 32] == pytest.approx(1, abs=1e-3)  # a frequency without power has no phase
    assert reg.peak(found)[0] == pytest.approx((0, 0), abs=1e-6)


def test_feature_light_season_noise_and_new_houses_hide_no_shift(tmp_path):
    rng = np.random.default_rng(7)
    before = toys.ground(400, 420, 1)[0]
    after = 20 + 0.5 * moved(before, 2.3, -1.6) + rng.normal(0, 8, before.shape)
    after += 0.4 * np.linspace(0, 150, 420)
    for row, col in rng.integers(0, 380, (12, 2)):
        after[row : row + 20, col : col + 20] = 250
    found = measured(tmp_path, before.astype("float32"), after.astype("float32"))
    assert found.shift == pytest.approx((2.3, -1.6), abs=0.2)
    assert found.clear
    assert found.agreeing == found.patches > 1


def test_feature_two_places_have_no_clear_peak(tmp_path):
    quality = []
    for seed in range(6):
        pair = [toys.ground(300, 300, 1, seed=100 * k + seed)[0].astype("float32") for k in (1, 2)]
        found = measured(tmp_path, *pair)
        quality.append(found.quality)
        assert not found.clear
    assert max(quality) < reg.CLEAR


def test_feature_patches_without_data_do_not_count(tmp_path):
    before = toys.ground(512, 512, 1)[0].astype("float32")
    after = moved(before, 3, 0).astype("float32")
    after[:, 250:] = -9999
    found = measured(tmp_path, before, after, nodata=-9999)
    assert found.shift == pytest.approx((3, 0), abs=0.2)
    assert 0 < found.patches < len(reg.lattice(512, 512, 256))
    after[:] = -9999
    assert measured(tmp_path, before, after, nodata=-9999) is None


def test_shape_lattice(tmp_path):
    for height, width in ((64, 64), (200, 1000), (5000, 256), (3000, 4000)):
        side = min(reg.SIDE, height, width)
        cells = reg.lattice(height, width, side)
        assert 1 <= len(cells) <= reg.PATCHES
        assert len(set(cells)) == len(cells)
        assert all(0 <= r <= height - side and 0 <= c <= width - side for r, c, *_ in cells)
    tiny = np.zeros((63, 200), "float32")
    assert measured(tmp_path, tiny + 1, tiny) is None
