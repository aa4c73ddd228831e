import numpy as np
import pytest
import torch
from kestrel.models.dehazing.loss import dehazing_loss
from kestrel.models.dehazing.network import ABLATIONS, PRESETS, DWTMANet
from torch import nn

THIN = {"widths": (4, 8, 8, 8, 4), "depths": (1, 1, 1, 1, 1)}


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def make(seed=0, **config):
    torch.manual_seed(seed)
    return DWTMANet(**{**PRESETS["small"], **config}).eval()


@pytest.mark.parametrize("name", ABLATIONS)
@pytest.mark.parametrize("up", ["shuffle", "idwt"])
@torch.no_grad()
def test_smoke_every_ablation_answers(name, up):
    answer = make(**THIN, **ABLATIONS[name], up=up)(noise(1, 3, 16, 24))
    assert answer.shape == (1, 3, 16, 24)
    assert torch.isfinite(answer).all()


@pytest.mark.parametrize("size", [(80, 80), (240, 240), (256, 256), (512, 512), (512, 240), (8, 8)])
@pytest.mark.parametrize("preset", PRESETS)
def test_shape_by_size_on_the_meta_device(preset, size):
    with torch.device("meta"):
        assert DWTMANet(**PRESETS[preset])(torch.zeros(2, 3, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("size", [(8, 8), (80, 80), (16, 88)])
@torch.no_grad()
def test_shape_by_size(size):
    assert make()(noise(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("size", [(84, 80), (80, 82), (81, 81), (4, 8)])
def test_exception_sides_that_cannot_be_halved(size):
    with pytest.raises(ValueError, match="multiples of 8"):
        make(**THIN)(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"widths": (8, 16, 32, 16)}, "widths is"),
        ({"widths": (8, 16, 32, 16, 4)}, "mirror"),
        ({"depths": (1, 1, 0, 1, 1)}, "depths is"),
        ({"down": "pool"}, "down is 'pool'"),
        ({"up": "nearest"}, "up is 'nearest'"),
        ({"dw_kernel": 4}, "dw_kernel is 4"),
        ({"fam_layers": -1}, "fam_layers is -1"),
        ({"expansion": 0}, "expansion is 0"),
        ({"use_fam": 1}, "use_fam is 1"),
    ],
)
def test_exception_configs_that_describe_no_network(config, message):
    with pytest.raises(ValueError, match=message):
        DWTMANet(**config)


@torch.no_grad()
def test_feature_a_head_of_zeros_leaves_the_picture_alone():
    net, x = make(), noise(2, 3, 16, 16)
    nn.init.zeros_(net.head.weight)
    nn.init.zeros_(net.head.bias)
    assert torch.equal(net(x), x)


@torch.no_grad()
def test_feature_the_head_gives_one_k_and_three_b():
    net, x = make(), noise(1, 3, 16, 16)
    nn.init.zeros_(net.head.weight)
    net.head.bias.copy_(torch.tensor([0.5, 0.1, 0.2, 0.3]))
    expected = 1.5 * x - torch.tensor([0.1, 0.2, 0.3]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(net(x), expected)


@torch.no_grad()
def test_feature_the_same_twice_is_the_same_bits():
    net, x = make(), noise(2, 3, 48, 40)
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize("preset", PRESETS)
@torch.no_grad()
def test_feature_two_together_are_two_alone(preset):
    net, x = make(**PRESETS[preset]), noise(2, 3, 32, 40)
    alone = torch.cat([net(each[None]) for each in x])
    assert (net(x) - alone).abs().max() < 1e-5


@torch.no_grad()
def test_feature_every_part_of_the_picture_counts():
    """Global statistics: a far corner changes what is answered here, so tiles have no margin to crop."""
    net, x = make(), noise(1, 3, 64, 64)
    y = x.clone()
    y[..., -8:, -8:] = 1
    assert (net(x) - net(y))[..., :8, :8].abs().max() > 0


def test_feature_every_parameter_learns():
    torch.manual_seed(0)
    net = DWTMANet(**THIN)
    dehazing_loss(net(noise(2, 3, 32, 32)), noise(2, 3, 32, 32, seed=1)).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("name", ["DWTMA-Net - PA", "Base(DM)", "Base+DWB+MAB+WDM"])
@torch.no_grad()
def test_save_load_by_config_and_state(name):
    net = make(**ABLATIONS[name])
    again = DWTMANet(**net.config).eval()
    again.load_state_dict(net.state_dict(), strict=True)
    x = noise(1, 3, 16, 16)
    assert torch.equal(again(x), net(x))
    assert again.config == net.config


def psnr(a, b):
    """PSNR of pictures in -1..1, over all of them."""
    return (10 * torch.log10(4 / (a - b).square().mean())).item()


@pytest.mark.slow
def test_feature_four_pairs_are_learnt_by_heart():
    """Specification 07, section 9.8: above 30 dB and 8 dB above the hazy input after 300 steps."""
    from kestrel.models.classical.haze import cloud_field, simulate

    fields = [[cloud_field((64, 64), 10 * i + band, 12) for band in range(3)] for i in range(4)]
    scenes = torch.from_numpy(np.array(fields, np.float32)) * 0.7 + 0.05
    hazy = torch.stack(
        [torch.from_numpy(simulate(s.numpy(), i, width_px=48).image) for i, s in enumerate(scenes)]
    )
    clear, hazy = 2 * scenes - 1, 2 * hazy - 1
    torch.manual_seed(0)
    net = DWTMANet(**PRESETS["small"]).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 300)
    for _ in range(300):
        optimiser.zero_grad()
        answer = net(hazy)
        dehazing_loss(answer, clear).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    before, after = psnr(hazy, clear), psnr(answer.detach().clamp(-1, 1), clear)
    assert after > 30
    assert after > before + 8
