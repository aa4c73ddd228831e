"""The counts of specification 08, section 3.4; on the meta device, which computes nothing."""

import pytest
import torch
from kestrel.models.building_change.complexity import multiply_adds, parameters
from kestrel.models.building_change.network import ABLATIONS, PRESETS, SSANet
from torch import nn


def sketch(**config):
    with torch.device("meta"):
        return SSANet(**config)


def test_feature_the_paper_network():
    net = sketch(**PRESETS["paper"])
    assert parameters(net) == 3_543_617
    assert multiply_adds(net) == 4_880_072_704
    assert multiply_adds(net, thop=True) == 6_650_068_992


@pytest.mark.parametrize(
    ("name", "count", "giga"),
    [
        ("Backbone", 12_482_177, 18.06),
        ("Backbone + CSHConv", 3_543_617, 6.65),
        ("Backbone + SSIF", 12_482_177, 18.06),
        ("SSA-Net", 3_543_617, 6.65),
    ],
)
def test_feature_attention_costs_no_parameter(name, count, giga):
    net = sketch(**ABLATIONS[name])
    assert parameters(net) == count
    assert multiply_adds(net, thop=True) / 1e9 == pytest.approx(giga, abs=0.005)


@pytest.mark.parametrize(("groups", "millions", "giga"), [(1, 5.31, 8.46), (4, 2.66, 5.74)])
def test_feature_other_groups_miss_the_published_counts(groups, millions, giga):
    net = sketch(groups=groups)
    assert parameters(net) / 1e6 == pytest.approx(millions, abs=0.005)
    assert multiply_adds(net, thop=True) / 1e9 == pytest.approx(giga, abs=0.005)


def test_feature_parameters_by_part():
    net = sketch()
    for level, expected in enumerate((20_544, 29_696, 116_736, 462_848, 1_843_200)):
        assert parameters(net.before[level]) + parameters(net.after[level]) == expected
    assert parameters(net.up) == 696_800
    assert parameters(net.decode) == 373_760
    assert parameters(net.head) == 33


def test_feature_counted_as_thop_does():
    """By hand: 3x3 over 4 -> 6 channels in 2 groups, a normalisation, 2x2 transposed to 5 channels."""

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6)
            self.up = nn.ConvTranspose2d(6, 5, 2, 2)

        def forward(self, before, after):
            return self.up(self.norm(self.conv(before)))

    conv, up = 2 * 9 * 6 * 64, 6 * 5 * 4 * 64
    assert multiply_adds(Small(), size=8, channels=4) == conv + up
    assert multiply_adds(Small(), size=8, channels=4, thop=True) == conv + 4 * up + 4 * 6 * 64


def test_feature_counting_leaves_the_network_as_it_was():
    net = SSANet(width=4).train()
    multiply_adds(net, size=32)
    assert net.training
    assert net.before[0][1].num_batches_tracked == 0
    assert not net.head._forward_hooks
