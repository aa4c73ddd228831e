"""COCO average precision: hand-made examples, and pycocotools as the oracle."""

import math

import numpy as np
import pytest
from kestrel.models.sar_ships.boxes import pairwise_iou, select, suppress
from kestrel.models.sar_ships.metrics import average_precision, evaluate, match


def box(x, y, side, score=None):
    return [x, y, x + side, y + side] + ([] if score is None else [score])


def test_feature_three_boxes_by_hand():
    """Hit, false alarm, hit, one ship missed: precision 1, 2/3 (after the envelope) at recall 1/3, 2/3."""
    truths = [np.array([box(0, 0, 10), box(50, 50, 10), box(80, 0, 10)], dtype=float)]
    found = [np.array([box(0, 0, 10, 0.9), box(20, 20, 10, 0.8), box(50, 50, 10, 0.2)])]
    scores = evaluate(found, truths, confidence=0.25)
    # recalls 0, 0.01 .. 0.33 (34 values) at precision 1, 0.34 .. 0.66 (33 values) at 2/3
    expected = (34 * 1 + 33 * 2 / 3) / 101
    assert scores.ap50 == pytest.approx(expected)
    assert scores.ap == pytest.approx(expected)
    assert (scores.precision, scores.recall, scores.confidence) == (
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
        0.2,
    )
    assert scores.f1 == pytest.approx(2 / 3)
    assert scores.recall_at == pytest.approx(1 / 3)
    assert scores.precision_at == pytest.approx(1 / 2)
    assert (scores.truths, scores.detections) == (3, 3)


def test_feature_average_over_ious():
    """A box of IoU 0.74 counts at 0.50 .. 0.70, five of ten thresholds."""
    truths = [np.array([[0.0, 0, 100, 100]])]
    assert evaluate([np.array([[0.0, 0, 100, 74, 0.9]])], truths).ap == pytest.approx(0.5)


def test_feature_a_ship_counts_once():
    hit = match(np.array([box(0, 0, 10, 0.9), box(0, 0, 10, 0.8)]), np.array([box(0, 0, 10)], dtype=float))
    assert hit[0].tolist() == [True, False]


@pytest.mark.parametrize(("found", "truths"), [(0, 2), (2, 0), (0, 0)])
def test_feature_nothing_found_or_nothing_there(found, truths):
    d = np.array([box(30 * i, 0, 10, 0.5) for i in range(found)]).reshape(-1, 5)
    t = np.array([box(30 * i, 50, 10) for i in range(truths)], dtype=float).reshape(-1, 4)
    scores = evaluate([d], [t])
    if truths:
        assert scores.ap50 == scores.recall_at == scores.f1 == 0
    else:
        assert math.isnan(scores.ap50)
        assert math.isnan(scores.recall_at)
    assert math.isnan(scores.precision_at) == (found == 0)


def test_feature_equal_scores_share_a_threshold():
    """Hits and false alarms of one score cannot be told apart by a threshold."""
    truths = [np.array([box(0, 0, 10)], dtype=float)]
    found = [np.array([box(0, 0, 10, 0.5), box(40, 0, 10, 0.5)])]
    assert evaluate(found, truths).precision == 0.5


def test_feature_only_the_best_detections_of_an_image_count():
    truths = [np.array([box(0, 0, 10)], dtype=float)]
    found = [np.array([box(40, 0, 10, 0.9), box(0, 0, 10, 0.5)])]
    assert evaluate(found, truths, limit=1).recall_at == 0
    assert evaluate(found, truths, limit=2).recall_at == 1


def test_feature_average_precision_of_a_perfect_list():
    assert average_precision(np.array([True, True]), 2) == 1
    assert average_precision(np.array([True]), 2) == pytest.approx(51 / 101)


def random_scenes(seed):
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(12):
        t = rng.uniform(0, 150, (rng.integers(0, 8), 2))
        t = np.concatenate((t, t + rng.uniform(5, 40, t.shape)), axis=1)
        near = t.repeat(2, axis=0) + rng.normal(0, 2, (2 * len(t), 4))
        far = rng.uniform(0, 150, (rng.integers(0, 5), 2))
        d = np.concatenate((near, np.concatenate((far, far + 15), axis=1)))
        d = d[(d[:, 2:] > d[:, :2]).all(axis=1)]
        # few distinct scores, so that ties occur
        found.append(np.concatenate((d, rng.integers(1, 30, (len(d), 1)) / 30), axis=1))
        truths.append(t)
    return found, truths


@pytest.mark.parametrize("seed", range(3))
def test_feature_equals_pycocotools(seed, capsys):
    coco_module = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    found, truths = random_scenes(seed)
    coco = coco_module.COCO()
    annotations = [
        {
            "image_id": i,
            "category_id": 1,
            "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]],
            "area": 1.0,
            "iscrowd": 0,
        }
        for i, t in enumerate(truths)
        for b in t.tolist()
    ]
    coco.dataset = {
        "images": [{"id": i} for i in range(len(truths))],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": [{"id": k + 1, **a} for k, a in enumerate(annotations)],
        "info": {},
    }
    coco.createIndex()
    rows = [[i, b[0], b[1], b[2] - b[0], b[3] - b[1], b[4], 1] for i, d in enumerate(found) for b in d]
    oracle = COCOeval(coco, coco.loadRes(np.array(rows)), "bbox")
    oracle.params.maxDets = [1, 10, 300]
    oracle.params.areaRng, oracle.params.areaRngLbl = [[0, 1e10]], ["all"]
    oracle.evaluate()
    oracle.accumulate()
    precision = oracle.eval["precision"][:, :, 0, 0, 2]
    scores = evaluate(found, truths)
    assert 0.2 < scores.ap50 < 1
    assert scores.ap50 == pytest.approx(precision[0].mean(), abs=1e-9)
    assert scores.ap == pytest.approx(precision.mean(), abs=1e-9)


def test_feature_suppression_by_hand():
    boxes = np.array([box(0, 0, 10), box(1, 0, 10), box(20, 0, 10), box(0, 0, 10)], dtype=float)
    scores = np.array([0.5, 0.9, 0.3, 0.9])
    assert suppress(boxes, scores, 0.5, 10).tolist() == [1, 2]
    assert suppress(boxes, scores, 0.9, 10).tolist() == [1, 3, 2], "0.5 at the same place as 3 goes"
    assert suppress(boxes, scores, 0.5, 1).tolist() == [1]


def test_property_survivors_do_not_overlap_and_the_rest_does():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (80, 2))
    boxes, scores = np.concatenate((corner, corner + rng.uniform(5, 30, (80, 2))), axis=1), rng.random(80)
    kept = suppress(boxes, scores, 0.45, 1000)
    overlap = pairwise_iou(boxes, boxes[kept])
    assert (overlap[kept] - np.eye(len(kept)) <= 0.45).all()
    for i in set(range(80)) - set(kept.tolist()):
        assert (overlap[i] > 0.45)[scores[kept] > scores[i]].any()


def test_feature_selection_applies_the_confidence_and_the_order():
    import torch

    candidates = torch.tensor(
        [[[10.0, 10, 4, 4, 0.2], [50, 50, 6, 8, 0.6], [90, 90, 4, 4, 0.9], [90, 90, 4, 4, 0.8]]]
    )
    (found,) = select(candidates, confidence=0.25, nms_iou=0.45)
    np.testing.assert_allclose(found, [[88, 88, 92, 92, 0.9], [47, 46, 53, 54, 0.6]])
    (none,) = select(candidates, confidence=0.95, nms_iou=0.45)
    assert none.shape == (0, 5)
