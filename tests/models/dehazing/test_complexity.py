"""The counts of specification 07, sections 3.4, 3.6 and 9.1; on the meta device, which computes nothing."""

import pytest
import torch
from kestrel.models.dehazing.blocks import MAB, SAOD, DilateRes
from kestrel.models.dehazing.complexity import multiply_adds, parameters
from kestrel.models.dehazing.network import ABLATIONS, PRESETS, DWTMANet
from torch import nn


def sketch(**config):
    with torch.device("meta"):
        return DWTMANet(**config)


def test_feature_saod_has_the_published_parameters_and_operations():
    with torch.device("meta"):
        saod = SAOD(3)
    assert parameters(saod) == 684
    assert multiply_adds(saod) == 648 * 512**2 + 3 * 512**2 + 39
    assert multiply_adds(saod) / 1e6 == pytest.approx(170.66, abs=0.005)


def test_feature_the_paper_network():
    net = sketch()
    assert parameters(net) == parameters(sketch(**PRESETS["paper"])) == 8_404_528
    assert parameters(net) == pytest.approx(8.34e6, rel=0.01)
    assert multiply_adds(net) / 1e9 == pytest.approx(188.72, rel=0.001)


@pytest.mark.parametrize(("size", "expected"), [(240, 41.49), (256, 47.20), (512, 188.73)])
def test_feature_operations_by_size(size, expected):
    assert multiply_adds(sketch(), size) / 1e9 == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(
    ("kind", "count", "expected"),
    [(SAOD, 12, 3_677_184), (DilateRes, 12, 1_306_368), (MAB, 12, 3_316_836)],
)
def test_feature_parameters_by_part(kind, count, expected):
    parts = [m for m in sketch().modules() if isinstance(m, kind)]
    assert len(parts) == count
    assert sum(map(parameters, parts)) == expected


def test_feature_parameters_of_what_lies_between():
    net = sketch()
    assert parameters(net.stem) == 672
    assert parameters(net.down1) + parameters(net.down2) == 75_168
    assert sum(map(parameters, (net.up1, net.up2, net.fuse1, net.fuse2))) == 27_432
    assert parameters(net.head) == 868


@pytest.mark.parametrize(
    ("config", "millions", "giga"),
    [
        ({"wdm_kernel": 3}, 8.589, 193.57),
        ({"dw_kernel": 5}, 8.388, 187.68),
        ({"dw_kernel": 3}, 8.378, 186.97),
        ({"fam_layers": 1}, 8.210, 185.08),
        ({"fam_layers": 3}, 8.599, 192.39),
        ({"fam_layers": 0}, 8.015, 181.42),
        ({"branch_bn": True}, 8.410, 189.44),
        ({"ca_reduction": 16}, 8.380, 188.73),
        ({"up": "idwt"}, 8.405, 188.73),
    ],
)
def test_feature_one_choice_at_a_time(config, millions, giga):
    net = sketch(**config)
    assert parameters(net) / 1e6 == pytest.approx(millions, abs=0.0005)
    assert multiply_adds(net) / 1e9 == pytest.approx(giga, abs=0.005)


@pytest.mark.parametrize("name", [name for name, config in ABLATIONS.items() if config])
@pytest.mark.parametrize("preset", PRESETS)
def test_feature_every_ablation_is_smaller_than_the_whole(name, preset):
    whole, reduced = sketch(**PRESETS[preset]), sketch(**PRESETS[preset], **ABLATIONS[name])
    assert parameters(reduced) < parameters(whole)
    assert multiply_adds(reduced, 64) < multiply_adds(whole, 64)


def test_feature_the_ablations_are_the_published_nine():
    assert len(ABLATIONS) == 9
    assert ABLATIONS["Base+DWB+MAB+WDM"] == {}


def test_feature_counted_as_thop_does():
    """By hand: 3x3 over 4 -> 6 channels in 2 groups, a normalisation, a mean."""
    layers = nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    )
    expected = 2 * 9 * 6 * 64 + 4 * 6 * 64 + 6 * 64 + 6
    assert multiply_adds(layers, size=8, channels=4) == expected


def test_feature_counting_leaves_the_network_as_it_was():
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)).train()
    multiply_adds(net, size=8)
    assert net.training
    assert net[1].num_batches_tracked == 0
    assert not net[0]._forward_hooks
