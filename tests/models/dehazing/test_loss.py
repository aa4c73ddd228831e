import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kestrel.models.dehazing.loss import LAMBDA, dehazing_loss, loss_terms

sides = st.integers(1, 20)
offsets = st.floats(-1, 1, allow_subnormal=False)
seeds = st.integers(0, 2**31 - 1)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


@given(sides, sides, seeds)
def test_property_nothing_is_lost_where_the_answer_is_right(h, w, seed):
    clear = noise(2, 3, h, w, seed=seed)
    assert [term.item() for term in loss_terms(clear.clone(), clear)] == [0, 0]


@given(sides, sides, offsets, seeds)
def test_property_an_offset_is_in_the_constant_coefficient_alone(h, w, offset, seed):
    """|d| H W in one of H W coefficients: their mean is |d|, whatever the size."""
    clear = noise(1, 3, h, w, seed=seed, dtype=torch.float64)
    pixels, fourier = loss_terms(clear + offset, clear)
    assert pixels.item() == pytest.approx(abs(offset), abs=1e-12)
    assert fourier.item() == pytest.approx(abs(offset), abs=1e-10)


def test_feature_equation_13_written_out():
    restored, clear = noise(2, 3, 12, 10), noise(2, 3, 12, 10, seed=1)
    ours, theirs = torch.fft.fft2(restored), torch.fft.fft2(clear)
    fourier = (ours.real - theirs.real).abs().mean() + (ours.imag - theirs.imag).abs().mean()
    pixels = (restored - clear).abs().mean()
    torch.testing.assert_close(loss_terms(restored, clear), (pixels, fourier))
    torch.testing.assert_close(dehazing_loss(restored, clear), pixels + LAMBDA * fourier)
    assert LAMBDA == 0.1


@pytest.mark.parametrize(("side", "times"), [(240, 34), (64, 9.1)])
def test_feature_fourier_outweighs_pixels_over_white_residuals(side, times):
    """The published sizes of both terms (specification, section 4)."""
    residual = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    pixels, fourier = loss_terms(residual, torch.zeros_like(residual))
    # E|N(0,1)| = 0.798; each part of a coefficient is normal with variance H W / 2
    assert LAMBDA * fourier / pixels == pytest.approx(LAMBDA * 2 * side / 2**0.5, rel=0.02)
    assert LAMBDA * fourier / pixels == pytest.approx(times, rel=0.02)


def test_feature_half_precision_is_widened():
    pixels, fourier = loss_terms(noise(1, 3, 6, 6).bfloat16(), noise(1, 3, 6, 6, seed=1).bfloat16())
    assert pixels.dtype == fourier.dtype == torch.float32


def test_gradcheck():
    restored = noise(1, 3, 4, 6, dtype=torch.float64).requires_grad_()
    clear = noise(1, 3, 4, 6, seed=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: dehazing_loss(x, clear), (restored,))
