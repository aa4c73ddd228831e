"""DWTMA-Net: five stages on three scales (paper 07, Figure 1; specification, section 3.1).

Stem, up-sampling, skip convolutions and head are not in the paper; they are MixDehazeNet's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .blocks import DWB, MAB, StarBlock
from .fusion import Fusion, InverseWavelet, WaveletDown

#: ``paper``: as printed. ``small``: ours, for CPUs.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"widths": (24, 48, 96, 48, 24), "depths": (2, 2, 4, 2, 2)},
    "small": {"widths": (8, 16, 32, 16, 8), "depths": (1, 1, 2, 1, 1)},
}

#: The paper's Tables 5 and 6 as switches, in their order; the full network stands in both.
ABLATIONS: dict[str, dict[str, Any]] = {
    "Base(DM)": {"use_dwb": False, "use_mab": False, "down": "dm"},
    "Base(DM)+DWB": {"use_mab": False, "down": "dm"},
    "Base(DM)+MAB": {"use_dwb": False, "down": "dm"},
    "Base(DM)+DWB+MAB": {"down": "dm"},
    "Base+MAB+WDM": {"use_dwb": False},
    "Base+DWB+MAB+WDM": {},
    "DWTMA-Net - CA": {"use_ca": False},
    "DWTMA-Net - PA": {"use_pa": False},
    "DWTMA-Net - FA": {"use_fam": False},
}


class DWTMANet(nn.Module):
    """Hazy picture in, clear picture out: J = K x - B + x with K (1 channel), B (3) from a U-shape.

    ``widths``: channels of the five stages, the last two mirror the first two. ``depths``: blocks in
    each. ``use_dwb``: the wavelet block in front of every other block. ``use_mab``: the attention
    block, else StarNet's. ``use_pa``, ``use_ca``, ``use_fam``: its three attentions. ``down``: ``wdm``
    or the strided convolution ``dm``. ``up``: pixel ``shuffle`` or ``idwt``. The rest, and the reasons
    for the defaults: specification, section 3.6. ``wdm_kernel`` belongs to ``wdm``.

    ``config`` holds these arguments; ``DWTMANet(**net.config)`` builds the same network. A wrong one
    raises ValueError.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (24, 48, 96, 48, 24),
        depths: Sequence[int] = (2, 2, 4, 2, 2),
        use_dwb: bool = True,
        use_mab: bool = True,
        use_pa: bool = True,
        use_ca: bool = True,
        use_fam: bool = True,
        down: str = "wdm",
        dw_kernel: int = 7,
        wdm_kernel: int = 1,
        fam_layers: int = 2,
        branch_bn: bool = False,
        expansion: int = 2,
        ca_reduction: int = 8,
        up: str = "shuffle",
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "widths": list(widths),
            "depths": list(depths),
            "use_dwb": use_dwb,
            "use_mab": use_mab,
            "use_pa": use_pa,
            "use_ca": use_ca,
            "use_fam": use_fam,
            "down": down,
            "dw_kernel": dw_kernel,
            "wdm_kernel": wdm_kernel,
            "fam_layers": fam_layers,
            "branch_bn": branch_bn,
            "expansion": expansion,
            "ca_reduction": ca_reduction,
            "up": up,
        }
        _check(self.config)
        c1, c2, c3 = widths[:3]
        stages = [_stage(c, n, self.config) for c, n in zip(widths, depths, strict=True)]
        self.stem = nn.Conv2d(3, c1, 3, padding=1, padding_mode="reflect")
        self.stage1, self.stage2, self.stage3, self.stage4, self.stage5 = stages
        self.down1, self.down2 = _down(c1, c2, self.config), _down(c2, c3, self.config)
        self.up1, self.up2 = _up(c3, c2, up), _up(c2, c1, up)
        self.fuse1, self.fuse2 = Fusion(c2), Fusion(c1)
        self.head = nn.Conv2d(c1, 4, 3, padding=1, padding_mode="reflect")
        #: H and W of the input must be multiples of this: two halvings, and a wavelet in the deepest stage.
        self.multiple = 8

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in -1..1, H and W multiples of ``multiple`` -> the same shape, not clamped."""
        h, w = x.shape[-2:]
        if h % self.multiple or w % self.multiple:
            raise ValueError(f"the input is {h} x {w}; both sides must be multiples of {self.multiple}")
        skip1 = self.stage1(self.stem(x))
        skip2 = self.stage2(self.down1(skip1))
        y = self.stage3(self.down2(skip2))
        y = self.stage4(self.fuse1(self.up1(y), skip2))
        y = self.stage5(self.fuse2(self.up2(y), skip1))
        y = self.head(y)
        k, b = y[:, :1], y[:, 1:]
        return k * x - b + x


def _stage(c: int, n: int, config: Mapping[str, Any]) -> nn.Sequential:
    """Return ``n`` feature extraction blocks: DWB, then MAB or the base block."""
    blocks: list[nn.Module] = []
    for _ in range(n):
        if config["use_dwb"]:
            blocks.append(DWB(c))
        blocks.append(_mab(c, config) if config["use_mab"] else StarBlock(c))
    return nn.Sequential(*blocks)


def _mab(c: int, config: Mapping[str, Any]) -> MAB:
    names = ("expansion", "branch_bn", "use_pa", "use_ca", "use_fam", "ca_reduction", "fam_layers")
    return MAB(c, kernel=config["dw_kernel"], **{name: config[name] for name in names})


def _down(c: int, c_out: int, config: Mapping[str, Any]) -> nn.Module:
    if config["down"] == "wdm":
        return WaveletDown(c, c_out, config["wdm_kernel"])
    return nn.Conv2d(c, c_out, 3, stride=2, padding=1)


def _up(c: int, c_out: int, up: str) -> nn.Sequential:
    last = nn.PixelShuffle(2) if up == "shuffle" else InverseWavelet()
    return nn.Sequential(nn.Conv2d(c, 4 * c_out, 1), last)


def _check(config: Mapping[str, Any]) -> None:
    """Raise ValueError for arguments that describe no network."""
    widths, depths = config["widths"], config["depths"]
    for name, values in (("widths", widths), ("depths", depths)):
        if len(values) != 5 or any(type(v) is not int or v < 1 for v in values):
            raise ValueError(f"{name} is {values}, must be five whole numbers from 1")
    if widths[3:] != [widths[1], widths[0]]:
        raise ValueError(f"widths are {widths}; the last two must mirror the first two")
    for name, choices in (("down", ("wdm", "dm")), ("up", ("shuffle", "idwt"))):
        if config[name] not in choices:
            raise ValueError(f"{name} is {config[name]!r}, must be one of {', '.join(choices)}")
    for name in ("dw_kernel", "wdm_kernel"):
        if type(config[name]) is not int or config[name] < 1 or config[name] % 2 == 0:
            raise ValueError(f"{name} is {config[name]!r}, must be an odd whole number")
    for name, least in (("fam_layers", 0), ("expansion", 1), ("ca_reduction", 1)):
        if type(config[name]) is not int or config[name] < least:
            raise ValueError(f"{name} is {config[name]!r}, must be a whole number from {least}")
    for name in ("use_dwb", "use_mab", "use_pa", "use_ca", "use_fam", "branch_bn"):
        if type(config[name]) is not bool:
            raise ValueError(f"{name} is {config[name]!r}, must be true or false")
