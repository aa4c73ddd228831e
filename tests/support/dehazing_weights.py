"""A tiny dehazing network with random weights as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from kestrel.models.dehazing.network import DWTMANet
from kestrel.models.task import Card
from kestrel.models.weights import save_weights

THIN: dict[str, Any] = {"widths": (4, 8, 8, 8, 4), "depths": (1, 1, 1, 1, 1)}


def card(**changes: Any) -> Card:
    """Return a card as the first dehazing weights carry it."""
    fields: dict[str, Any] = {
        "name": "dehazing_random",
        "version": "0",
        "paper": "07",
        "preset": "small",
        "parameters": 1,
        "classes": ("red", "green", "blue"),
        "bands": 3,
        "gsd": (0.1, 100.0),
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


def random_network(*, identity: bool = False, seed: int = 0, **config: Any) -> DWTMANet:
    """Return a thin network in eval mode; ``identity``: its head is zero, so it changes nothing."""
    torch.manual_seed(seed)
    net = DWTMANet(**{**THIN, **config}).eval()
    if identity:
        torch.nn.init.zeros_(net.head.weight)
        assert net.head.bias is not None
        torch.nn.init.zeros_(net.head.bias)
    return net


def write_dehazing_weights(
    path: str | Path, *, identity: bool = False, card_fields: dict[str, Any] | None = None, **config: Any
) -> tuple[Path, str, DWTMANet]:
    """Save such a network and return (path, sha256, network as the file holds it)."""
    net = random_network(identity=identity, **config)
    parameters = sum(p.numel() for p in net.parameters())
    fields = {"parameters": parameters, "extra": {"config": net.config}, **(card_fields or {})}
    sha256 = save_weights(path, net.state_dict(), card(**fields), dict(net.named_buffers()))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(parameter.half())
    return Path(path), sha256, net
