import pytest
import torch
from kestrel.models.dehazing.blocks import DWB, MAB, SAOD, DilateRes, StarBlock
from kestrel.models.dehazing.wavelet import dwt, idwt
from torch import nn


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Always(nn.Module):
    """One value everywhere, in the input's shape or one number per channel."""

    def __init__(self, value, pooled=False):
        super().__init__()
        self.value, self.pooled = value, pooled

    def forward(self, x):
        shape = (*x.shape[:2], 1, 1) if self.pooled else x.shape
        return torch.full(shape, self.value)


def test_feature_a_wavelet_block_of_identities_is_the_identity():
    block = DWB(4)
    block.low, block.detail = nn.Identity(), nn.Identity()
    x = noise(2, 4, 8, 12)
    torch.testing.assert_close(block(x), x, atol=1e-5, rtol=0)


def test_feature_each_band_of_a_wavelet_block_goes_its_own_way():
    torch.manual_seed(0)
    block, x = DWB(4), noise(2, 4, 8, 12)
    ll, hl, lh, hh = dwt(x)
    with torch.no_grad():
        expected = idwt(block.low(ll), block.detail(hl), block.detail(lh), block.detail(hh))
        torch.testing.assert_close(block(x), expected, atol=1e-6, rtol=1e-5)


def test_feature_saod_is_the_scattering_model():
    saod, x = SAOD(3), noise(1, 3, 6, 6)
    saod.k, saod.b = Always(1.0), Always(1.0, pooled=True)
    torch.testing.assert_close(saod(x), x)  # f - 1 + 1
    saod.k, saod.b = Always(0.0), Always(0.4, pooled=True)
    assert torch.equal(saod(x), torch.full_like(x, 0.4))
    saod.k = Always(0.5)
    torch.testing.assert_close(saod(x), 0.5 * x - 0.5 + 0.4)


def test_feature_dilated_block_around_the_identity():
    block, x = DilateRes(4), noise(2, 4, 9, 9)
    nn.init.zeros_(block.body[-1].weight)
    assert torch.equal(block(x), x)


def test_feature_dilated_block_reaches_four_pixels():
    block = DilateRes(1)
    for parameter in block.parameters():
        nn.init.ones_(parameter)
    x = torch.zeros(1, 1, 17, 17)
    x[..., 8, 8] = 1
    rows, cols = torch.nonzero(block(x)[0, 0], as_tuple=True)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (4, 12, 4, 12)


@pytest.mark.parametrize("make", [MAB, StarBlock])
def test_feature_residual_blocks_start_from_the_identity(make):
    block, x = make(8).eval(), noise(2, 8, 8, 8)
    for parameter in block.out[-1].parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(block(x), x)


def attention_sum(block, x):
    """What goes into the last convolutions, caught there."""
    caught = []
    hook = block.out.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    block(x)
    hook.remove()
    return caught[0]


@pytest.mark.parametrize(
    "off",
    [(), ("use_pa",), ("use_ca",), ("use_fam",), ("use_pa", "use_ca"), ("use_pa", "use_ca", "use_fam")],
)
@torch.no_grad()
def test_feature_attentions_that_are_off_leave_their_place(off):
    torch.manual_seed(0)
    block, x = MAB(8, **dict.fromkeys(off, False)).eval(), noise(1, 8, 8, 8)
    x0 = block.local(x)
    x1 = block.mix(block.point(x0) + block.area(x0))
    parts = [part for part in (block.pa, block.ca) if part is not None]
    expected = sum(part(x1) for part in parts) if parts else x1
    if "use_fam" not in off:
        expected = expected * torch.sigmoid(block.fam(x1))
    torch.testing.assert_close(attention_sum(block, x), expected)


def test_feature_branches_may_be_normalised():
    plain, normalised = MAB(8), MAB(8, branch_bn=True)
    count = sum(isinstance(m, nn.BatchNorm2d) for m in normalised.modules())
    assert count == sum(isinstance(m, nn.BatchNorm2d) for m in plain.modules()) + 2


@pytest.mark.parametrize("make", [SAOD, DilateRes, DWB])
def test_gradcheck_wavelet_blocks(make):
    torch.manual_seed(0)
    block, x = make(2).double(), noise(1, 2, 4, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(block, (x,))


def test_gradcheck_attention_block():
    torch.manual_seed(0)
    block, x = MAB(2).double().eval(), noise(1, 2, 4, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(block, (x,))
