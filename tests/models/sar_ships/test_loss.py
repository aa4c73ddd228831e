"""Wise-IoU against its table and laws, the total loss against a hand computation (specification 4, 9)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.models.sar_ships.boxes import paired_iou, to_corners
from kestrel.models.sar_ships.loss import (
    BOX_LOSSES,
    BoxLoss,
    DetectionLoss,
    distance_gain,
    focus,
    momentum_for,
)
from kestrel.models.sar_ships.network import SarShipNet
from torch.nn.functional import binary_cross_entropy_with_logits as bce

coordinates = st.floats(-100, 100, width=32)
sides = st.floats(1, 100, width=32)
boxes = st.tuples(coordinates, coordinates, sides, sides)


def random_pairs(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    pairs = torch.rand(2, n, 4, generator=g) * torch.tensor([50, 50, 30, 30]) + torch.tensor([0, 0, 1, 1])
    return pairs[0], pairs[1]


@pytest.mark.parametrize(
    ("beta", "r"), [(0.5, 0.829), (1, 1.203), (1 / math.log(1.9), 1.310), (3, 1.000), (5, 0.462)]
)
def test_feature_focus_table(beta, r):
    assert focus(torch.tensor(float(beta))).item() == pytest.approx(r, abs=6e-4)


def test_feature_focus_has_its_maximum_at_1_558_and_vanishes_on_both_sides():
    beta = torch.linspace(0.001, 40, 40_000, dtype=torch.float64)
    assert beta[focus(beta).argmax()].item() == pytest.approx(1 / math.log(1.9), abs=2e-3)
    assert focus(beta)[0] < 0.003
    assert focus(beta)[-1] < 1e-8


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_feature_equal_boxes_cost_nothing(name):
    box = torch.tensor([[10.0, 20.0, 8.0, 5.0]])
    loss, quality = BoxLoss(name)(box, box)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert quality.item() == pytest.approx(1, abs=1e-6)


@given(boxes, boxes)
@settings(max_examples=200, deadline=None)
def test_property_v1_is_at_least_the_iou_loss_and_its_gain_in_1_to_e(a, b):
    pred, target = (to_corners(torch.tensor([x], dtype=torch.float64)) for x in (a, b))
    gain = distance_gain(pred, target).item()
    assert 1 <= gain < math.e
    loss, _ = BoxLoss("wiou1").eval()(
        torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    )
    assert loss.item() >= 1 - paired_iou(pred, target).item() - 1e-12


def test_gradcheck_gain_sends_none_to_the_size():
    pred, target = random_pairs(200)
    pred.requires_grad_()
    distance_gain(to_corners(pred), to_corners(target)).sum().backward()
    assert pred.grad[:, 2:].abs().max() < 1e-6
    assert (pred.grad[:, :2].abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("name", ["wiou2", "wiou3"])
def test_gradcheck_focus_is_a_constant_factor(name):
    """v2 and v3 have v1's gradient times r: neither r nor the mean carry one of their own."""
    pred, target = random_pairs(50)
    plain, focused = BoxLoss("wiou1").eval(), BoxLoss(name).eval()
    focused.mean.fill_(0.6)
    gradients = []
    for module in (plain, focused):
        p = pred.clone().requires_grad_()
        module(p, target)[0].sum().backward()
        gradients.append(p.grad)
    beta = (1 - paired_iou(to_corners(pred), to_corners(target))) / 0.6
    r = focus(beta) if name == "wiou3" else beta.sqrt()
    torch.testing.assert_close(gradients[1], gradients[0] * r[:, None], rtol=1e-4, atol=1e-6)


def test_gradcheck_ciou_against_finite_differences():
    """alpha is a constant in the gradient, so the numerical side is given the same constant: equal shapes."""
    pred = torch.tensor([[10.0, 11.0, 8.0, 4.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[12.0, 10.0, 10.0, 5.0]], dtype=torch.float64)
    loss_of = BoxLoss("ciou")
    assert torch.autograd.gradcheck(
        lambda xy: loss_of(torch.cat((xy, pred[:, 2:].detach()), 1), target)[0],
        pred[:, :2].detach().requires_grad_(),
    )


def test_feature_ciou_by_hand():
    pred, target = torch.tensor([[2.0, 2.0, 4.0, 4.0]]), torch.tensor([[4.0, 2.0, 4.0, 2.0]])
    iou = 4 / (16 + 8 - 4)
    distance = 4 / (6**2 + 4**2)
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(2)) ** 2
    alpha = v / (1 - iou + v)
    loss, quality = BoxLoss("ciou")(pred, target)
    assert loss.item() == pytest.approx(1 - iou + distance + alpha * v, rel=1e-5)
    assert quality.item() == pytest.approx(max(1 - loss.item(), 0))


def test_feature_quality_is_plain_iou_with_wise_iou_and_never_negative():
    pred, target = random_pairs(100)
    _, quality = BoxLoss("wiou3")(pred, target)
    torch.testing.assert_close(quality, paired_iou(to_corners(pred), to_corners(target)))
    assert (BoxLoss("ciou")(pred, target)[1] >= 0).all()


def test_feature_running_mean_moves_once_per_training_batch():
    pred, target = random_pairs(40)
    module = BoxLoss("wiou3", momentum=0.25)
    batch_mean = (1 - paired_iou(to_corners(pred), to_corners(target))).mean().item()
    module(pred, target)
    assert module.mean.item() == pytest.approx(0.75 + 0.25 * batch_mean)
    before = module.mean.item()
    module(pred[:0], target[:0])
    assert module.mean.item() == before, "a batch without positives does not update"
    module.eval()(pred, target)
    assert module.mean.item() == before, "nor does evaluation"
    assert "mean" in module.state_dict()


@pytest.mark.parametrize(("batches", "updates"), [(4000, 400), (100, 50)])
def test_feature_momentum_follows_the_length_of_the_run(batches, updates):
    assert (1 - momentum_for(batches)) ** updates == pytest.approx(0.05)


def test_exception_unknown_loss():
    with pytest.raises(ValueError, match="must be one of ciou"):
        BoxLoss("giou")


def hand_total(net, raw, targets_of_level, size):
    """Objectness of empty maps plus, on one level, the listed (anchor, row, col, iou) targets."""
    total = 0.0
    for i, (level, balance) in enumerate(zip(raw, (4.0, 1.0, 0.4), strict=True)):
        wanted = torch.zeros_like(level[..., 4])
        for a, row, col, iou in targets_of_level.get(i, []):
            wanted[0, a, row, col] = iou
        total += balance * bce(level[..., 4], wanted).item()
    return total * (size / 640) ** 2


def test_feature_total_without_ships():
    net = SarShipNet()
    raw = [torch.randn(2, 3, 64 // s, 64 // s, 6, requires_grad=True) for s in (8, 16, 32)]
    loss, parts = DetectionLoss(net)(raw, torch.zeros(0, 6))
    assert parts["positives"] == parts["box"] == 0
    assert loss.item() == pytest.approx(2 * hand_total(net, raw, {}, 64), rel=1e-5)
    loss.backward()
    assert torch.isfinite(raw[0].grad).all()


def test_feature_total_with_one_ship_by_hand():
    """A 10 x 13 ship in the corner cell fits level 0 alone; its own cell and two neighbours answer."""
    net = SarShipNet()
    raw = [torch.zeros(1, 3, 64 // s, 64 // s, 6) for s in (8, 16, 32)]
    ship = torch.tensor([[0.0, 0.0, 5.0, 5.0, 10.0, 13.0]])
    loss_of = DetectionLoss(net, "wiou1").eval()
    loss, parts = loss_of(raw, ship)
    positives, box = {0: [], 1: []}, []
    for level, stride, anchors in ((0, 8, [(0, 10, 13), (1, 16, 30), (2, 33, 23)]), (1, 16, [(0, 30, 61)])):
        for a, w, h in anchors:
            if max(w / 10, h / 13, 10 / w, 13 / h) >= 4:
                continue
            right = 1 if 5 / stride % 1 >= 0.5 else -1
            for row, col in ((0, 0), (0, right), (right, 0)):
                if row < 0 or col < 0:
                    continue
                pred = torch.tensor([[(0.5 + col) * stride, (0.5 + row) * stride, w, h]], dtype=torch.float32)
                value, iou = BoxLoss("wiou1").eval()(pred, ship[:, 2:])
                positives[level].append((a, row, col, iou.item()))
                if level == 0:
                    box.append(value.item())
    assert positives[1] == [], "61 is more than four times 13"
    assert parts["positives"] == len(box) > 0
    assert parts["box"] == pytest.approx(sum(box) / len(box), rel=1e-5)
    expected = 0.05 * sum(box) / len(box) + hand_total(net, raw, positives, 64)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_property_order_of_ships_does_not_matter():
    torch.manual_seed(0)
    net = SarShipNet()
    raw = [torch.randn(1, 3, 64 // s, 64 // s, 6) for s in (8, 16, 32)]
    ships = torch.tensor(
        [[0, 0, 30, 30, 12, 12], [0, 0, 31, 31, 14, 10], [0, 0, 33, 29, 20, 16]], dtype=torch.float32
    )
    loss_of = DetectionLoss(net).eval()
    assert loss_of(raw, ships)[0].item() == pytest.approx(loss_of(raw, ships.flip(0))[0].item(), rel=1e-6)
