"""``python write_dehazing_weights.py PATH [DARKER]``: write a tiny dehazing network (no torch inside QGIS).

Without DARKER the numbers are random. With it the network is the simplest there is: every value less
DARKER, a share of the stretch, whatever the tile.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def write_dehazing_weights(path, darker=None, **card):
    """Write the file and return its sha256; ``card``: fields of the card that differ."""
    import torch
    from kestrel.models.dehazing.network import DWTMANet
    from kestrel.models.task import Card
    from kestrel.models.weights import save_weights

    torch.manual_seed(0)
    net = DWTMANet(widths=(4, 8, 8, 8, 4), depths=(1, 1, 1, 1, 1)).eval()
    if darker is not None:
        # J = K x - B + x in -1..1, twice as wide as the stretch
        torch.nn.init.zeros_(net.head.weight)
        net.head.bias.data = torch.tensor([0.0] + 3 * [2 * darker])
    fields = {
        "name": "dehazing_tiny",
        "version": "0",
        "paper": "07: DWTMA-Net",
        "preset": "tiny",
        "parameters": sum(p.numel() for p in net.parameters()),
        "classes": ("red", "green", "blue"),
        "bands": 3,
        "gsd": (0.1, 100.0),
        "scaling": "0 to 1",
        "tile": 128,
        "data": ({"source": "none", "count": 0, "real": False},),
        "seed": 0,
        "command": "tests",
        "figures": {},
        "limits": "tests only",
        "status": "preliminary",
        "extra": {"config": net.config},
    }
    return save_weights(path, net.state_dict(), Card(**{**fields, **card}), dict(net.named_buffers()))


if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("conftest", ROOT / "conftest.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    write_dehazing_weights(sys.argv[1], *map(float, sys.argv[2:]))
