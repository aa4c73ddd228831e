"""Box losses CIoU and Wise-IoU v1-v3 (paper section 2.4) and the detector's total loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .assign import assign
from .boxes import ciou_penalty, enclosing_sides, paired_iou, squared_distance, to_corners
from .network import SarShipNet, cell_grid

BOX_LOSSES = ("ciou", "wiou1", "wiou2", "wiou3")
#: Wise-IoU's own constants; the paper names none (specification 4.1).
ALPHA, DELTA, GAMMA = 1.9, 3.0, 0.5
GAIN_BOX, GAIN_OBJ, GAIN_CLASS = 0.05, 1.0, 0.5
#: Weight of the objectness loss at stride 8, 16, 32.
LEVEL_BALANCE = (4.0, 1.0, 0.4)


def momentum_for(batches: float) -> float:
    """Momentum of the running mean for a run of ``batches``: 1 - 0.05^(1/t).

    t is a tenth of the run, at least 50 batches: after t the start value 1 has lost 95 % weight.
    A constant made for long runs would keep v3 monotonic throughout a short one.
    """
    return 1 - 0.05 ** (1 / max(0.1 * batches, 50.0))


def focus(beta: Tensor) -> Tensor:
    """Equation 19, r = beta / (delta alpha^(beta - delta)): 1 at beta = delta, largest at 1.558."""
    return beta / (DELTA * ALPHA ** (beta - DELTA))


def distance_gain(pred: Tensor, target: Tensor) -> Tensor:
    """R_WIoU of corner boxes, equation 14: in [1, e); the enclosing box carries no gradient."""
    diagonal = enclosing_sides(pred, target).square().sum(dim=1).detach()
    return torch.exp(squared_distance(pred, target) / diagonal)


class BoxLoss(nn.Module):
    """Loss of every positive, all levels pooled, and the quality that objectness should predict.

    ``mean`` is the running mean of 1 - IoU (equation 17's and 18's overlined term). It starts at 1,
    moves once per training batch that has positives, and stays unchanged in evaluation mode.
    """

    mean: Tensor

    def __init__(self, name: str = "wiou3", momentum: float = momentum_for(500)) -> None:
        super().__init__()
        if name not in BOX_LOSSES:
            raise ValueError(f"box loss is {name!r}, must be one of {', '.join(BOX_LOSSES)}")
        self.name, self.momentum = name, momentum
        self.register_buffer("mean", torch.ones(()))

    def forward(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, 4) as centre and sides -> losses (N,), qualities (N,) detached and >= 0."""
        pred, target = to_corners(pred), to_corners(target)
        iou = paired_iou(pred, target)
        if self.name == "ciou":
            loss = 1 - iou + ciou_penalty(pred, target, iou)
            return loss, (1 - loss).detach().clamp(min=0)
        l_iou = 1 - iou
        if self.training and len(l_iou):
            self.mean.lerp_(l_iou.detach().mean(), self.momentum)
        loss = distance_gain(pred, target) * l_iou
        beta = l_iou.detach() / self.mean
        if self.name == "wiou2":
            loss = beta**GAMMA * loss
        elif self.name == "wiou3":
            loss = focus(beta) * loss
        return loss, iou.detach().clamp(min=0)


class DetectionLoss(nn.Module):
    """Total loss: B (0.05 box + (image/640)^2 objectness + 0.5 nc/80 classes), specification 4.2."""

    def __init__(self, net: SarShipNet, box_loss: str = "wiou3") -> None:
        super().__init__()
        self.box = BoxLoss(box_loss)
        self.strides, self.nc, self.class_loss = net.strides, net.nc, net.class_loss
        self.anchors: Tensor
        self.register_buffer("anchors", net.anchors.clone())

    def forward(self, raw: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Raw maps and targets (N, 6: image, class, x, y, w, h in pixels) -> loss and its parts.

        The image side is taken from the first map; the parts are the unweighted box, objectness
        and class terms and the number of positives.
        """
        raw = [level.float() for level in raw]
        matches = assign(targets, self.anchors, self.strides, [(r.shape[2], r.shape[3]) for r in raw])
        boxes, logits = [], []
        for level, m, anchors, stride in zip(raw, matches, self.anchors, self.strides, strict=True):
            t = level[m.image, m.anchor, m.row, m.col]
            grid = cell_grid(level.shape[2], level.shape[3], level.device)[0, 0][m.row, m.col]
            y = t[:, :4].sigmoid()
            xy = (2 * y[:, :2] - 0.5 + grid) * stride
            boxes.append(torch.cat((xy, (2 * y[:, 2:]).square() * anchors[m.anchor]), dim=1))
            logits.append(t[:, 5:])
        losses, qualities = self.box(torch.cat(boxes), torch.cat([m.boxes for m in matches]))
        counts = [len(m.row) for m in matches]

        box = obj = cls = raw[0].new_zeros(())
        per_level = zip(raw, matches, losses.split(counts), qualities.split(counts), logits, strict=True)
        for (level, m, loss, quality, class_logits), balance in zip(per_level, LEVEL_BALANCE, strict=True):
            wanted = torch.zeros_like(level[..., 4])
            if len(loss):
                box = box + loss.mean()
                # a cell that answers for two ships takes the better of both, in any order
                _, a, h, w = wanted.shape
                flat = ((m.image * a + m.anchor) * h + m.row) * w + m.col
                wanted.view(-1).scatter_reduce_(0, flat, quality, "amax")
                if self.class_loss:
                    truth = F.one_hot(m.classes, self.nc).to(class_logits)
                    cls = cls + F.binary_cross_entropy_with_logits(class_logits, truth)
            obj = obj + balance * F.binary_cross_entropy_with_logits(level[..., 4], wanted)
        size = raw[0].shape[2] * self.strides[0] * raw[0].shape[3] * self.strides[0]
        total = GAIN_BOX * box + GAIN_OBJ * (size / 640**2) * obj + GAIN_CLASS * (self.nc / 80) * cls
        parts = {"box": box.item(), "obj": obj.item(), "cls": cls.item(), "positives": float(sum(counts))}
        return total * raw[0].shape[0], parts
