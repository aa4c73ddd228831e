"""Identities of SSIF and CSHConv (specification 08, section 9, checks 3 and 4)."""

import math

import pytest
import torch
from kestrel.models.building_change.blocks import SSIF, CSHConv, _deviation
from torch import nn
from torch.nn import functional as F

PLAIN = {"groups": 2, "use_ssif": True, "ssif_at": "het", "gaussian": False}


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_feature_deviations_average_to_one_half():
    x = noise(2, 16, 12, 10, dtype=torch.float64)
    for axes in ((2, 3), (1,)):
        mean = _deviation(x, axes).mean(axes)
        torch.testing.assert_close(mean, torch.full_like(mean, 0.5), atol=1e-5, rtol=0)


def test_feature_attention_by_the_equation():
    """Value by value with plain sums, population variances, one half added once."""
    x = noise(1, 3, 2, 2, dtype=torch.float64)
    found = SSIF()(x)
    for c in range(3):
        for i in range(2):
            for j in range(2):
                score = 0.5
                for group in (x[0, c].flatten().tolist(), x[0, :, i, j].tolist()):
                    mean = sum(group) / len(group)
                    variance = sum((v - mean) ** 2 for v in group) / len(group)
                    score += (float(x[0, c, i, j]) - mean) ** 2 / (2 * variance + 1e-6)
                expected = float(x[0, c, i, j]) / (1 + math.exp(-score))
                assert float(found[0, c, i, j]) == pytest.approx(expected, abs=1e-5)


def test_feature_weights_lie_between_0_6225_and_1():
    x = noise(2, 8, 16, 16)
    x[0, 0, 0, 0] = 1000.0
    weight = SSIF()(x) / x
    assert weight.min() >= torch.sigmoid(torch.tensor(0.5)) - 1e-6
    assert weight.max() <= 1 + 1e-6


def test_feature_a_constant_is_only_scaled():
    x = torch.full((1, 4, 8, 8), 3.0)
    torch.testing.assert_close(SSIF()(x), x * torch.sigmoid(torch.tensor(0.5)))


def test_feature_the_experiment_prefers_the_mean():
    x = noise(1, 8, 16, 16)
    x[0, 0, 0, 0] = 50.0
    weight = SSIF(gaussian=True)(x) / x
    assert weight[0, 0, 0, 0] == weight.min()
    assert weight.max() <= math.exp(-0.5)


@pytest.mark.parametrize(("c", "c_out"), [(3, 8), (8, 4), (8, 12)])
def test_shape_channels_of_a_split_convolution(c, c_out):
    assert CSHConv(c, c_out, **PLAIN)(noise(2, c, 6, 7)).shape == (2, c_out, 6, 7)


@torch.no_grad()
@pytest.mark.parametrize("use_ssif", [False, True])
def test_feature_the_mixed_half_comes_first(use_ssif):
    torch.manual_seed(0)
    block, x = CSHConv(6, 8, **{**PLAIN, "use_ssif": use_ssif}).eval(), noise(2, 6, 9, 9)
    found, o1 = block(x), block.point(x)
    assert torch.equal(found[:, 4:], o1)
    mixed = block.join(block.area(o1) + block.mix(o1))
    torch.testing.assert_close(found[:, :4], SSIF()(mixed) if use_ssif else mixed)


@torch.no_grad()
def test_feature_attention_on_both_halves():
    torch.manual_seed(0)
    block, x = CSHConv(6, 8, **{**PLAIN, "ssif_at": "out"}).eval(), noise(2, 6, 9, 9)
    bare = CSHConv(6, 8, **{**PLAIN, "use_ssif": False}).eval()
    bare.load_state_dict(block.state_dict())
    torch.testing.assert_close(block(x), SSIF()(bare(x)))


@torch.no_grad()
def test_feature_groups_are_convolutions_of_their_own():
    torch.manual_seed(0)
    area, x = CSHConv(6, 8, **PLAIN).area, noise(1, 4, 7, 7)
    parts = [F.conv2d(x[:, k : k + 2], area.weight[k : k + 2], padding=1) for k in (0, 2)]
    torch.testing.assert_close(area(x), torch.cat(parts, 1), atol=1e-6, rtol=1e-5)


def test_feature_a_split_convolution_has_no_bias_but_the_normalisations():
    convolutions = [m for m in CSHConv(6, 8, **PLAIN).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 3
    assert all(m.bias is None for m in convolutions)


def test_gradcheck_attention():
    # in float64 the weights are taken in float32, so that the formula is checked without the cast
    x = noise(1, 3, 3, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: _deviation(v, (2, 3)) + _deviation(v, (1,)), (x,))
