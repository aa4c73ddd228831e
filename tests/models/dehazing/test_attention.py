import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kestrel.models.dehazing import attention
from kestrel.models.dehazing.attention import ChannelAttention, FourierAttention, PixelAttention

sides = st.integers(1, 17)
seeds = st.integers(0, 2**31 - 1)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def identity_fam(c, layers=2):
    """A FAM whose convolutions hand the amplitudes on: they are not negative, so the ReLU does too."""
    fam = FourierAttention(c, layers)
    for conv in fam.amplitude:
        if isinstance(conv, torch.nn.Conv2d):
            torch.nn.init.dirac_(conv.weight)
            torch.nn.init.zeros_(conv.bias)
    return fam


@settings(max_examples=50)
@given(sides, sides, seeds, st.integers(0, 3))
def test_property_unchanged_amplitudes_give_the_input_back(h, w, seed, layers):
    x = noise(2, 4, h, w, seed=seed)
    with torch.no_grad():
        assert (identity_fam(4, layers)(x) - x).abs().max() < 1e-5


def test_feature_doubled_amplitudes_double_the_input():
    fam = identity_fam(3)
    with torch.no_grad():
        fam.amplitude[0].weight.mul_(2)
        x = noise(1, 3, 8, 10)
        torch.testing.assert_close(fam(x), 2 * x, atol=1e-5, rtol=0)


def test_feature_phases_are_kept():
    torch.manual_seed(0)
    fam, x = FourierAttention(4), noise(1, 4, 16, 16)
    with torch.no_grad():
        before, after = torch.fft.rfft2(x, norm="ortho"), torch.fft.rfft2(fam(x), norm="ortho")
        amplitude = fam.amplitude(before.abs())
    # columns 0 and W/2 of a real signal's half spectrum hold each value twice, conjugated
    torch.testing.assert_close(
        (after / before * before.abs())[..., 1:8].real, amplitude[..., 1:8], atol=1e-4, rtol=0
    )
    assert (after / before).imag[..., 1:8].abs().max() < 1e-4


def test_feature_rounding_gets_no_phase():
    """Over flat ground the amplitudes that biases make up must not take the phases of rounding."""
    torch.manual_seed(0)
    fam = FourierAttention(4)
    flat = torch.tensor([0.3, -0.7, 1.1, 0.123456]).reshape(1, 4, 1, 1).expand(1, 4, 60, 60)
    with torch.no_grad():
        answer = fam(flat)
    assert (answer.amax((2, 3)) - answer.amin((2, 3))).max() < 1e-3


def test_feature_gradient_is_finite_where_the_spectrum_is_zero():
    fam, x = FourierAttention(2), torch.zeros(1, 2, 8, 8, requires_grad=True)
    fam(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_feature_fam_is_computed_in_float32_under_autocast():
    torch.manual_seed(0)
    fam, x = FourierAttention(4), noise(1, 4, 12, 20)  # sides that half-precision FFT refuses
    with torch.no_grad():
        expected = fam(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = fam(x)
            assert fam(x.bfloat16()).dtype == torch.float32
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_gradcheck_fam():
    torch.manual_seed(0)
    fam, x = FourierAttention(2).double(), noise(1, 2, 4, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(fam, (x,))


@pytest.mark.parametrize("make", [PixelAttention, ChannelAttention])
def test_gradcheck_gates(make):
    torch.manual_seed(0)
    gate, x = make(8).double(), noise(1, 8, 3, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(gate, (x,))


def test_feature_pixel_gates_are_one_per_pixel():
    torch.manual_seed(0)
    x = noise(2, 8, 5, 6)
    ratio = PixelAttention(8)(x) / x
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), atol=1e-4, rtol=1e-4)
    assert ratio.min() > 0
    assert ratio.max() < 1


def test_feature_channel_gates_are_one_per_channel():
    torch.manual_seed(0)
    x = noise(2, 8, 5, 6)
    ratio = ChannelAttention(8)(x) / x
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio), atol=1e-4, rtol=1e-4)


def test_feature_the_reading_names_what_the_code_does():
    for word in ("rfft2", "amplitudes", "phases kept", "float32"):
        assert word in attention.FOURIER_READING
