"""A U-Net with random weights: the toy of ENGINE.md, section 5, for benchmarks and tests.

Widths 16, 32, 64, 128, two 3x3 convolutions a level, 41 000 multiply-adds a pixel. The weights
come from a seed, so every process has the same network. :func:`build_scores` and
:func:`build_raster` are builders as the registry's: (params, weights, device, scene) -> Task.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from kestrel.models.device import use_threads
from kestrel.models.task import Input, Scale, Task, Tiles
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (16, 32, 64, 128)
CLASSES = ("water", "soil", "green", "built")
TILE, OVERLAP = 256, 64
#: Three halvings.
MULTIPLE = 8
#: Half the theoretical receptive field: two pixels of convolution at steps 1, 2, 4, 8, 4, 2, 1, and up to
#: 7 more because a pixel of the coarsest level stands for 8. Overlap 64 cannot crop that much; the
#: tasks declare margin 0 and let the blend hide the rest, as most users of such networks do.
REACH = 2 * (1 + 2 + 4 + 8 + 4 + 2 + 1) + 7


class UNet(nn.Module):
    """(B, bands, H, W) to (B, outputs, H, W) float32; H and W are multiples of 8."""

    def __init__(self, bands: int, outputs: int, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        before = (bands, *widths)
        self.down = nn.ModuleList(_double(a, b) for a, b in zip(before, widths, strict=False))
        self.up = nn.ModuleList(
            _double(coarse + fine, fine) for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in self.down[:-1]:
            x = level(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.down[-1](x)
        for level in self.up:
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = level(torch.cat((x, skips.pop()), 1))
        return self.head(x)


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(inplace=True),
    )


def make_net(bands: int = 3, outputs: int = len(CLASSES), seed: int = 0) -> UNet:
    """Return the network in channels_last with He-normal weights drawn from ``seed``."""
    net = UNet(bands, outputs)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                fan_in = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
                layer.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
                layer.bias.zero_()
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def prepare(tiles: Tiles) -> Tensor:
    """Return the batch as a tensor, (B, 3, T, T), in the network's memory format."""
    return torch.from_numpy(tiles.images["image"]).contiguous(memory_format=torch.channels_last)


def build_scores(params: Any, weights: str, device: str, scene: Any) -> Task:
    """Builder of kind ``scores``: three bands in, the probabilities of four classes out."""
    use_threads()
    net = make_net()

    @torch.inference_mode()
    def predict(images: Tensor) -> list[np.ndarray]:
        return list(net(images).softmax(1).contiguous().numpy())

    return _task("scores", CLASSES, predict)


def build_raster(params: Any, weights: str, device: str, scene: Any) -> Task:
    """Builder of kind ``raster`` with ``change``: the input plus at most a tenth of the stretch."""
    use_threads()
    net = make_net(outputs=3)

    @torch.inference_mode()
    def predict(images: Tensor) -> list[np.ndarray]:
        return list((images + 0.1 * torch.tanh(net(images))).contiguous().numpy())

    return _task("raster", ("red", "green", "blue"), predict, change=True)


def _task(kind: Any, outputs: tuple[str, ...], predict: Any, **more: Any) -> Task:
    return Task(
        name=f"unet_{kind}",
        inputs=(Input("image", bands=3, scale=Scale("auto"), fill="nearest", pad="reflect"),),
        kind=kind,
        tile=TILE,
        multiple=MULTIPLE,
        margin=0,
        shrinkable=False,
        outputs=outputs,
        prepare=prepare,
        predict=predict,
        overlap=lambda _: OVERLAP,
        model_id=f"unet_{kind}@000000000000",
        **more,
    )
