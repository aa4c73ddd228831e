"""Target assignment against a loop over the rule, and anchors that fit (specification 4.2, 3.5)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.models.sar_ships.assign import assign, best_possible_recall, estimate_anchors, fit_anchors
from kestrel.models.sar_ships.network import DEFAULT_ANCHORS

STRIDES = (8, 16, 32)
SIZES = ((8, 8), (4, 4), (2, 2))
ANCHORS = torch.tensor(DEFAULT_ANCHORS, dtype=torch.float32)
# hundredths of a pixel: never within rounding of a cell's middle line
places = st.integers(0, 6399).map(lambda v: v / 100 + 0.003)
lengths = st.integers(200, 30_000).map(lambda v: v / 100 + 0.003)
ships = st.lists(st.tuples(st.integers(0, 2), places, places, lengths, lengths), max_size=6)


def by_the_rule(targets):
    """(level, image, anchor, row, col, w) of every positive, one comparison at a time."""
    found = []
    for level, (stride, (h, w)) in enumerate(zip(STRIDES, SIZES, strict=True)):
        for image, _, x, y, bw, bh in targets.tolist():
            for a, (aw, ah) in enumerate(ANCHORS[level].tolist()):
                if max(bw / aw, aw / bw, bh / ah, ah / bh) >= 4:
                    continue
                col, row = int(x / stride), int(y / stride)
                cells = [(row, col)]
                cells.append((row, col + (1 if x / stride - col >= 0.5 else -1)))
                cells.append((row + (1 if y / stride - row >= 0.5 else -1), col))
                found += [
                    (level, int(image), a, r, c, round(bw, 3)) for r, c in cells if 0 <= r < h and 0 <= c < w
                ]
    return sorted(found)


@given(ships)
@settings(max_examples=100, deadline=None)
def test_property_same_positives_as_the_rule(boxes):
    targets = torch.tensor([[i, 0, x, y, w, h] for i, x, y, w, h in boxes]).reshape(-1, 6)
    found = []
    for level, m in enumerate(assign(targets, ANCHORS, STRIDES, SIZES)):
        rows = zip(
            m.image.tolist(),
            m.anchor.tolist(),
            m.row.tolist(),
            m.col.tolist(),
            m.boxes[:, 2].tolist(),
            strict=True,
        )
        found += [(level, i, a, r, c, round(w, 3)) for i, a, r, c, w in rows]
    assert sorted(found) == by_the_rule(targets)


def test_property_positives_can_reach_their_box():
    """The centre lies within -0.5..1.5 cells of every cell that answers: decoding can place it there."""
    rng = torch.Generator().manual_seed(0)
    targets = torch.cat(
        (
            torch.zeros(200, 2),
            torch.rand(200, 2, generator=rng) * 64,
            torch.rand(200, 2, generator=rng) * 60 + 3,
        ),
        1,
    )
    for m, stride in zip(assign(targets, ANCHORS, STRIDES, SIZES), STRIDES, strict=True):
        offset = m.boxes[:, :2] / stride - torch.stack((m.col, m.row), dim=1)
        assert (offset > -0.5 - 1e-4).all()
        assert (offset < 1.5 + 1e-4).all()


def test_feature_class_and_box_travel_along():
    targets = torch.tensor([[1.0, 2.0, 20.0, 20.0, 12.0, 14.0]])
    m = assign(targets, ANCHORS, STRIDES, SIZES)[0]
    assert set(m.image.tolist()) == {1}
    assert set(m.classes.tolist()) == {2}
    torch.testing.assert_close(m.boxes, targets[:, 2:].expand(len(m.boxes), 4))


def test_feature_a_centre_on_the_far_edge_stays_inside():
    for m in assign(torch.tensor([[0.0, 0.0, 64.0, 64.0, 20.0, 20.0]]), ANCHORS, STRIDES, SIZES):
        assert (m.row >= 0).all()
        assert all((m.row < 8).tolist())
        assert all((m.col < 8).tolist())


def test_feature_best_possible_recall_by_hand():
    sides = np.array([[10.0, 10.0], [39.0, 10.0], [41.0, 10.0], [2.4, 10.0]])
    assert best_possible_recall(sides, np.array([[10.0, 10.0]])) == 0.5
    assert best_possible_recall(sides, np.array([[10.0, 10.0], [20.0, 12.0]])) == 0.75
    assert best_possible_recall(sides[:0], np.array([[10.0, 10.0]])) == 1


def test_feature_estimate_finds_the_clusters():
    rng = np.random.default_rng(0)
    centres = np.array([[4.0, 4.0], [8.0, 30.0], [60.0, 50.0]])
    sides = np.concatenate([c * rng.uniform(0.95, 1.05, (50, 2)) for c in centres])
    np.testing.assert_allclose(estimate_anchors(sides, 3, 1, 0)[:, 0], centres, rtol=0.05)


def test_feature_fitting_keeps_anchors_that_reach_enough_and_improves_those_that_do_not():
    default = np.array(DEFAULT_ANCHORS, dtype=float)
    rng = np.random.default_rng(0)
    kept, recall = fit_anchors(rng.uniform(10, 40, (300, 2)), default, 0)
    assert kept is default
    assert recall >= 0.98
    tiny = rng.uniform(1.5, 3, (300, 2))
    assert best_possible_recall(tiny, default) < 0.5
    fresh, recall = fit_anchors(tiny, default, 0)
    assert recall == pytest.approx(1)
    assert fresh.shape == default.shape
    areas = fresh.prod(axis=2).ravel()
    assert (np.diff(areas) >= -0.5).all(), "small anchors at the fine level"
