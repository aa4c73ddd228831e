"""Shuffle attention against the paper's equations 1-3, and the alternatives of Tables 6 and 7."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.models.sar_ships.attention import (
    ATTENTIONS,
    EfficientChannelAttention,
    ShuffleAttention,
    SimAm,
    channel_shuffle,
    make_attention,
)
from kestrel.models.sar_ships.complexity import parameters

groups_and_widths = st.tuples(st.integers(1, 6), st.integers(1, 6))


def test_feature_start_is_a_scaled_shuffle():
    x = torch.randn(2, 256, 5, 7)
    y = ShuffleAttention(256)(x)
    torch.testing.assert_close(y, torch.sigmoid(torch.tensor(1.0)) * channel_shuffle(x, 2))
    assert y.shape == x.shape


def test_feature_parameters():
    assert parameters(ShuffleAttention(256)) == 96


@given(groups_and_widths)
@settings(max_examples=25, deadline=None)
def test_property_shuffle_is_a_permutation(sizes):
    groups, width = sizes
    x = torch.arange(groups * width, dtype=torch.float32).reshape(1, -1, 1, 1)
    y = channel_shuffle(x, groups).flatten()
    assert sorted(y.tolist()) == list(range(groups * width))
    assert y[:groups].tolist() == [g * width for g in range(groups)], "first channel of every group first"


def test_feature_equations_group_by_group():
    torch.manual_seed(0)
    block = ShuffleAttention(32, groups=4)
    with torch.no_grad():
        for p in block.parameters():
            p.copy_(torch.randn_like(p))
    x = torch.randn(2, 32, 6, 5)
    parts = []
    for xk in x.split(8, dim=1):
        x1, x2 = xk[:, :4], xk[:, 4:]
        gated = torch.sigmoid(block.w1 * x1.mean(dim=(2, 3), keepdim=True) + block.b1) * x1
        mean, var = x2.mean(dim=(2, 3), keepdim=True), x2.var(dim=(2, 3), keepdim=True, unbiased=False)
        gn = (x2 - mean) / torch.sqrt(var + 1e-5) * block.norm.weight[:, None, None] + block.norm.bias[
            :, None, None
        ]
        parts += [gated, torch.sigmoid(block.w2 * gn + block.b2) * x2]
    torch.testing.assert_close(block(x), channel_shuffle(torch.cat(parts, dim=1), 2), rtol=1e-5, atol=1e-5)


def test_exception_channels_that_do_not_split():
    with pytest.raises(ValueError, match="24 channels"):
        ShuffleAttention(24)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_shape_is_kept(name):
    x = torch.randn(2, 64, 3, 5)
    assert make_attention(name, 64).eval()(x).shape == x.shape


@pytest.mark.parametrize("name", [n for n in ATTENTIONS if n not in ("none", "shuffle")])
def test_feature_gates_only_damp(name):
    x = torch.randn(2, 64, 4, 4)
    y = make_attention(name, 64).eval()(x)
    assert (y.abs() <= x.abs() + 1e-6).all()
    assert (y * x >= 0).all()
    assert not torch.equal(x, y)


@pytest.mark.parametrize(("channels", "kernel"), [(256, 5), (64, 3), (16, 3)])
def test_feature_kernel_follows_the_channels(channels, kernel):
    assert EfficientChannelAttention(channels).conv.kernel_size == (kernel,)


def test_feature_simam_by_hand():
    x = torch.tensor([0.0, 1.0, 2.0, 5.0]).reshape(1, 1, 2, 2)
    energy = (x - 2) ** 2 / (4 * (14 / 3 + 1e-4)) + 0.5
    torch.testing.assert_close(SimAm()(x), x * torch.sigmoid(energy))


def test_exception_unknown_name():
    with pytest.raises(ValueError, match="must be one of none, shuffle"):
        make_attention("loud", 8)
