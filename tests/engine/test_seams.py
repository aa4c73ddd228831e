"""Property: whatever the seams cut, every object comes out once and whole."""

import time

import numpy as np
import pytest
from kestrel.engine.boxes import from_tile
from kestrel.engine.grid import plan_grid
from kestrel.engine.merging import Merger

#: Empty pixels between two objects: more than two tiles' jitter, or nobody could tell them apart.
GAP = 10


def layout(rng, height, width, count, longest):
    """Return disjoint objects, (N, 4) xyxy, from 6 pixels up to ``longest`` on a side."""
    placed = []
    for _ in range(count * 4):
        w, h = np.exp(rng.uniform(np.log(6), np.log(longest), 2)).astype(int)
        w, h = min(w, width), min(h, height)
        x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
        box = np.array([x, y, x + w, y + h])
        if all(
            box[0] > b[2] + GAP or b[0] > box[2] + GAP or box[1] > b[3] + GAP or b[1] > box[3] + GAP
            for b in placed
        ):
            placed.append(box)
        if len(placed) == count:
            break
    return np.array(placed)


def detect(rng, objects, tile, jitter, doubles=0):
    """See only what lies in the tile, place it up to ``jitter`` pixels off, clip to the tile.

    ``doubles``: further, weaker answers to each object, as a network gives before NMS.
    """
    low, high = np.array([tile.col, tile.row]), np.array([tile.col + tile.width, tile.row + tile.height])
    found = []
    for box in objects:
        seen = np.concatenate([np.maximum(box[:2], low) - low, np.minimum(box[2:], high) - low])
        if (seen[2:] <= seen[:2]).any():
            continue
        score = rng.uniform(0.3, 1)
        for _ in range(1 + doubles):
            moved = seen + rng.uniform(-jitter, jitter, 4)
            if min(seen[2:] - seen[:2]) < 2 * jitter + 2:
                moved = seen + np.tile(rng.uniform(-jitter, jitter, 2), 2)  # thin: moved, not squeezed
            moved = np.clip(moved, 0, np.tile(high - low, 2))
            found.append([*moved, score, 0])
            score *= 0.8
    return np.array(found).reshape(-1, 6)


def run(rng, objects, height, width, tile, overlap, jitter, doubles=0):
    grid = plan_grid(height, width, tile, overlap, 8, 0)
    merger, row = Merger(0.45), 0
    for number in range(len(grid)):
        at = grid.at(*divmod(number, len(grid.xs)))
        if at.grid_row != row:
            row = at.grid_row
            merger.advance(grid.ys[row])
        raw = detect(rng, objects, at, jitter, doubles)
        merger.add(from_tile(raw, at, grid, overlap, np.ones((at.height, at.width), bool), 0.45))
    return merger.finish()


def assert_each_once(found, objects, tolerance):
    centre = (found.xyxy[:, None, :2] + found.xyxy[:, None, 2:]) / 2
    off = np.abs(found.xyxy[:, None] - objects[None])
    match = (off <= tolerance + 1e-3).all(axis=2)
    assert len(centre) == len(objects)
    assert (match.sum(axis=0) == 1).all(), objects[match.sum(axis=0) != 1]
    assert (match.sum(axis=1) == 1).all(), found.xyxy[match.sum(axis=1) != 1]


@pytest.mark.slow
@pytest.mark.parametrize("jitter", [0.0, 1.0, 2.0])
def test_property_no_object_lost_doubled_or_cut(jitter):
    for seed in range(200):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(40, 700, 2)
        tile = int(rng.choice([64, 96, 128]))
        overlap = int(rng.integers(16, tile // 2 + 1))
        longest = rng.choice([overlap, tile, 3.5 * tile])
        objects = layout(rng, height, width, 40, longest)
        found = run(rng, objects, height, width, tile, overlap, jitter)
        # a joined object takes the outermost of its pieces' sides, so both tiles' jitter may add up
        assert_each_once(found, objects, 2 * jitter)


@pytest.mark.parametrize("seed", range(20))
def test_property_doubles_of_one_tile_do_not_survive(seed):
    rng = np.random.default_rng(seed)
    objects = layout(rng, 400, 400, 20, 150)
    objects = objects[((objects[:, 2:] - objects[:, :2]) > 12).all(axis=1)]
    found = run(rng, objects, 400, 400, 96, 40, 1.0, doubles=4)
    assert_each_once(found, objects, 2.0)


@pytest.mark.parametrize("across", [False, True])
def test_feature_object_over_seven_tiles_is_one_box(across):
    box = np.array([[20, 50, 420, 62]])
    objects = box[:, [1, 0, 3, 2]] if across else box
    found = run(np.random.default_rng(0), objects, 480, 480, 64, 16, 1.0)
    assert_each_once(found, objects, 2.0)


def test_feature_object_over_four_tiles_at_a_corner():
    objects = np.array([[20, 20, 120, 110]])
    found = run(np.random.default_rng(1), objects, 200, 200, 64, 16, 1.0)
    assert_each_once(found, objects, 2.0)


def test_feature_parallel_ships_across_a_seam_stay_apart():
    # moored side by side: boxes overlap, both longer than the overlap and cut by the same seam
    objects = np.array([[20, 10, 110, 30], [25, 20, 105, 40], [22, 40, 108, 52]])
    found = run(np.random.default_rng(2), objects, 80, 160, 80, 16, 0.0)
    assert_each_once(found, objects, 0.0)


def test_feature_a_cut_box_with_the_higher_score_loses_to_the_whole_one():
    grid = plan_grid(64, 112, 64, 16, 8, 0)
    merger = Merger(0.45)
    valid = np.ones((64, 64), bool)
    merger.add(from_tile(np.array([[40.0, 10, 64, 20, 0.99, 0]]), grid.at(0, 0), grid, 16, valid, 0.45))
    merger.add(from_tile(np.array([[2.5, 10, 30, 20, 0.5, 0]]), grid.at(0, 1), grid, 16, valid, 0.45))
    merger.add(from_tile(np.array([[50.0, 40, 60, 50, 0.6, 0]]), grid.at(0, 0), grid, 16, valid, 0.45))
    found = merger.finish()
    assert found.score.tolist() == [0.6, 0.5]
    assert found.xyxy[1].tolist() == [50.5, 10, 78, 20]
    assert found.tile.tolist() == [0, 1]


def test_feature_classes_do_not_suppress_each_other():
    grid = plan_grid(64, 64, 64, 16, 8, 0)
    raw = np.array([[10.0, 10, 30, 30, 0.9, 0], [10, 10, 30, 30, 0.8, 1], [11, 10, 30, 30, 0.7, 0]])
    merger = Merger(0.45)
    merger.add(from_tile(raw, grid.at(0, 0), grid, 16, np.ones((64, 64), bool), 0.45))
    assert merger.finish().cls.tolist() == [0, 1]


def test_feature_memory_follows_one_row_not_the_scene():
    rng = np.random.default_rng(3)
    grid = plan_grid(2000, 128, 128, 32, 8, 0)
    merger, most = Merger(0.45), 0
    objects = layout(rng, 2000, 128, 60, 20)
    for number in range(len(grid)):
        at = grid.at(number, 0)
        merger.advance(grid.ys[number])
        most = max(most, sum(len(b) for b in merger._open))
        raw = detect(rng, objects, at, 1.0)
        merger.add(from_tile(raw, at, grid, 32, np.ones((at.height, at.width), bool), 0.45))
    assert len(merger.finish()) == len(objects)
    assert most <= 10


@pytest.mark.slow
def test_oracle_40_000_boxes_are_merged_in_under_5_s():
    """A dense scene of 8000 x 8000 pixels, most objects seen by several tiles (ENGINE.md, section 5)."""
    rng, side, tile, overlap = np.random.default_rng(0), 8000, 640, 128
    centre, size = rng.uniform(0, side, (40_000, 2)), rng.uniform(8, 40, (40_000, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    grid, valid = plan_grid(side, side, tile, overlap, 64, 0), np.ones((tile, tile), bool)
    answers = []
    for number in range(len(grid)):
        at = grid.at(*divmod(number, len(grid.xs)))
        local = boxes - [at.col, at.row, at.col, at.row]
        middle = (local[:, :2] + local[:, 2:]) / 2
        seen = local[((middle >= 0) & (middle < tile)).all(axis=1)]
        answers.append((at, np.column_stack([seen, rng.uniform(0.25, 1, len(seen)), np.zeros(len(seen))])))
    assert sum(len(raw) for _, raw in answers) > 40_000
    start, merger = time.process_time(), Merger(0.45)  # of this process: the machine may be busy
    for at, raw in answers:
        merger.advance(at.row)
        merger.add(from_tile(raw, at, grid, overlap, valid, 0.45))
    found = merger.finish()
    assert time.process_time() - start < 5
    assert len(found) > 20_000
