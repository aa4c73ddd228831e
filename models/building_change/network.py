"""SSA-Net: two encoders with weights of their own, one decoder on absolute differences (paper 08, Figure 5).

The layout, the plain first stage, max-pooling and the order of a concatenation are USSFC-Net's, its
template; width 32 and two groups are what the paper's parameter count leaves (specification, section 3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import double_csh, double_plain

#: ``paper``: as printed. ``small``: ours, a quarter of its parameters.
PRESETS: dict[str, dict[str, Any]] = {"paper": {}, "small": {"width": 16}}

#: The paper's Table 3 as switches, in its order.
ABLATIONS: dict[str, dict[str, Any]] = {
    "Backbone": {"use_csh": False, "use_ssif": False},
    "Backbone + CSHConv": {"use_ssif": False},
    "Backbone + SSIF": {"use_csh": False},
    "SSA-Net": {},
}
STAGES = 5


class SSANet(nn.Module):
    """Two pictures of one ground in, the logit of "a building appeared or went" out.

    The encoders do not share weights, so the order of the dates matters. ``width``: channels of the
    first stage, doubled at each. ``groups``: of CSHConv's 3x3. ``use_csh``: CSHConv, else plain 3x3
    convolutions. ``use_ssif``, ``ssif_at``: the attention without parameters and its place, ``het`` or
    ``out``. ``in_channels``: bands of a date. ``gaussian``: an experiment, see :class:`blocks.SSIF`.

    ``config`` holds these arguments; ``SSANet(**net.config)`` builds the same network. A wrong one
    raises ValueError.
    """

    def __init__(
        self,
        *,
        width: int = 32,
        groups: int = 2,
        use_csh: bool = True,
        use_ssif: bool = True,
        ssif_at: str = "het",
        in_channels: int = 3,
        gaussian: bool = False,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "width": width,
            "groups": groups,
            "use_csh": use_csh,
            "use_ssif": use_ssif,
            "ssif_at": ssif_at,
            "in_channels": in_channels,
            "gaussian": gaussian,
        }
        _check(self.config)
        widths = [width * 2**k for k in range(STAGES)]
        self.before = self._encoder(widths)
        self.after = self._encoder(widths)
        steps = range(STAGES - 2, -1, -1)
        self.up = nn.ModuleList(nn.ConvTranspose2d(widths[k + 1], widths[k], 2, 2) for k in steps)
        self.decode = nn.ModuleList(self._double(widths[k + 1], widths[k]) for k in steps)
        self.head = nn.Conv2d(width, 1, 1)
        #: H and W of the input must be multiples of this: four halvings.
        self.multiple = 2 ** (STAGES - 1)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Two of (B, in_channels, H, W), normalised, sides as ``multiple`` says -> (B, 1, H, W) logits."""
        h, w = before.shape[-2:]
        if h % self.multiple or w % self.multiple:
            raise ValueError(f"the input is {h} x {w}; both sides must be multiples of {self.multiple}")
        if before.shape != after.shape:
            raise ValueError(f"the dates differ in shape: {tuple(before.shape)} and {tuple(after.shape)}")
        skips = []
        for level, (first, second) in enumerate(zip(self.before, self.after, strict=True)):
            if level:  # pooled as they are: only the skips hold differences
                before, after = F.max_pool2d(before, 2), F.max_pool2d(after, 2)
            before, after = first(before), second(after)
            skips.append((before - after).abs())
        x = skips.pop()
        for up, decode in zip(self.up, self.decode, strict=True):
            x = decode(torch.cat((skips.pop(), up(x)), dim=1))
        return self.head(x)

    def _encoder(self, widths: list[int]) -> nn.ModuleList:
        first = double_plain(self.config["in_channels"], widths[0], use_ssif=False, gaussian=False)
        return nn.ModuleList([first, *(self._double(widths[k], widths[k + 1]) for k in range(STAGES - 1))])

    def _double(self, c: int, c_out: int) -> nn.Sequential:
        settings = self.config
        if not settings["use_csh"]:
            return double_plain(c, c_out, settings["use_ssif"], settings["gaussian"])
        names = ("groups", "use_ssif", "ssif_at", "gaussian")
        return double_csh(c, c_out, **{name: settings[name] for name in names})


def _check(config: dict[str, Any]) -> None:
    """Raise ValueError for arguments that describe no network."""
    for name in ("width", "groups", "in_channels"):
        if type(config[name]) is not int or config[name] < 1:
            raise ValueError(f"{name} is {config[name]!r}, must be a whole number from 1")
    # the narrowest CSHConv convolves half of the first stage's channels in groups
    if config["width"] % 2 or (config["width"] // 2) % config["groups"]:
        raise ValueError(f"width {config['width']} cannot be halved and cut into {config['groups']} groups")
    if config["ssif_at"] not in ("het", "out"):
        raise ValueError(f"ssif_at is {config['ssif_at']!r}, must be het or out")
    for name in ("use_csh", "use_ssif", "gaussian"):
        if type(config[name]) is not bool:
            raise ValueError(f"{name} is {config[name]!r}, must be true or false")
