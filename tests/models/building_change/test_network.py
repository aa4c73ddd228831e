"""The whole network: sizes, the role of each date, switches, and that it can learn (checks 2, 5, 8)."""

import pytest
import torch
from kestrel.models.building_change.loss import loss_terms
from kestrel.models.building_change.network import ABLATIONS, PRESETS, SSANet
from kestrel.tests.support import building_change_weights as tools


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


thin = tools.random_network


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (64, 64), (48, 80), (512, 512)])
def test_shape_any_multiple_of_sixteen(size):
    logits = thin()(noise(2, 3, *size), noise(2, 3, *size, seed=1))
    assert logits.shape == (2, 1, *size)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ((1, 3, 64, 72), (1, 3, 64, 72), "64 x 72; both sides must be multiples of 16"),
        ((1, 3, 64, 64), (1, 3, 64, 80), "differ in shape"),
    ],
)
def test_exception_pictures_that_do_not_fit(before, after, message):
    with pytest.raises(ValueError, match=message):
        thin()(torch.zeros(before), torch.zeros(after))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"width": True}, "width is True"),
        ({"width": 5}, "cannot be halved"),
        ({"width": 4, "groups": 4}, "cut into 4 groups"),
        ({"in_channels": 2.0}, "in_channels is 2.0"),
        ({"ssif_at": "everywhere"}, "must be het or out"),
        ({"use_csh": 1}, "use_csh is 1"),
    ],
)
def test_exception_no_such_network(config, message):
    with pytest.raises(ValueError, match=message):
        SSANet(**config)


def test_feature_the_encoders_share_nothing():
    net = thin()
    pairs = list(zip(net.before.parameters(), net.after.parameters(), strict=True))
    assert not any(first is second for first, second in pairs)
    assert not torch.equal(net.before[1][0].point[0].weight, net.after[1][0].point[0].weight)


@torch.no_grad()
def test_feature_equal_encoders_and_dates_leave_no_picture():
    net = thin()
    net.after.load_state_dict(net.before.state_dict())
    answers = []
    for seed in (0, 1):
        x = noise(1, 3, 64, 64, seed=seed)
        answers.append(net(x, x))
    assert torch.equal(*answers)
    assert not torch.equal(net(noise(1, 3, 64, 64), noise(1, 3, 64, 64, seed=1)), answers[0])


@torch.no_grad()
def test_feature_the_order_of_the_dates_matters():
    before, after = noise(1, 3, 64, 64), noise(1, 3, 64, 64, seed=1)
    assert not torch.allclose(thin()(before, after), thin()(after, before), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("config", [*ABLATIONS.values(), {"ssif_at": "out"}, {"gaussian": True}])
def test_save_load_by_its_config(config):
    net = thin(**config)
    again = SSANet(**net.config).eval()
    again.load_state_dict(net.state_dict(), strict=True)
    dates = noise(1, 3, 32, 32), noise(1, 3, 32, 32, seed=1)
    assert torch.equal(net(*dates), again(*dates))


@torch.no_grad()
@pytest.mark.parametrize("change", [{"use_ssif": False}, {"ssif_at": "out"}, {"gaussian": True}])
def test_feature_each_switch_of_the_attention_is_connected(change):
    net, other = thin(), thin(**change)
    other.load_state_dict(net.state_dict())  # the attention has no parameters
    dates = noise(1, 3, 32, 32), noise(1, 3, 32, 32, seed=1)
    assert not torch.allclose(net(*dates), other(*dates), atol=1e-5)


def test_feature_presets_are_networks():
    with torch.device("meta"):
        assert SSANet(**PRESETS["paper"]).config["width"] == 32
        assert SSANet(**PRESETS["small"]).config["width"] == 16


def rectangles(count, seed=0):
    """Pairs of 64 pixels: noise on both dates, one rectangle added to the later one."""
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(count, 3, 64, 64, generator=generator)
    after, label = (
        before + 0.1 * torch.randn(before.shape, generator=generator),
        torch.zeros(count, 1, 64, 64),
    )
    for i in range(count):
        row, col, h, w = torch.randint(8, 32, (4,), generator=generator).tolist()
        label[i, :, row : row + h, col : col + w] = 1
    return before, after + 2 * label, label


@pytest.mark.slow
@pytest.mark.parametrize("config", [{}, {"use_csh": False, "use_ssif": False}])
def test_feature_eight_pairs_are_learnt_by_heart(config):
    before, after, label = rectangles(8)
    torch.manual_seed(0)
    net = SSANet(width=8, **config).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(100):
        optimiser.zero_grad()
        sum(loss_terms(net(before, after), label)).backward()
        optimiser.step()
    with torch.no_grad():
        found = net.eval()(before, after) > 0
    hit = (found & (label > 0)).sum()
    assert 2 * hit / (found.sum() + label.sum()) > 0.95
