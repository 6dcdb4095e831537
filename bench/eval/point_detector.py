"""A light one-stage detector: each point of one map says what lies around it (FCOS)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import batched_nms, generalized_box_iou_loss, sigmoid_focal_loss

from bench.data.dataset import Boxes
from bench.eval.detection_metrics import LIMIT, Detections
from bench.eval.detectors import Detector, Pyramid

RADIUS = 1.5  # strides around an object's centre in which points stand for it (FCOS's code)
PRIOR = 0.01  # each class's score before training (RetinaNet, arXiv:1708.02002)
CANDIDATES = 300  # of a picture, best first, that suppression chooses from
OVERLAP = 0.6  # intersection over union from which the lesser of two boxes goes (FCOS)


class PointDetector(Detector):
    """FCOS (Tian et al., arXiv:1904.01355) on the finest map alone, without its centre-ness.

    A point near an object's centre learns the object's class, by the focal loss, and its box, by
    the loss of the generalised intersection over union. Of several objects the smallest counts. A
    box is an offset of its centre and the logarithms of its sides, all in strides, rather than
    FCOS's four distances, so that an object smaller than a stride has one too.
    """

    def __init__(self, pyramid: Pyramid, classes: int, size: int) -> None:
        """Make a detector of `classes` on pictures of `size` px."""
        super().__init__(pyramid, size)
        width = pyramid.out_channels
        self.tower = nn.Sequential(*(layer for _ in range(2) for layer in _conv_norm_relu(width)))
        self.score = nn.Conv2d(width, classes, 3, padding=1)
        self.box = nn.Conv2d(width, 4, 3, padding=1)
        for head in (self.score, self.box):
            nn.init.normal_(head.weight, std=0.01)
        self.stride = size / pyramid.sides[0]
        at = (torch.arange(pyramid.sides[0]) + 0.5) * self.stride
        self.points: Tensor
        self.register_buffer("points", torch.cartesian_prod(at, at).flip(1))  # [P, 2] as x, y

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, P, classes]` and boxes `[B, P, 4]`, px, of pictures `[B, 3, s, s]`."""
        finest = next(iter(self.pyramid(x).values()))
        seen = self.tower(finest)
        logits, raw = (head(seen).flatten(2).mT for head in (self.score, self.box))
        logits = logits - math.log((1 - PRIOR) / PRIOR)
        centre = self.points + self.stride * raw[..., :2]
        # Sides start at four strides; the bound keeps an early step from overflowing.
        half = 2 * self.stride * raw[..., 2:].clamp(max=math.log(self.size / self.stride)).exp()
        return logits, torch.cat([centre - half, centre + half], 2)

    def loss(self, x: Tensor, boxes: Sequence[Boxes]) -> Tensor:
        """The focal loss and that of boxes, both summed and divided by the positive points."""
        logits, found = self(x)
        xyxy = pad_sequence([each.xyxy for each in boxes], batch_first=True)  # [B, G, 4]
        label = pad_sequence([each.label for each in boxes], True, padding_value=-1)
        owner = self.owners(xyxy, label >= 0)
        positive = owner >= 0
        picture = torch.arange(len(x), device=x.device)[:, None].expand_as(owner)[positive]
        target = torch.zeros_like(logits)
        target[positive, label[picture, owner[positive]]] = 1
        classes = sigmoid_focal_loss(logits, target, reduction="sum")
        places = generalized_box_iou_loss(
            found[positive], xyxy[picture, owner[positive]], reduction="sum"
        )
        total: Tensor = (classes + places) / positive.sum().clamp(min=1)
        return total

    def owners(self, xyxy: Tensor, real: Tensor) -> Tensor:
        """The object that each point stands for, `[B, P]`; -1 for none.

        A point stands for an object whose box it lies in, within 1.5 strides of the centre in both
        directions, and for one whose centre is in its cell.

        Args:
            xyxy: `[B, G, 4]` px, padded.
            real: `[B, G]` bool, False where it is padding.
        """
        if not xyxy.shape[1]:
            return torch.full((len(xyxy), len(self.points)), -1, device=xyxy.device)
        low, high = xyxy[:, None, :, :2], xyxy[:, None, :, 2:]  # [B, 1, G, 2]
        points = self.points[:, None]  # [P, 1, 2]
        away = (points - (low + high) / 2).abs().amax(3) / self.stride  # [B, P, G]
        inside = ((points > low) & (points < high)).all(3)
        near = (away <= 0.5) | (inside & (away < RADIUS))
        area = (high - low).prod(3).expand(away.shape)
        area = area.masked_fill(~(near & real[:, None]), torch.inf)
        smallest, owner = area.min(2)
        return owner.masked_fill(smallest.isinf(), -1)

    @torch.no_grad()
    def detect(self, x: Tensor) -> list[Detections]:
        """The best boxes of each picture, those of a class suppressed where they overlap."""
        logits, boxes = self(x)
        score, which = logits.sigmoid().flatten(1).topk(min(CANDIDATES, logits[0].numel()))
        point, label = which // logits.shape[2], which % logits.shape[2]
        boxes = boxes.gather(1, point[..., None].expand(-1, -1, 4)).clamp(0, self.size)
        picture = torch.arange(len(x), device=x.device)[:, None].expand_as(label)
        group = (picture * logits.shape[2] + label).flatten()
        kept = batched_nms(boxes.flatten(0, 1), score.flatten(), group, OVERLAP)
        alive = torch.zeros_like(group, dtype=torch.bool)
        alive[kept] = True
        rows = zip(boxes, label, score, alive.view_as(label), strict=True)
        return [
            Detections(*(part[keep][:LIMIT].cpu() for part in (b, n, s))) for b, n, s, keep in rows
        ]


def _conv_norm_relu(width: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)
