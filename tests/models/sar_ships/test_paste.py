"""Real ships on simulated clutter: contrast kept, boxes follow turns, nothing on land."""

import numpy as np
import pytest
from kestrel.models.sar_ships import paste


def made_ship(clutter=40.0, bright=600.0) -> paste.RealShip:
    """A 41 x 31 chip with a hull of 12 x 4 px along the columns, at (20, 15)."""
    chip = np.full((31, 41), clutter, np.float32)
    chip[13:17, 14:26] = bright
    return paste.cut_ship("made", chip, (26, 15), (14, 15), 2.0, (13, 13, 27, 17))


def test_cut_divides_by_the_clutter_and_keeps_the_hull():
    ship = made_ship()
    assert ship.amplitude[15, 20] == pytest.approx(15)
    assert (ship.weight[13:17, 14:26] == 1).all()
    assert ship.weight[0, 0] == 0
    assert 0 < ship.weight[15, 30] < 1  # soft edge


def test_exception_without_clutter():
    with pytest.raises(ValueError, match="made has no clutter around the ship"):
        made_ship(clutter=0.0)


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
@pytest.mark.parametrize("mirror", [False, True])
def test_box_follows_the_turned_picture(quarter_turns, mirror):
    chip = np.full((31, 41), 1.0, np.float32)
    chip[5:9, 14:26] = 9  # off centre, so that a wrong turn shows
    ship = paste.cut_ship("made", chip, (26, 7), (14, 7), 2.0, (14, 5, 26, 9))
    turned = paste.turn(ship, quarter_turns, mirror)
    rows, cols = np.nonzero(turned.amplitude > 5)
    seen = [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
    assert turned.box.tolist() == seen


def test_pasted_ship_keeps_its_contrast_to_the_local_clutter():
    sea = np.full((120, 160), 0.2, np.float32)
    land = np.zeros(sea.shape, bool)
    out, boxes = paste.paste_ships(sea, land, [made_ship()], np.random.default_rng(0))
    assert len(boxes) == 1
    x1, y1, x2, y2 = np.rint(boxes[0]).astype(int)
    assert out[y1:y2, x1:x2].max() == pytest.approx(0.2 * 15)
    away = np.ones(sea.shape, bool)
    away[max(0, y1 - 12) : y2 + 12, max(0, x1 - 12) : x2 + 12] = False
    assert (out[away] == sea[away]).all()
    assert (sea == 0.2).all() or np.allclose(sea, 0.2)  # the input stays as it was


def test_ships_avoid_land_the_border_and_each_other():
    rng = np.random.default_rng(2)
    sea = np.full((200, 200), 0.1, np.float32)
    land = np.zeros(sea.shape, bool)
    land[:, 100:] = True
    out, boxes = paste.paste_ships(sea, land, [made_ship()] * 12, rng, gain=(0.5, 1.5))
    assert 3 <= len(boxes) <= 12
    assert (out[land] == sea[land]).all()
    taken = np.zeros(sea.shape, int)
    for x1, y1, x2, y2 in np.rint(boxes).astype(int):
        assert 0 <= x1 < x2 <= 200
        assert 0 <= y1 < y2 <= 200
        taken[y1:y2, x1:x2] += 1
    assert taken.max() == 1
    assert not taken[land].any()
    assert len({out[int(b[1]) + 1 : int(b[3]) - 1, int(b[0]) + 1 : int(b[2]) - 1].max() for b in boxes}) > 1


def test_same_generator_gives_the_same_picture():
    args = (np.full((90, 90), 0.1, np.float32), np.zeros((90, 90), bool), [made_ship()] * 2)
    first, _ = paste.paste_ships(*args, np.random.default_rng(7))
    second, _ = paste.paste_ships(*args, np.random.default_rng(7))
    assert first.tobytes() == second.tobytes()
