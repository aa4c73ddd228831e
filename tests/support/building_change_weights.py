"""A tiny building change network with random weights as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from kestrel.models.building_change.network import SSANet
from kestrel.models.task import Card
from kestrel.models.weights import save_weights

THIN: dict[str, Any] = {"width": 4}
MEAN, STD = [0.4, 0.45, 0.5], [0.2, 0.25, 0.3]


def card(**changes: Any) -> Card:
    """Return a card as building change weights carry it."""
    fields: dict[str, Any] = {
        "name": "building_change_random",
        "version": "0",
        "paper": "08",
        "preset": "custom",
        "parameters": 1,
        "classes": ("change",),
        "bands": 3,
        "gsd": (0.25, 1.0),
        "scaling": "auto",
        "tile": 64,
        "data": ({"source": "none", "count": 0, "real": False},),
        "seed": 0,
        "command": "tests",
        "figures": {},
        "limits": "random numbers",
        "status": "preliminary",
    }
    return Card(**{**fields, **changes})


def random_network(seed: int = 0, **config: Any) -> SSANet:
    """Return a thin network in eval mode, its running statistics those of noise.

    With the ones it is born with (variance 1) the signal dies on the way: every picture gets one answer.
    """
    torch.manual_seed(seed)
    net = SSANet(**{**THIN, **config})
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net(torch.randn(4, 3, 64, 64), torch.randn(4, 3, 64, 64))
    for norm in norms:
        norm.momentum = 0.1
    return net.eval()


def extra(net: SSANet, **changes: Any) -> dict[str, Any]:
    """Return what the network's card says beyond the common fields."""
    return {"config": net.config, "mean": MEAN, "std": STD, "threshold": 0.3, **changes}


def write_building_change_weights(path: str | Path, **config: Any) -> tuple[Path, str, SSANet]:
    """Save such a network and return (path, sha256, network as the file holds it)."""
    net = random_network(**config)
    sha256 = save_weights(path, net.state_dict(), card(extra=extra(net)), dict(net.named_buffers()))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(parameter.half())
    return Path(path), sha256, net
