import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.models.dehazing.fusion import Fusion, InverseWavelet, WaveletDown
from kestrel.models.dehazing.wavelet import dwt
from torch import nn

seeds = st.integers(0, 2**31 - 1)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=30)
@given(seeds, st.sampled_from([1, 8, 24, 48]))
def test_property_the_weights_of_both_paths_add_up_to_one(seed, channels):
    torch.manual_seed(seed)
    fusion = Fusion(channels)
    ours, theirs = fusion.weights(
        5 * noise(2, channels, 4, 6, seed=seed), noise(2, channels, 4, 6, seed=seed + 1)
    )
    assert ours.shape == theirs.shape == (2, channels, 1, 1)
    torch.testing.assert_close(ours + theirs, torch.ones(2, channels, 1, 1))


def test_feature_undecided_weights_are_halves():
    fusion = Fusion(8)
    nn.init.zeros_(fusion.choose[-1].weight)
    nn.init.dirac_(fusion.skip.weight)
    nn.init.zeros_(fusion.skip.bias)
    up, skip = noise(2, 8, 4, 4), noise(2, 8, 4, 4, seed=1)
    torch.testing.assert_close(fusion(up, skip), 1.5 * up + 0.5 * skip)


def test_feature_the_first_weights_belong_to_the_path_from_below():
    fusion, up, skip = Fusion(8), torch.ones(1, 8, 4, 4), torch.ones(1, 8, 4, 4)
    with torch.no_grad():
        fusion.choose[1].weight.fill_(1)
        fusion.choose[3].weight[:8] = 1
        fusion.choose[3].weight[8:] = -1
    ours, theirs = fusion.weights(up, skip)
    assert ours.min() > 0.99
    assert theirs.max() < 0.01


@pytest.mark.parametrize("kernel", [1, 3])
@torch.no_grad()
def test_feature_down_sampling_sees_space_and_wavelets(kernel):
    torch.manual_seed(0)
    down, x = WaveletDown(4, 8, kernel), noise(2, 4, 8, 12)
    assert down(x).shape == (2, 8, 4, 6)
    expected = down.space(x) + down.bands(torch.cat(dwt(x), dim=1))
    torch.testing.assert_close(down(x), expected)
    # a stage that only hands on the low-pass band
    down = WaveletDown(1, 2)
    for parameter in down.parameters():
        nn.init.zeros_(parameter)
    down.bands.weight[0, 0] = 1
    torch.testing.assert_close(down(x[:, :1])[:, :1], dwt(x[:, :1])[0])


def test_feature_inverse_wavelet_undoes_the_wavelet():
    x = noise(2, 3, 8, 6)
    torch.testing.assert_close(InverseWavelet()(torch.cat(dwt(x), dim=1)), x)


def test_gradcheck_fusion_and_down_sampling():
    torch.manual_seed(0)
    up, skip = (noise(1, 2, 2, 4, seed=i, dtype=torch.float64).requires_grad_() for i in range(2))
    assert torch.autograd.gradcheck(Fusion(2).double(), (up, skip))
    assert torch.autograd.gradcheck(WaveletDown(2, 4).double(), (up,))
