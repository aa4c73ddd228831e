"""Tiles put together again: a network that looks at single pixels must not notice them."""

import numpy as np
import pytest
import torch
from kestrel.models.building_change.predict import change_map, normalised, starts
from torch import nn


class Pixelwise(nn.Module):
    """Logits from each pixel's own values."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, before, after):
        return self.scale * (after - before).sum(1, keepdim=True)


@pytest.mark.parametrize("size", [(32, 32), (33, 70), (10, 40), (100, 17)])
@pytest.mark.parametrize("stride", [32, 24, 16])
def test_property_tiles_of_a_pixelwise_network_leave_no_trace(size, stride):
    rng = np.random.default_rng(0)
    before, after = (rng.integers(0, 256, (3, *size), dtype=np.uint8) for _ in range(2))
    mean, std = [0.2, 0.3, 0.4], [0.5, 1.0, 2.0]
    found = change_map(Pixelwise().eval(), before, after, mean, std, tile=32, stride=stride, batch=3)
    difference = (after.astype(np.float64) - before) / 255 / np.array(std)[:, None, None]
    assert found.shape == size
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-3 * difference.sum(0))), atol=1e-5)


def test_shape_starts_cover_every_pixel():
    for size in (32, 33, 56, 57, 200):
        places = starts(size, 32, 24)
        assert places[0] == 0
        assert places[-1] == size - 32
        assert np.diff(places).max(initial=0) <= 24
        assert len(set(places)) == len(places)


def test_feature_normalised_by_hand():
    x = torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1)
    out = normalised(x, [0.5, 0.5, 0.5], [1.0, 0.1, 0.2])
    torch.testing.assert_close(out.flatten(), torch.tensor([0.0, 1.0, 1.0]))
