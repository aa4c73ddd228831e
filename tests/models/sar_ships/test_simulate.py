"""The simulator: determinism, clutter statistics against the formula, geometry, visibility, land."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.models.sar_ships import clutter, simulate
from kestrel.models.sar_ships.coast import Pier, fill_pier, make_land, seaward
from kestrel.models.sar_ships.points import add_ambiguity, add_points
from kestrel.models.sar_ships.ships import KINDS, Ship, axis, draw_size, hull_box, hull_cover, scatterers

CALM = simulate.Conditions(
    looks=4, bandwidth=0.7, taper=0.8, sea_db=-20, trend_db=0, state_db=0, noise_db=-40, nu=20, swell=0,
    wavelength_m=150, direction_deg=30, grain_px=0.5, land_db=-8, land_spread_db=1, town_density=0, coast=1.8,
    ship_db=(5, 0), ambiguity_db=None, arrangement="open",
)  # fmt: skip

headings = st.floats(0, 360)
lengths = st.floats(60, 350)


def moments(looks: int, nu: float, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    field = rng.standard_normal((900, 900), dtype=np.float32)
    texture = clutter.gamma_texture(field, nu)
    power = clutter.k_clutter(rng, np.full((900, 900), 0.03, np.float32), texture, looks, 0.9, 0.8)
    return float(power.mean()), float(power.var() / power.mean() ** 2)


@pytest.mark.parametrize(("looks", "nu"), [(1, 3.0), (1, 30.0), (4, 2.0), (4, 10.0), (6, 5.0)])
def test_clutter_moments_follow_the_k_distribution(looks, nu):
    mean, contrast = moments(looks, nu, seed=3)
    assert mean == pytest.approx(0.03, rel=0.01)
    assert contrast == pytest.approx(1 / looks + 1 / nu + 1 / (looks * nu), rel=0.04)


@pytest.mark.parametrize("shape", [0.5, 1.5, 8.0, 60.0])
def test_texture_is_gamma_of_mean_one(shape):
    field = np.random.default_rng(0).standard_normal((1200, 1200), dtype=np.float32)
    texture = clutter.gamma_texture(field, shape)
    assert texture.mean() == pytest.approx(1, abs=0.005)
    assert texture.var() == pytest.approx(1 / shape, rel=0.03)
    assert ((texture - 1) ** 3).mean() == pytest.approx(2 / shape**2, rel=0.12)  # third moment of a gamma


def test_sea_waves_have_variance_one_and_the_wavelength_asked_for():
    rng = np.random.default_rng(1)
    field = clutter.sea_waves(rng, 512, 512, 10, wavelength_m=160, direction_deg=0, swell=0.6, grain_px=0.5)
    assert field.var() == pytest.approx(1, abs=0.1)
    along_columns = (np.abs(np.fft.rfft(field, axis=1)) ** 2).mean(axis=0)
    assert 512 / (np.argmax(along_columns[2:]) + 2) == pytest.approx(16, rel=0.25)  # 160 m at 10 m


def test_neighbouring_speckle_correlates_with_the_bandwidth():
    def correlation(bandwidth):
        real, imaginary = clutter.speckle_look(np.random.default_rng(0), 400, 400, bandwidth, 1.0)
        assert (real**2 + imaginary**2).mean() == pytest.approx(1, abs=0.02)
        return float((real[:, 1:] * real[:, :-1]).mean() / (real**2).mean())

    assert correlation(0.5) > 0.5
    assert abs(correlation(1.0)) < 0.02  # critical sampling: sinc is zero at whole pixels


@pytest.mark.parametrize("pixel_m", [1.0, 3.0, 10.0, 20.0])
def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(pixel_m):
    first, second = (simulate.simulate_scene(5, 200, 260, pixel_m) for _ in range(2))
    assert first.amplitude.tobytes() == second.amplitude.tobytes()
    assert first.boxes.tobytes() == second.boxes.tobytes()
    assert first.ships == second.ships
    other = simulate.simulate_scene(6, 200, 260, pixel_m)
    assert other.amplitude.tobytes() != first.amplitude.tobytes()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 257), (513, 64)])
def test_shape_and_values_are_sound_for_odd_sizes(height, width):
    scene = simulate.simulate_scene(2, height, width, 5.0)
    assert scene.amplitude.shape == scene.land.shape == (height, width)
    assert scene.amplitude.dtype == np.float32
    assert np.isfinite(scene.amplitude).all()
    assert (scene.amplitude > 0).all()


@pytest.mark.parametrize(("height", "width", "pixel_m"), [(16, 100, 5), (100, 100, 0.1), (100, 100, 100)])
def test_exception_names_the_refused_size(height, width, pixel_m):
    with pytest.raises(ValueError, match=f"{height} x {width} px at {pixel_m} m"):
        simulate.simulate_scene(0, height, width, pixel_m)


@given(heading=headings, length=lengths, ratio=st.floats(5, 8), pixel_m=st.floats(1, 20))
@settings(max_examples=60, deadline=None)
def test_box_is_the_extent_of_the_rotated_labelled_hull(heading, length, ratio, pixel_m):
    ship = Ship(500, 400, length, length / ratio, heading, "cargo", 5)
    long, wide = length / pixel_m + 2, max(length / ratio / pixel_m, 3)
    turn = np.deg2rad(heading)
    corners = np.array([(a * long / 2, b * wide / 2) for a in (-1, 1) for b in (-1, 1)])
    # heading runs clockwise from up, so the bow points to (sin, -cos) in columns and rows
    x = 400 + corners[:, 0] * np.sin(turn) + corners[:, 1] * np.cos(turn)
    y = 500 - corners[:, 0] * np.cos(turn) + corners[:, 1] * np.sin(turn)
    box = hull_box(ship, pixel_m)
    assert box == pytest.approx([x.min(), y.min(), x.max(), y.max()], abs=0.01)
    assert (box[2:] - box[:2] >= 3 - 1e-3).all()


@pytest.mark.parametrize("heading", [0, 30, 90, 135, 222, 300])
@pytest.mark.parametrize("pixel_m", [1.0, 3.0])
def test_box_matches_the_rendered_hull(heading, pixel_m):
    ship = Ship(160, 150, 180, 28, heading, "cargo", 5)
    rows, cols, share = hull_cover(ship, pixel_m, 320, 320)
    y, x = np.nonzero(share > 0.5)
    x1, y1, x2, y2 = hull_box(ship, pixel_m)
    seen = np.array(
        [x.min() + cols.start, y.min() + rows.start, x.max() + cols.start + 1, y.max() + rows.start + 1]
    )
    # grown by a pixel at the ends; the pointed bow leaves the label's corners empty
    slack = 2.5 + 0.5 * ship.beam_m / pixel_m
    assert (seen - [x1, y1, x2, y2])[:2].min() > -1
    assert (seen - [x1, y1, x2, y2])[2:].max() < 1
    assert np.abs(seen - [x1, y1, x2, y2]).max() < slack


def test_bright_pixels_of_a_lone_ship_fill_its_box(monkeypatch):
    ship = Ship(128, 128, 200, 30, 40, "cargo", 12)
    monkeypatch.setattr(simulate, "place_ships", lambda *_: [ship])
    scene = simulate.simulate_scene(
        1, 256, 256, 5.0, land=0, conditions=dataclasses.replace(CALM, sea_db=-25)
    )
    y, x = np.nonzero(scene.amplitude > 6 * np.median(scene.amplitude))
    x1, y1, x2, y2 = scene.boxes[0]
    inside = (x >= x1 - 1) & (x < x2 + 1) & (y >= y1 - 1) & (y < y2 + 1)
    assert inside.mean() > 0.8  # the rest are sidelobes
    assert np.ptp(x[inside]) > 0.8 * (x2 - x1)
    assert np.ptp(y[inside]) > 0.8 * (y2 - y1)


@pytest.mark.parametrize("kind", KINDS)
def test_scatterers_lie_on_the_hull_and_sizes_are_those_of_ships(kind):
    rng = np.random.default_rng(4)
    for _ in range(50):
        length, beam = draw_size(rng, kind, 20)
        assert 20 <= length <= 350
        assert 2.5 < length / beam < 8
        ship = Ship(100, 90, length, beam, float(rng.uniform(0, 360)), kind, 5)
        rows, cols, power = scatterers(rng, ship, 3.0)
        assert power.sum() == pytest.approx(1)
        dy, dx = axis(ship.heading_deg)
        along, across = (rows - 100) * dy + (cols - 90) * dx, -(rows - 100) * dx + (cols - 90) * dy
        assert np.abs(along).max() <= length / 6 + 1e-6
        assert np.abs(across).max() <= beam / 6 + 1e-6


def test_faint_ships_stay_in_the_picture_without_a_label(monkeypatch):
    fleet = [Ship(60 + 50 * i, 128, 150, 25, 90, "cargo", db) for i, db in enumerate((-40, -22, 8))]
    monkeypatch.setattr(simulate, "place_ships", lambda *_: fleet)
    scene = simulate.simulate_scene(1, 256, 256, 5.0, land=0, conditions=CALM)
    assert [ship.visible for ship in scene.ships] == [False, False, True]
    assert len(scene.boxes) == 1
    assert scene.boxes[0] == pytest.approx(hull_box(fleet[2], 5.0))


def test_visibility_follows_the_documented_formula():
    ship = Ship(50, 50, 100, 16, 0, "cargo", power_db=0)
    judged = simulate.judge(ship, hull_px=64.0, clutter=0.1, pixel_m=5.0, conditions=CALM)
    labelled_px = (100 / 5 + 2) * (16 / 5)
    contrast = (64 / labelled_px) / 0.1
    deviation = np.sqrt(1 / 4 + 1 / 20 + 1 / 80)
    assert judged.contrast_db == pytest.approx(10 * np.log10(contrast))
    assert judged.snr == pytest.approx(contrast * np.sqrt(labelled_px * 0.7**2) / deviation)
    assert judged.visible
    faint = simulate.judge(ship, hull_px=64.0, clutter=0.6, pixel_m=5.0, conditions=CALM)
    assert 64 / labelled_px / 0.6 < simulate.MIN_CONTRAST
    assert not faint.visible


@pytest.mark.parametrize("arrangement", ["open", "lane", "anchorage", "port"])
def test_hulls_never_touch_land_or_each_other(arrangement):
    conditions = dataclasses.replace(CALM, arrangement=arrangement)
    scene = simulate.simulate_scene(8, 500, 500, 4.0, ships=40, land=0.4, conditions=conditions)
    assert len(scene.ships) > 15
    count = np.zeros(scene.land.shape)
    for ship in scene.ships:
        rows, cols, share = hull_cover(ship, 4.0, 500, 500)
        count[rows, cols] += share >= 0.99
        assert not scene.land[rows, cols][share >= 0.99].any()
    assert count.max() == 1


def test_boxes_are_clipped_and_some_ships_cross_the_border():
    crossing = 0
    for seed in range(6):
        scene = simulate.simulate_scene(seed, 300, 300, 3.0, ships=25, land=0)
        assert (scene.boxes >= 0).all()
        assert (scene.boxes <= 300).all()
        assert (scene.boxes[:, 2:] > scene.boxes[:, :2]).all()
        crossing += int(((scene.boxes == 0) | (scene.boxes == 300)).any(axis=1).sum())
        assert len(scene.boxes) == sum(ship.visible for ship in scene.ships)
    assert crossing >= 3


def test_sea_follows_its_level_and_its_trend_with_range():
    steep = dataclasses.replace(CALM, trend_db=6, noise_db=-60)
    scene = simulate.simulate_scene(3, 400, 600, 10.0, ships=0, land=0, conditions=steep)
    power = scene.amplitude**2
    assert 10 * np.log10(power.mean()) == pytest.approx(-20 + 0.16, abs=0.3)  # 0.16 dB: mean of a 6 dB ramp
    fall = 10 * np.log10(power[:, :60].mean() / power[:, -60:].mean())
    assert fall == pytest.approx(6 * 0.9, abs=0.5)


def test_land_covers_its_share_and_is_brighter_than_a_calm_sea():
    scene = simulate.simulate_scene(4, 400, 400, 10.0, ships=0, land=0.3, conditions=CALM)
    assert scene.land.mean() == pytest.approx(0.3, abs=0.08)
    assert np.median(scene.amplitude[scene.land]) > 2 * np.median(scene.amplitude[~scene.land])


def test_coast_normal_points_to_water_and_piers_become_land():
    land = make_land(np.random.default_rng(0), 200, 200, 10, 0.4, piers=0, rough=2.0)
    rows, cols = np.nonzero(land.mask[20:-20, 20:-20] & ~land.mask[20:-20, 21:-19])
    down, right = seaward(land.relief, int(rows[0]) + 20, int(cols[0]) + 20)
    assert np.hypot(down, right) == pytest.approx(1)
    assert land.relief[round(rows[0] + 20 + 4 * down), round(cols[0] + 20 + 4 * right)] < 0
    mask = np.zeros((40, 40), bool)
    fill_pier(mask, Pier(10, 10, 0, 1, 20, 4))
    assert mask.sum() == 80
    assert mask[8:12, 10:30].all()


def test_point_target_peaks_where_it_is_and_keeps_its_energy():
    field = np.zeros((64, 64), np.complex64)
    args = ([field], np.random.default_rng(0), np.array([32.5]), np.array([20.5]), np.array([9.0]))
    add_points(*args, 0.8, 1.0, arm_power=1.0, arm_px=16)
    power = np.abs(field) ** 2
    assert np.unravel_index(power.argmax(), power.shape) == (32, 20)
    assert 0.8 * 9.0 < power.sum() < 9.0 * 1.05  # the stamp's faded edge takes up to a fifth
    assert power[32, 30] > 0  # the sidelobe arm leaves the stamp
    assert power[40, 30] == 0


def test_ambiguity_is_a_shifted_fainter_copy():
    field = np.zeros((50, 10), np.complex64)
    field[10, 5] = 1
    add_ambiguity([field], 20, -20)
    assert abs(field[30, 5]) == pytest.approx(0.1)
    assert abs(field[10, 5]) == 1


def test_a_megapixel_takes_seconds_at_most():
    import time

    started = time.process_time()
    simulate.simulate_scene(0, 1024, 1024, 10.0)
    assert time.process_time() - started < 5  # about 0.5 s on one core; slow machines get tenfold
