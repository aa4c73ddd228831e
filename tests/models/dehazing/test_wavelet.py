import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kestrel.models.dehazing.wavelet import dwt, idwt

halves = st.integers(1, 12)
seeds = st.integers(0, 2**31 - 1)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@given(halves, halves, st.integers(1, 3), seeds)
def test_property_the_inverse_gives_the_input_back(h, w, channels, seed):
    x = noise(2, channels, 2 * h, 2 * w, seed=seed)
    assert (idwt(*dwt(x)) - x).abs().max() < 1e-5


@given(halves, halves, seeds)
def test_property_the_sum_of_squares_is_kept(h, w, seed):
    x = noise(1, 3, 2 * h, 2 * w, seed=seed, dtype=torch.float64)
    energy = sum(band.square().sum() for band in dwt(x))
    torch.testing.assert_close(energy, x.square().sum())


@given(halves, halves, seeds)
def test_property_the_inverse_is_the_transpose(h, w, seed):
    x = noise(1, 1, 2 * h, 2 * w, seed=seed, dtype=torch.float64)
    bands = [noise(1, 1, h, w, seed=seed + 1 + i, dtype=torch.float64) for i in range(4)]
    forward = sum((a * b).sum() for a, b in zip(dwt(x), bands, strict=True))
    torch.testing.assert_close(forward, (x * idwt(*bands)).sum())


def test_feature_one_block_by_hand():
    ll, hl, lh, hh = (band.item() for band in dwt(torch.tensor([[[[1.0, 2.0], [4.0, 9.0]]]])))
    assert (ll, hl, lh, hh) == (8.0, 3.0, 5.0, 2.0)


def test_feature_a_constant_has_no_details():
    ll, *details = dwt(torch.full((1, 2, 6, 4), 0.3))
    torch.testing.assert_close(ll, torch.full((1, 2, 3, 2), 0.6))
    assert all(torch.equal(band, torch.zeros(1, 2, 3, 2)) for band in details)


def test_feature_bands_are_those_of_pywavelets():
    pywt = pytest.importorskip("pywt")
    x = noise(2, 3, 10, 14, dtype=torch.float64)
    ll, (along_columns, along_rows, across) = pywt.dwt2(x.numpy(), "haar")
    # PyWavelets takes the first minus the second value, we the second minus the first
    for ours, theirs in zip(dwt(x), (ll, -along_rows, -along_columns, across), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-12)
    back = pywt.idwt2((ll, (along_columns, along_rows, across)), "haar")
    np.testing.assert_allclose(idwt(*dwt(x)).numpy(), back, atol=1e-12)


def test_feature_half_precision_is_widened():
    x = noise(1, 1, 4, 4).half()
    assert {band.dtype for band in dwt(x)} == {torch.float32}
    assert torch.equal(idwt(*dwt(x)), x.float())


@pytest.mark.parametrize("size", [(3, 4), (4, 5)])
def test_exception_odd_sides(size):
    with pytest.raises(ValueError, match="both sides must be even"):
        dwt(torch.zeros(1, 1, *size))


def test_gradcheck_both_ways():
    x = noise(1, 2, 4, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(dwt, (x,))
    bands = [noise(1, 2, 2, 3, seed=i, dtype=torch.float64).requires_grad_() for i in range(4)]
    assert torch.autograd.gradcheck(idwt, bands)
