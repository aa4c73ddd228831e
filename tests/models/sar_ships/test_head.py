"""The context decoupled head against equations 4-6 (specification 3.5 and 9)."""

import math

import pytest
import torch
from einops import rearrange
from kestrel.models.sar_ships.head import DetailPreserving, class_bias, objectness_bias, unpack_cells
from kestrel.models.sar_ships.network import SarShipNet
from torch import nn


def test_feature_unpack_places_four_codes():
    na, k = 2, 3
    x = torch.zeros(1, na * 4 * k, 2, 2)
    for a in range(na):
        for slot in range(4):
            for c in range(k):
                x[0, a * 4 * k + slot * k + c] = 100 * a + 10 * slot + c
    y = unpack_cells(x, k)
    assert y.shape == (1, na, 4, 4, k)
    for a in range(na):
        for c in range(k):
            cell = y[0, a, :, :, c] - 100 * a - c
            for row in (0, 2):
                for col in (0, 2):
                    assert cell[row : row + 2, col : col + 2].tolist() == [[0, 10], [20, 30]]


def test_feature_unpack_equals_the_specification_pattern():
    x = torch.randn(1, 8, 3, 5)
    expected = rearrange(x[0], "(p q k) h w -> k (h p) (w q)", p=2, q=2)
    torch.testing.assert_close(unpack_cells(x, 2)[0, 0].permute(2, 0, 1), expected)


def identity_branch(c):
    """A localisation branch whose convolutions pass their input on: the stride-2 one by its middle tap."""
    branch = DetailPreserving(c, c, c, 3, 8, objectness=False).eval()
    for block in (branch.a_lo, branch.a_up, branch.d2):
        block.bn, block.forward = nn.Identity(), block.conv.forward
        with torch.no_grad():
            block.conv.weight.zero_()
            middle = block.conv.kernel_size[0] // 2
            for i in range(c):
                block.conv.weight[i, i, middle, middle] = 1
    return branch


def test_feature_context_of_constant_maps_is_the_analytic_sum():
    c = 4
    low, own, up = (torch.full((1, c, n, n), v) for n, v in ((16, 0.5), (8, 2.0), (4, 7.0)))
    with torch.no_grad():
        g = identity_branch(c).context(low, own, up)
    torch.testing.assert_close(g, torch.full_like(own, 2.0 + 7.0 + (0.5 + 2.0)))


def test_feature_each_level_adds_exactly_its_own_term():
    torch.manual_seed(0)
    c = 4
    low, own, up = torch.rand(1, c, 16, 16), torch.rand(1, c, 8, 8), torch.rand(1, c, 4, 4)
    branch = identity_branch(c)
    with torch.no_grad():
        full = branch.context(low, own, up)
        without_up = branch.context(low, own, torch.zeros_like(up))
        without_low = branch.context(torch.zeros_like(low), own, up)
    enlarged = up.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(full - without_up, enlarged)
    torch.testing.assert_close(full - without_low, low[:, :, ::2, ::2])


def test_shape_mixtures_of_the_classification_branch():
    net = SarShipNet().eval()
    seen = []
    for level in net.head.sce:
        level.f_cls.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[1:])))
    with torch.inference_mode():
        net(torch.zeros(1, 3, 640, 640))
    assert seen == [(192, 40, 40), (384, 20, 20), (512, 10, 10)]


@pytest.mark.parametrize("switches", [{"head": "coupled"}, {"head": "decoupled"}, {}, {"obj_branch": "dpe"}])
def test_feature_starting_scores(switches):
    """Without features: objectness as for eight objects in a 640 px image, classes at 0.6/(nc - 0.99999)."""
    net = SarShipNet(nc=3, **switches).eval()
    for module in net.head.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.weight)
    with torch.inference_mode():
        raw = net(torch.rand(1, 3, 64, 64))
    for level, stride in zip(raw, net.strides, strict=True):
        torch.testing.assert_close(
            level[..., 4], torch.full_like(level[..., 4], math.log(8 * stride**2 / 640**2))
        )
        torch.testing.assert_close(level[..., 5:], torch.full_like(level[..., 5:], class_bias(3)))
    assert objectness_bias(8) == pytest.approx(math.log(8 / 6400))
