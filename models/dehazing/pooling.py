"""One set of pooled statistics for a whole scene, so that neighbouring tiles get one tone.

DWTMA-Net pools over its input in three places: the b of SAOD, channel attention, and the choice
between the paths. On tiles these means differ from tile to tile, and with them the tone. Here they
are taken once, as means over blocks of the scene, and put in place of the tile's own. The Fourier
attention still sees its tile alone. Ours; the paper restores whole pictures.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..task import Block
from .network import DWTMANet

#: Side in pixels of what is looked at in a block: tones differ by no more than with twice that side.
SIDE = 128
#: Blocks looked at, at most; their network passes cost as much as 2 tiles of 512.
MOST = 32
#: A block with fewer valid pixels than this share says little about the ground.
VALID_SHARE = 0.5


class Known(nn.Module):
    """A mean that is known already, in place of the one over the input."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> (B, c, 1, 1), the same for every input."""
        return self.value.expand(x.shape[0], -1, -1, -1)


def pools(net: nn.Module) -> dict[str, nn.AdaptiveAvgPool2d]:
    """Return every mean over the whole input by its name in the network."""
    return {name: part for name, part in net.named_modules() if isinstance(part, nn.AdaptiveAvgPool2d)}


@torch.inference_mode()
def pooled_means(net: DWTMANet, images: Iterable[tuple[np.ndarray, float]]) -> dict[str, Tensor]:
    """Return for each pool the weighted mean (1, c, 1, 1) of what it gives; {} without an image.

    ``images``: float32 (3, H, W) in 0..1, sides multiples of ``net.multiple``, each with its weight.
    """
    device = next(net.parameters()).device
    sums: dict[str, Tensor] = {}
    total = 0.0
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = output

        return hook

    hooks = [part.register_forward_hook(keep(name)) for name, part in pools(net).items()]
    try:
        for image, weight in images:
            net(2 * torch.from_numpy(image[None]).to(device) - 1)
            for name, value in seen.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + weight * value
            total += weight
    finally:
        for hook in hooks:
            hook.remove()
    return {name: value / total for name, value in sums.items()}


def with_means(net: DWTMANet, means: dict[str, Tensor]) -> DWTMANet:
    """Return a copy of the network whose pools give ``means``; the weights are shared."""
    made = copy.deepcopy(net, {id(p): p for p in (*net.parameters(), *net.buffers())})
    for name, value in means.items():
        owner, _, last = name.rpartition(".")
        setattr(made.get_submodule(owner), last, Known(value))
    return made.eval()


class Samples:
    """The middles of up to ``MOST`` blocks, evenly spread over the scene, each with its valid pixels.

    What is invalid gets the mean of the valid pixels. A block smaller than SIDE is taken as it is.
    """

    def __init__(self, multiple: int) -> None:
        self._multiple = multiple
        self._kept: list[tuple[np.ndarray, float]] = []
        self._step, self._number = 1, 0

    def add(self, block: Block) -> None:
        """Keep the block where it is its turn; every other one goes when there are too many."""
        taken = self._number % self._step == 0
        self._number += 1
        middle = _middle(block, self._multiple) if taken else None
        if middle is not None:
            self._kept.append(middle)
        if len(self._kept) > MOST:
            self._kept, self._step = self._kept[::2], 2 * self._step

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._kept)

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        """Yield image, float32 (3, h, w) in 0..1, and weight."""
        return iter(self._kept)


def _middle(block: Block, multiple: int) -> tuple[np.ndarray, float] | None:
    rows, cols = (_span(side, multiple) for side in block.valid.shape)
    valid = block.valid[rows, cols]
    if not valid.size or valid.mean() < VALID_SHARE:
        return None
    image = block.image[:, rows, cols].copy()
    image[:, ~valid] = image[:, valid].mean(axis=1, keepdims=True)
    return image, float(valid.sum())


def _span(side: int, multiple: int) -> slice:
    length = min(side, SIDE) // multiple * multiple
    first = (side - length) // 2
    return slice(first, first + length)
