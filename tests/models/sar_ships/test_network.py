"""The detector's structure against the paper's complexity and the specification's shapes (01, 3 and 9)."""

import itertools

import pytest
import torch
from kestrel.models.sar_ships.attention import ATTENTIONS
from kestrel.models.sar_ships.blocks import C3, SPPF, Conv
from kestrel.models.sar_ships.complexity import gflops, parameters
from kestrel.models.sar_ships.head import HEADS
from kestrel.models.sar_ships.loss import BOX_LOSSES, DetectionLoss
from kestrel.models.sar_ships.network import (
    DEFAULT_ANCHORS,
    SarShipNet,
    decode,
    scaled_channels,
    scaled_repeats,
)

#: head, attention, parameters, GFLOPs at 640 (specification 3.1), the paper's figure or None
COMPLEXITY = [
    ("coupled", "none", 1_765_270, 4.13, None),
    ("decoupled", "none", 3_402_262, 7.12, 7.1),
    ("context", "shuffle", 6_880_172, 9.75, 9.8),
]
#: one ship near the middle of a 64 px image
ONE_SHIP = torch.tensor([[0.0, 0.0, 30.0, 34.0, 20.0, 12.0]])


def one_step(net, box_loss="wiou3"):
    net.train()
    loss, parts = DetectionLoss(net, box_loss)(net(torch.rand(2, 3, 64, 64)), ONE_SHIP)
    loss.backward()
    return loss, parts


@pytest.mark.parametrize(("head", "attention", "count", "operations", "published"), COMPLEXITY)
def test_feature_parameters_and_operations(head, attention, count, operations, published):
    net = SarShipNet(head=head, attention=attention)
    assert parameters(net) == count
    assert round(gflops(net), 2) == operations
    if published is not None:
        assert abs(gflops(net) - published) < 0.06


def test_feature_parameters_with_objectness_in_the_box_branch():
    assert parameters(SarShipNet(obj_branch="dpe")) == 6_876_113


def test_feature_operations_grow_with_the_area_and_keep_the_mode():
    net = SarShipNet(head="coupled", attention="none").train()
    assert gflops(net, 128) * 4 == pytest.approx(gflops(net, 256))
    assert net.training


def test_feature_wider_scale():
    net = SarShipNet(width=0.5, depth=0.33)
    assert round(parameters(net) / 1e6, 1) == 27.4
    assert round(gflops(net), 1) == 38.2


@pytest.mark.parametrize(
    ("c", "width", "expected"), [(64, 0.25, 16), (128, 0.26, 40), (1024, 1.0, 1024), (64, 0.01, 8)]
)
def test_feature_channels_are_rounded_up_to_eight(c, width, expected):
    assert scaled_channels(c, width) == expected


@pytest.mark.parametrize(
    ("n", "depth", "expected"), [(3, 0.33, 1), (6, 0.33, 2), (9, 0.33, 3), (3, 0.01, 1), (9, 1.0, 9)]
)
def test_feature_repeats_are_at_least_one(n, depth, expected):
    assert scaled_repeats(n, depth) == expected


def test_shape_pyramid_and_raw_maps_at_640():
    net = SarShipNet().eval()
    with torch.inference_mode():
        pyramid = net.pyramid(torch.zeros(1, 3, 640, 640))
        raw = net.head(pyramid)
    assert [tuple(p.shape[1:]) for p in pyramid] == [
        (32, 160, 160),
        (64, 80, 80),
        (128, 40, 40),
        (256, 20, 20),
        (256, 10, 10),
    ]
    assert [tuple(r.shape) for r in raw] == [(1, 3, 80, 80, 6), (1, 3, 40, 40, 6), (1, 3, 20, 20, 6)]
    assert decode(raw, net.anchors, net.strides).shape == (1, 25_200, 6)
    assert net.candidates(raw).shape == (1, 25_200, 5)


@pytest.mark.parametrize(("height", "width"), [(832, 832), (256, 256), (64, 192)])
def test_shape_other_sizes(height, width):
    with torch.inference_mode():
        raw = SarShipNet().eval()(torch.zeros(1, 3, height, width))
    assert [tuple(r.shape[2:4]) for r in raw] == [(height // s, width // s) for s in (8, 16, 32)]


@pytest.mark.parametrize(("head", "size"), [("context", 800), ("context", 96), ("coupled", 80)])
def test_exception_size_that_is_no_multiple(head, size):
    with pytest.raises(ValueError, match=f"{size} x {size}.*multiples of"):
        SarShipNet(head=head)(torch.zeros(1, 3, size, size))


@pytest.mark.parametrize("switch", [{"head": "big"}, {"attention": "loud"}, {"obj_branch": "cls"}])
def test_exception_unknown_switch(switch):
    with pytest.raises(ValueError, match=next(iter(switch.values()))):
        SarShipNet(**switch)


@pytest.mark.parametrize(("attention", "head"), list(itertools.product(ATTENTIONS, HEADS)))
def test_smoke_every_attention_with_every_head(attention, head):
    with torch.inference_mode():
        raw = SarShipNet(attention=attention, head=head).eval()(torch.zeros(1, 3, 64, 64))
    assert [r.shape[-1] for r in raw] == [6, 6, 6]


@pytest.mark.parametrize(("wise", "shuffle", "context"), list(itertools.product((False, True), repeat=3)))
def test_smoke_ablation_rows_train_one_step(wise, shuffle, context):
    torch.manual_seed(0)
    net = SarShipNet(attention="shuffle" if shuffle else "none", head="context" if context else "coupled")
    before = [p.detach().clone() for p in net.parameters()]
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    loss, parts = one_step(net, "wiou3" if wise else "ciou")
    optimiser.step()
    assert torch.isfinite(loss)
    assert parts["positives"] > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert all(torch.isfinite(p).all() for p in net.parameters())


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_smoke_every_box_loss_with_three_classes(box_loss):
    torch.manual_seed(0)
    net = SarShipNet(nc=3)
    _, parts = one_step(net, box_loss)
    assert parts["cls"] > 0


def sce_layers(net):
    return {name: p for name, p in net.named_parameters() if ".sce." in name}


def everywhere_positive():
    """Targets that give every level positives: three sizes, spread over a 128 px image."""
    sides = torch.tensor([[20.0, 20.0], [60.0, 60.0], [100.0, 100.0]])
    rows = [torch.cat((torch.zeros(2), torch.full((2,), 64.0), wh)) for wh in sides]
    return torch.stack(rows)


def test_gradient_reaches_every_tensor_of_the_classification_branch():
    torch.manual_seed(0)
    net = SarShipNet().train()
    loss, _ = DetectionLoss(net)(net(torch.rand(2, 3, 128, 128)), everywhere_positive())
    loss.backward()
    silent = [name for name, p in sce_layers(net).items() if p.grad is None or not p.grad.any()]
    assert silent == []
    for level in net.head.sce:
        rows = level.predict.weight.grad.reshape(3, 4, 2, -1)
        assert rows[:, :, 0].abs().sum(dim=-1).all(), "every objectness row learns"
        assert not rows[:, :, 1].any(), "class rows of a one-class network do not"


def test_gradient_of_the_whole_network_but_the_group_norm():
    torch.manual_seed(0)
    net = SarShipNet().train()
    loss, _ = DetectionLoss(net)(net(torch.rand(2, 3, 128, 128)), everywhere_positive())
    loss.backward()
    silent = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    # W = 0 at the start hides the group norm behind a zero factor, on the first step only
    assert silent == {"attention.norm.weight", "attention.norm.bias"}


def test_gradient_with_objectness_in_the_box_branch_needs_the_class_loss():
    torch.manual_seed(0)
    net = SarShipNet(obj_branch="dpe").train()
    assert net.class_loss
    loss_of = DetectionLoss(net)
    image = torch.rand(2, 3, 128, 128)
    loss_of(net(image), everywhere_positive())[0].backward()
    assert all(p.grad.any() for p in sce_layers(net).values())
    net.zero_grad()
    loss_of.class_loss = False
    loss_of(net(image), everywhere_positive())[0].backward()
    assert not any(p.grad.any() for p in sce_layers(net).values()), "the untrained branch of ambiguity 8.1"


def test_feature_fused_network_is_equal():
    torch.manual_seed(0)
    net = SarShipNet()
    with torch.no_grad():  # statistics and gains as after a training, so that folding has work to do
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    net.eval()
    image = torch.rand(1, 3, 128, 128)
    with torch.inference_mode():
        expected = net.candidates(net(image))
        fused = net.fuse().candidates(net.fuse()(image))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())
    torch.testing.assert_close(fused, expected, rtol=1e-5, atol=1e-5)


def test_exception_folding_without_statistics():
    block = Conv(3, 8)
    block.bn = torch.nn.BatchNorm2d(8, track_running_stats=False)
    with pytest.raises(ValueError, match="running statistics"):
        block.fuse()


def test_save_load_by_configuration():
    torch.manual_seed(0)
    net = SarShipNet(
        attention="eca", anchors=[[[4, 5], [6, 7]], [[10, 10], [20, 9]], [[50, 50], [80, 90]]]
    ).eval()
    other = SarShipNet(**net.config).eval()
    other.load_state_dict(net.state_dict(), strict=True)
    assert other.config == net.config
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        for a, b in zip(net(image), other(image), strict=True):
            assert torch.equal(a, b)


def test_feature_decode_by_hand():
    raw = [torch.zeros(1, 3, 2, 2, 6) for _ in range(3)]
    raw[1][0, 2, 1, 0] = torch.tensor([1.0, -1.0, 0.5, -0.5, 2.0, 3.0])
    boxes = decode(raw, torch.tensor(DEFAULT_ANCHORS), (8, 16, 32))
    row = 3 * 4 + 2 * 4 + 2  # second level, third anchor, cell (1, 0)
    s = torch.sigmoid(raw[1][0, 2, 1, 0])
    expected = [(2 * s[0] - 0.5 + 0) * 16, (2 * s[1] - 0.5 + 1) * 16, 4 * s[2] ** 2 * 59, 4 * s[3] ** 2 * 119]
    torch.testing.assert_close(boxes[0, row], torch.stack([*expected, s[4], s[5]]))
    torch.testing.assert_close(boxes[0, 0], torch.tensor([4.0, 4.0, 10.0, 13.0, 0.5, 0.5]))


def test_feature_score_is_objectness_alone_where_classes_are_not_trained():
    raw = [torch.randn(1, 3, 2, 2, 6) for _ in range(3)]
    net, other = SarShipNet(), SarShipNet(obj_branch="dpe")
    decoded = decode(raw, net.anchors, net.strides)
    assert torch.equal(net.candidates(raw)[..., 4], decoded[..., 4])
    assert torch.equal(other.candidates(raw)[..., 4], decoded[..., 4] * decoded[..., 5])


def test_feature_pyramid_pooling_equals_parallel_maxima():
    torch.manual_seed(0)
    block = SPPF(16).eval()
    x = torch.rand(1, 16, 20, 20)
    y = block.reduce(x)
    maxima = [torch.nn.functional.max_pool2d(y, k, 1, k // 2) for k in (5, 9, 13)]
    torch.testing.assert_close(block(x), block.merge(torch.cat([y, *maxima], dim=1)))


def test_feature_shortcut_is_a_residual_sum():
    torch.manual_seed(0)
    block = C3(8, 8, 1).eval()
    x = torch.rand(1, 8, 4, 4)
    inner = block.blocks[0]
    y = block.deep(x)
    torch.testing.assert_close(inner(y) - y, inner.spread(inner.reduce(y)))
    plain = C3(8, 8, 1, shortcut=False).eval().blocks[0]
    torch.testing.assert_close(plain(y), plain.spread(plain.reduce(y)))
