"""One picture of any size through the network, whole (specification 07, section 5)."""

from __future__ import annotations

import numpy as np
import torch

from . import task
from .network import DWTMANet


def restore(net: DWTMANet, image: np.ndarray) -> np.ndarray:
    """Return a hazy picture without its haze: float32 (3, H, W) in 0..1.

    The sides are filled up to the network's multiple by reflection, below and on the right, and cut
    again. ``net`` must be in eval mode.
    """
    h, w = image.shape[1:]
    filled = np.pad(image, ((0, 0), (0, -h % net.multiple), (0, -w % net.multiple)), "reflect")
    device = next(net.parameters()).device
    x = torch.from_numpy(np.ascontiguousarray(filled, np.float32))[None].to(device)
    y = task.restore(x.contiguous(memory_format=torch.channels_last), net)
    return y[0, :, :h, :w].cpu().numpy()
