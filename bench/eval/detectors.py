"""Detectors around an encoder: its maps as a pyramid, and Faster R-CNN on top of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from bench.api import DataInfo, Encoder, EvalSplit, View
from bench.data.dataset import Boxes
from bench.data.ops import Normalize, Resize
from bench.errors import BenchError
from bench.eval.detection_metrics import LIMIT, Detections

Neck = Literal["c4", "fpn"]
FINEST, C4 = 4, 16  # strides: of the pyramid's finest level at least, of the single map at most
# Anchors of Faster R-CNN with a pyramid (arXiv:1612.03144): 32 to 512 px of a side of 800, in
# three shapes each. Here they span the same shares of the side, whatever it is.
SMALLEST, LARGEST, SIZES, SHAPES = 0.04, 0.64, 5, (0.5, 1.0, 2.0)
BINS = 7  # down and across, that a region is pooled to
FAINT = 0.01  # the least score of a detection


# ------------------------------------------------------------------------------ pictures and boxes
def picture_size(info: DataInfo, stored: int) -> int:
    """The side to detect at, px: the stored one, but 2 to 4 times what the encoder was made for.

    Detection wants larger pictures than classification: 800 px after 224 is usual.
    """
    return min(max(stored, 2 * info.size), 4 * info.size)


def detection_view(info: DataInfo, size: int) -> View:
    """The whole picture, squashed to `size` x `size` as it is stored, and normalised."""
    return View("detection", (Resize(), Normalize(mean=info.mean, std=info.std)), size)


def boxes_at(split: EvalSplit, size: int) -> list[Boxes]:
    """The split's objects in pixels of the picture at `size`, from those of the stored one.

    Raises:
        BenchError: the split has no boxes.
    """
    if split.split.boxes is None:
        raise BenchError(
            f"the {split.split.name} split of {split.info.name} has no boxes; "
            "choose data with boxes, such as scenes, voc or coco, or another protocol"
        )
    height, width = split.split.images.size
    scale = torch.tensor([size / width, size / height]).repeat(2)
    return [Boxes(x.xyxy * scale, x.label, x.difficult) for x in split.split.boxes]


def to_learn(boxes: Sequence[Boxes], device: torch.device) -> list[Boxes]:
    """The objects that are learnt from, on `device`: no difficult ones, as crowds are no boxes.

    Regions on difficult ones so count as ground; nor are boxes without an area learnt.
    """
    kept = [~x.difficult & (x.xyxy[:, 2:] > x.xyxy[:, :2]).all(1) for x in boxes]
    return [
        Boxes(*(part[keep].to(device) for part in (x.xyxy, x.label, x.difficult)))
        for x, keep in zip(boxes, kept, strict=True)
    ]


def flipped(x: Tensor, boxes: Sequence[Boxes], rng: torch.Generator) -> tuple[Tensor, list[Boxes]]:
    """Pictures `[B, 3, s, s]` and their boxes, each mirrored left to right with probability 1/2."""
    mirror = torch.rand(len(x), generator=rng, device=x.device) < 0.5
    swap, side = torch.tensor([2, 1, 0, 3], device=x.device), x.new_tensor([x.shape[3], 0] * 2)
    sign = x.new_tensor([-1, 1, -1, 1])
    mirrored = [
        Boxes(side + sign * each.xyxy[:, swap] if flip else each.xyxy, each.label, each.difficult)
        for each, flip in zip(boxes, mirror.tolist(), strict=True)
    ]
    return torch.where(mirror[:, None, None, None], x.flip(3), x), mirrored


# ------------------------------------------------------------------------------------------- maps
class Pyramid(nn.Module):
    """An encoder's maps, brought to one width: one of them ("c4") or a pyramid of all ("fpn").

    "c4" is the last map of a stride of at most 16 px, conv4 of a ResNet; "fpn" joins the last map
    of each resolution from a stride of 4 on, top down (Lin et al., arXiv:1612.03144). Maps differ
    in scale by orders of magnitude from one encoder to another, so each goes through a batch norm
    first (MoCo adds one before its detector's heads for the same reason, arXiv:1911.05722).

    Attributes:
        sides: of the maps that come out, finest first.
        out_channels: their width.
    """

    def __init__(
        self, encoder: Encoder, neck: Neck, size: int, channels: int, *, frozen: bool
    ) -> None:
        """Wrap `encoder` for pictures of `size` px; a `frozen` one stays in eval mode.

        Raises:
            BenchError: the encoder has no maps, or cannot take pictures of this size.
        """
        super().__init__()
        self.encoder, self.frozen, self.out_channels = encoder, frozen, channels
        shapes = _shapes(encoder, size)
        # Of maps of one resolution the last, finest first: a transformer's blocks are one level.
        last = {shape[-1]: layer for layer, shape in shapes.items()}
        sides = sorted(last, reverse=True)
        if neck == "c4":
            self.sides = [min((s for s in sides if s * C4 >= size), default=sides[0])]
        else:
            self.sides = [s for s in sides if s * FINEST <= size] or sides[-1:]
        self.layers = [last[side] for side in self.sides]
        widths = [shapes[layer][0] for layer in self.layers]
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.pyramid = FeaturePyramidNetwork(widths, channels)

    def train(self, mode: bool = True) -> Pyramid:
        """Training mode, but for a frozen encoder."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Maps `[B, channels, side, side]` of pictures `[B, 3, s, s]`, by layer."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.encoder.maps(x)
        normed = {
            layer: norm(maps[layer].float())
            for layer, norm in zip(self.layers, self.norms, strict=True)
        }
        out: dict[str, Tensor] = self.pyramid(normed)
        return out


@torch.no_grad()
def _shapes(encoder: Encoder, size: int) -> dict[str, tuple[int, int, int]]:
    """(channels, height, width) of each of the encoder's maps of a picture of `size` px."""
    if not encoder.layers:
        raise BenchError(
            "the encoder has no feature maps to detect objects on; "
            "use a method with a backbone, not pixels or pca"
        )
    device = next((p.device for p in encoder.parameters()), torch.device("cpu"))
    training = encoder.training
    try:
        maps = encoder.eval().maps(torch.zeros(1, 3, size, size, device=device))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise BenchError(
            f"the encoder cannot take pictures of {size} px; set protocol.size to the side that "
            "it was trained with"
        ) from error
    finally:
        encoder.train(training)
    return {layer: (x.shape[1], x.shape[2], x.shape[3]) for layer, x in maps.items()}


# -------------------------------------------------------------------------------------- detectors
class Detector(nn.Module, ABC):
    """What learns boxes from pictures, and finds them: a head on a pyramid."""

    def __init__(self, pyramid: Pyramid, size: int) -> None:
        """Take pictures of `size` px."""
        super().__init__()
        self.pyramid, self.size = pyramid, size

    @abstractmethod
    def loss(self, x: Tensor, boxes: Sequence[Boxes]) -> Tensor:
        """The scalar to minimise on pictures `[B, 3, s, s]` with these objects, px."""

    @abstractmethod
    def detect(self, x: Tensor) -> list[Detections]:
        """What is found in each of the pictures `[B, 3, s, s]`, best first, on the CPU."""

    def parts(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters to train: the encoder's, none if it is frozen, and all others."""
        own = [p for p in self.pyramid.encoder.parameters() if p.requires_grad]
        known = {id(p) for p in self.pyramid.encoder.parameters()}
        return own, [p for p in self.parameters() if id(p) not in known]


class FasterRCNN(Detector):
    """Faster R-CNN (Ren et al., arXiv:1506.01497), that of torchvision.

    Both heads are new: an `Encoder` shows its maps only, so "c4" has no res5 to use as box head.
    """

    def __init__(
        self, pyramid: Pyramid, classes: int, size: int, *, rois: int, proposals: int, width: int
    ) -> None:
        """Make a detector of `classes` on pictures of `size` px.

        Args:
            pyramid: the maps.
            classes: the number of classes, without the ground.
            size: side of the pictures, px.
            rois: regions that each head learns from, per picture.
            proposals: regions that the box head sees, per picture.
            width: of the box head's two layers.
        """
        super().__init__(pyramid, size)
        levels = len(pyramid.sides)
        per_level = math.ceil(SIZES / levels)
        steps = torch.linspace(0, 1, levels * per_level, dtype=torch.float64)
        sides = size * SMALLEST * (LARGEST / SMALLEST) ** steps.view(levels, per_level)
        # Samples per bin as many as its region has pixels, as in detectron2.
        pool = MultiScaleRoIAlign(pyramid.layers, output_size=BINS, sampling_ratio=0)
        # By itself it rounds strides to powers of two, which patches of 14 px are not. A region is
        # read from the level where it spans about 14 cells (224 px at a stride of 16, as in
        # arXiv:1612.03144): of pictures below about 112 px always the finest.
        pool.scales = [side / size for side in pyramid.sides]
        finest = round(math.log2(size / pyramid.sides[0]))
        pool.map_levels = LevelMapper(finest, finest + levels - 1)
        self.model = detection.FasterRCNN(
            pyramid,
            rpn_anchor_generator=AnchorGenerator(
                tuple(map(tuple, sides.tolist())), aspect_ratios=(SHAPES,) * levels
            ),
            rpn_pre_nms_top_n_train=2 * proposals,
            rpn_pre_nms_top_n_test=2 * proposals,
            rpn_post_nms_top_n_train=proposals,
            rpn_post_nms_top_n_test=proposals,
            rpn_batch_size_per_image=rois,
            box_batch_size_per_image=rois,
            box_roi_pool=pool,
            box_head=TwoMLPHead(pyramid.out_channels * BINS**2, width),
            box_predictor=FastRCNNPredictor(width, classes + 1),
            # Average precision is of the whole ranking; torchvision's 0.05 would cut its tail off.
            box_score_thresh=FAINT,
            box_detections_per_img=LIMIT,
            # Pictures come at their size and normalised: nothing is left to transform.
            min_size=size,
            max_size=size,
            size_divisible=1,
            image_mean=[0.0, 0.0, 0.0],
            image_std=[1.0, 1.0, 1.0],
        )

    def loss(self, x: Tensor, boxes: Sequence[Boxes]) -> Tensor:
        """The sum of the four losses; anchors and regions are drawn from torch's generator."""
        targets = [{"boxes": each.xyxy, "labels": each.label + 1} for each in boxes]  # 0: ground
        losses: dict[str, Tensor] = self.model(list(x), targets)
        return torch.stack(list(losses.values())).sum()

    @torch.no_grad()
    def detect(self, x: Tensor) -> list[Detections]:
        """At most 100 boxes of each picture."""
        return [
            Detections(
                *(part.cpu() for part in (found["boxes"], found["labels"] - 1, found["scores"]))
            )
            for found in self.model(list(x))
        ]
