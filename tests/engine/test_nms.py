"""Greedy NMS against the quadratic textbook loop, and its order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from kestrel.engine.nms import iou, nms, overlapping_pairs, ranking

numbers = st.integers(0, 40)


@st.composite
def detections(draw):
    n = draw(st.integers(1, 25))
    low = np.array(draw(st.lists(st.tuples(numbers, numbers), min_size=n, max_size=n)), float)
    size = np.array(
        draw(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=n, max_size=n)), float
    )
    score = np.array(draw(st.lists(st.sampled_from([0.2, 0.5, 0.7, 0.9]), min_size=n, max_size=n)))
    classes = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    return np.concatenate([low, low + size], axis=1), score, classes


def textbook(xyxy, score, classes, threshold):
    keep = np.zeros(len(score), bool)
    for i in ranking(xyxy, score):
        kept = np.flatnonzero(keep)
        kept = kept[classes[kept] == classes[i]]
        overlap = iou(xyxy[kept], np.repeat(xyxy[i : i + 1], len(kept), 0))
        keep[i] = not (overlap >= threshold).any()
    return keep


@given(detections(), st.sampled_from([0.1, 0.45, 0.9]))
def test_oracle_equals_the_quadratic_loop(boxes, threshold):
    assert (nms(*boxes, threshold) == textbook(*boxes, threshold)).all()


@given(detections(), st.randoms(use_true_random=False))
def test_property_input_order_does_not_matter(boxes, random):
    xyxy, score, classes = boxes
    order = list(range(len(score)))
    random.shuffle(order)
    kept = {tuple(b) for b in xyxy[nms(xyxy, score, classes, 0.45)]}
    again = {tuple(b) for b in xyxy[order][nms(xyxy[order], score[order], classes[order], 0.45)]}
    # equal boxes of different classes may trade places, their coordinates may not
    assert kept == again


def test_feature_known_iou():
    a, b = np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 15, 10]])
    assert iou(a, b)[0] == 50 / 150


def test_feature_pairs_of_one_class_only():
    xyxy = np.array([[0.0, 0, 10, 10], [5, 5, 15, 15], [5, 5, 15, 15], [90, 90, 95, 95]])
    first, second = overlapping_pairs(xyxy, np.array([0, 0, 1, 0]))
    assert list(zip(first, second, strict=True)) == [(0, 1)]
