"""The detector: YOLOv5 v6 backbone and neck, an attention block, and one of three heads.

Paper 01, section 2.1 and Figure 2; layer numbers in comments are those of the specification, 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .attention import make_attention
from .blocks import C3, SPPF, Conv
from .head import HEADS, STRIDES, ContextHead, CoupledHead, DecoupledHead

#: (w, h) in pixels, three per level of stride 8, 16, 32; the usual COCO ones.
DEFAULT_ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)


def scaled_channels(c: int, width: float) -> int:
    """Nominal channels times ``width``, rounded up to a multiple of eight."""
    return math.ceil(c * width / 8) * 8


def scaled_repeats(n: int, depth: float) -> int:
    """Nominal repeats times ``depth``, at least one."""
    return max(round(n * depth), 1)


class SarShipNet(nn.Module):
    """One-class (or ``nc``-class) SAR ship detector with the switches of the paper's ablations.

    ``width``, ``depth``: YOLOv5 multiples (0.25, 0.33 is scale n, the paper's). ``attention``: one
    of ``attention.ATTENTIONS``, on the stride-32 output of the neck. ``head``: ``coupled``,
    ``decoupled`` or ``context``. ``obj_branch``: where the context head predicts objectness
    (``sce``: with the classes; ``dpe``: with the box). ``anchors``: (3, na, 2) in pixels.

    ``config`` holds these arguments; ``SarShipNet(**net.config)`` builds the same network.
    """

    def __init__(
        self,
        *,
        width: float = 0.25,
        depth: float = 0.33,
        nc: int = 1,
        attention: str = "shuffle",
        head: str = "context",
        obj_branch: str = "sce",
        anchors: Sequence[Sequence[Sequence[float]]] = DEFAULT_ANCHORS,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "width": width,
            "depth": depth,
            "nc": nc,
            "attention": attention,
            "head": head,
            "obj_branch": obj_branch,
            "anchors": [[[float(v) for v in wh] for wh in level] for level in anchors],
        }
        self.nc, self.strides = nc, STRIDES
        self.class_loss = nc > 1 or (head == "context" and obj_branch == "dpe")
        self.anchors: Tensor
        self.register_buffer("anchors", torch.tensor(self.config["anchors"], dtype=torch.float32))
        na = self.anchors.shape[1]

        c2, c3, c4, c5 = (scaled_channels(c, width) for c in (128, 256, 512, 1024))
        n3, n6, n9 = (scaled_repeats(n, depth) for n in (3, 6, 9))
        c1 = scaled_channels(64, width)
        self.stem = nn.Sequential(Conv(3, c1, 6, 2, 2), Conv(c1, c2, 3, 2), C3(c2, c2, n3))  # 0-2
        self.stage3 = nn.Sequential(Conv(c2, c3, 3, 2), C3(c3, c3, n6))  # 3, 4
        self.stage4 = nn.Sequential(Conv(c3, c4, 3, 2), C3(c4, c4, n9))  # 5, 6
        self.stage5 = nn.Sequential(Conv(c4, c5, 3, 2), C3(c5, c5, n3), SPPF(c5))  # 7-9
        self.reduce5, self.up5 = Conv(c5, c4, 1), nn.Upsample(scale_factor=2)  # 10, 11
        self.top4 = C3(2 * c4, c4, n3, shortcut=False)  # 13
        self.reduce4, self.up4 = Conv(c4, c3, 1), nn.Upsample(scale_factor=2)  # 14, 15
        self.out3 = C3(2 * c3, c3, n3, shortcut=False)  # 17
        self.down3, self.out4 = Conv(c3, c3, 3, 2), C3(2 * c3, c4, n3, shortcut=False)  # 18, 20
        self.down4, self.out5 = Conv(c4, c4, 3, 2), C3(2 * c4, c5, n3, shortcut=False)  # 21, 23
        self.attention = make_attention(attention, c5)  # 24
        channels = (c2, c3, c4, c5)
        self.level6: nn.Module | None = None
        if head == "context":
            self.level6 = nn.Sequential(Conv(c5, c5, 3, 2), C3(c5, c5, n3))  # 25, 26
            self.head: nn.Module = ContextHead((*channels, c5), na, nc, obj_branch)
        elif head == "decoupled":
            self.head = DecoupledHead(channels, na, nc)
        elif head == "coupled":
            self.head = CoupledHead(channels, na, nc)
        else:
            raise ValueError(f"head is {head!r}, must be one of {', '.join(HEADS)}")
        #: H and W of the input must be multiples of this.
        self.multiple = 64 if head == "context" else 32

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Image (B, 3, H, W) -> [P2, P3, P4, P5], and P6 where the head needs it."""
        p2 = self.stem(x)
        b3 = self.stage3(p2)
        b4 = self.stage4(b3)
        r5 = self.reduce5(self.stage5(b4))
        r4 = self.reduce4(self.top4(torch.cat((self.up5(r5), b4), dim=1)))
        p3 = self.out3(torch.cat((self.up4(r4), b3), dim=1))
        p4 = self.out4(torch.cat((self.down3(p3), r4), dim=1))
        p5 = self.attention(self.out5(torch.cat((self.down4(p4), r5), dim=1)))
        maps = [p2, p3, p4, p5]
        return maps if self.level6 is None else [*maps, self.level6(p5)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in 0..1 -> three raw maps (B, na, H/s, W/s, 5 + nc), s = 8, 16, 32."""
        h, w = x.shape[-2:]
        if h % self.multiple or w % self.multiple:
            raise ValueError(f"the input is {h} x {w}; both sides must be multiples of {self.multiple}")
        return self.head(self.pyramid(x))

    def candidates(self, raw: Sequence[Tensor]) -> Tensor:
        """Raw maps -> (B, M, 5): x, y, w, h in pixels and the score of the best class.

        The score is the objectness; where the class branch is trained, times the class.
        """
        decoded = decode(raw, self.anchors, self.strides)
        score = decoded[..., 4:5]
        if self.class_loss:
            score = score * decoded[..., 5:].amax(dim=-1, keepdim=True)
        return torch.cat((decoded[..., :4], score), dim=-1)

    def fuse(self) -> SarShipNet:
        """Fold every batch normalisation into its convolution, for inference; returns itself."""
        for module in self.modules():
            if isinstance(module, Conv):
                module.fuse()
        return self


def cell_grid(h: int, w: int, device: torch.device) -> Tensor:
    """(1, 1, h, w, 2): column and row of every cell."""
    rows, cols = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    return torch.stack((cols, rows), dim=-1)[None, None].float()


def decode(raw: Sequence[Tensor], anchors: Tensor, strides: Sequence[int]) -> Tensor:
    """Raw maps -> (B, M, 5 + nc): centre x, y, width, height in pixels, then sigmoid scores.

    xy = (2 sigmoid(t) - 0.5 + cell) stride; wh = (2 sigmoid(t))^2 anchor (specification 3.5).
    """
    out = []
    for level, anchor, stride in zip(raw, anchors, strides, strict=True):
        y = level.float().sigmoid()
        grid = cell_grid(level.shape[2], level.shape[3], level.device)
        xy = (2 * y[..., :2] - 0.5 + grid) * stride
        wh = (2 * y[..., 2:4]).square() * anchor[None, :, None, None]
        out.append(torch.cat((xy, wh, y[..., 4:]), dim=-1).flatten(1, 3))
    return torch.cat(out, dim=1)
