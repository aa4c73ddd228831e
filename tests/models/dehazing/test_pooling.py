"""Pooled statistics of a scene in place of each tile's."""

import itertools

import numpy as np
import pytest
import torch
from kestrel.models.dehazing.network import PRESETS, DWTMANet
from kestrel.models.dehazing.pooling import MOST, SIDE, Known, Samples, pooled_means, pools, with_means
from kestrel.models.task import Block


@pytest.fixture(scope="module")
def net() -> DWTMANet:
    torch.manual_seed(3)
    made = DWTMANet(**PRESETS["small"]).eval()
    for part in made.modules():  # away from their start, at which many gates hardly move
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight, a=1)
    return made


def picture(seed: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).random((3, side, side), dtype=np.float32)


def answer(net: DWTMANet, image: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return net(2 * torch.from_numpy(image[None]) - 1)


def test_feature_every_place_that_pools_is_replaced(net: DWTMANet) -> None:
    depths = sum(PRESETS["small"]["depths"])
    # SAOD and channel attention in each block, and the two fusions
    assert len(pools(net)) == 2 * depths + 2
    fixed = with_means(net, pooled_means(net, [(picture(0), 1.0)]))
    assert not pools(fixed)
    assert sum(isinstance(part, Known) for part in fixed.modules()) == 2 * depths + 2


def test_oracle_means_of_a_picture_give_its_own_answer(net: DWTMANet) -> None:
    image = picture(1)
    fixed = with_means(net, pooled_means(net, [(image, 7.0)]))
    want = answer(net, image)
    # the Fourier attention magnifies the last bit of a mean
    torch.testing.assert_close(answer(fixed, image), want, rtol=0, atol=1e-4 * float(want.abs().max()))


def test_oracle_means_are_weighted(net: DWTMANet) -> None:
    a, b = (pooled_means(net, [(picture(seed), 1.0)]) for seed in (2, 3))
    both = pooled_means(net, [(picture(2), 3.0), (picture(3), 1.0)])
    for name, mean in both.items():
        torch.testing.assert_close(mean, 0.75 * a[name] + 0.25 * b[name])


def test_property_the_network_itself_stays_as_it_was(net: DWTMANet) -> None:
    image, other = picture(4), picture(5)
    before = answer(net, image)
    fixed = with_means(net, pooled_means(net, [(other, 1.0)]))
    assert torch.equal(answer(net, image), before)
    assert not torch.allclose(answer(fixed, image), before)
    assert fixed.stem.weight is net.stem.weight  # no second copy of the weights


def test_feature_blocks_are_spread_and_bounded() -> None:
    kept = Samples(8)
    for number in range(400):
        kept.add(Block(np.full((3, 16, 16), number, np.float32), np.ones((16, 16), bool), number, 0))
    numbers = [int(image[0, 0, 0]) for image, _ in kept]
    assert MOST // 2 <= len(numbers) <= MOST
    assert len({b - a for a, b in itertools.pairwise(numbers)}) == 1
    assert numbers[-1] > 350


def test_feature_invalid_pixels_get_the_mean_and_empty_blocks_go() -> None:
    image = np.zeros((3, 300, 40), np.float32)
    valid = np.ones((300, 40), bool)
    image[:, :, :20] = 0.5
    valid[:, 30:] = False
    image[:, :, 20:30] = 1.0
    kept = Samples(8)
    kept.add(Block(image, valid, 0, 0))
    kept.add(Block(image, np.zeros_like(valid), 0, 0))
    ((found, weight),) = kept
    assert found.shape == (3, SIDE, 40)
    assert weight == SIDE * 30
    np.testing.assert_allclose(found[:, :, 30:], (20 * 0.5 + 10 * 1.0) / 30, rtol=1e-6)
