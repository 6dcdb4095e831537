"""How semantic segmentation is scored: a confusion matrix of pixels, and the numbers read off it.

Masks hold 0 for the ground, class + 1, and 255 for void, which is left out everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.api import EvalSplit, View
from bench.data.masks import VOID
from bench.errors import BenchError

LEVELS = 256  # values of a mask's pixel

CHUNK = 2**24  # scores held at once when they are resized to masks: 64 MiB


class Confusion:
    """Counts of pixels by (true, predicted) class, added up batch by batch on the device."""

    def __init__(self, classes: int, device: torch.device) -> None:
        """Nothing is counted yet; `classes` includes the ground."""
        self.classes = classes
        # A row for each value that a mask can hold: void, and what must not be, need no branch.
        self.counts = torch.zeros(LEVELS, classes, dtype=torch.int64, device=device)

    def add(self, predicted: Tensor, masks: Tensor) -> None:
        """Count the pixels of `predicted` (int64, below the classes) and `masks` of its shape.

        Raises:
            ValueError: the shapes differ.
        """
        if predicted.shape != masks.shape:
            raise ValueError(f"predictions {predicted.shape} for masks {masks.shape}")
        at = masks.long().mul_(self.classes).add_(predicted).flatten()
        self.counts += at.bincount(minlength=self.counts.numel()).view_as(self.counts)

    def matrix(self, what: str) -> Tensor:
        """The counts `[C, C]` int64, true classes down, void left out; `what` names the masks.

        Raises:
            BenchError: a mask held a value that is no class, or all pixels were void.
        """
        strange = self.counts[self.classes : VOID].sum(1).nonzero().flatten().tolist()
        if strange:
            raise no_class(what, self.classes + strange[0], self.classes)
        matrix = self.counts[: self.classes]
        if not matrix.any():
            raise BenchError(f"every pixel of {what} is void; there is nothing to measure on")
        return matrix


def class_iou(matrix: Tensor) -> Tensor:
    """Intersection over union of each class, `[C]` float64, percent: Jaccard's index of its pixels.

    NaN where a class is neither in the masks nor predicted.

    Args:
        matrix: `[C, C]` counts of pixels, true classes down.
    """
    hits = matrix.diag().double()
    return 100 * hits / (matrix.sum(0) + matrix.sum(1) - matrix.diag())


def segmentation_metrics(matrix: Tensor) -> dict[str, float]:
    """`mIoU`, `pixel_accuracy` and `mean_accuracy`, percent (Long et al., arXiv:1411.4038).

    The mean of IoU leaves out classes that are neither in the masks nor predicted, as torchmetrics
    does; that of accuracy those that are not in the masks.

    Args:
        matrix: `[C, C]` counts of pixels, true classes down, not all zero.
    """
    hits = matrix.diag().double()
    return {
        "mIoU": class_iou(matrix).nanmean().item(),
        "pixel_accuracy": 100 * (hits.sum() / matrix.sum()).item(),
        "mean_accuracy": 100 * (hits / matrix.sum(1)).nanmean().item(),
    }


def masks_at(split: EvalSplit, side: int, classes: int) -> Tensor:
    """The semantic masks of `split` at `side` x `side` pixels, nearest, `[N, side, side]` uint8.

    Pictures are rendered whole as such squares, so this is what a network that sees them is to say.

    Raises:
        BenchError: the masks are not of the pictures' size, or hold a value that is no class.
    """
    masks = _masks(split)
    if isinstance(masks, Tensor):
        small = _nearest(masks, side)
    else:
        small = torch.empty(len(masks), side, side, dtype=torch.uint8)
        for number in range(len(masks)):
            small[number] = _nearest(masks[number], side)
    values = small.unique()
    strange = values[(values >= classes) & (values != VOID)].tolist()
    if strange:
        raise no_class(masks_of(split), strange[0], classes)
    return small.to(split.device)


def pixel_confusion(
    split: EvalSplit,
    view: View,
    scores: Callable[[Tensor], Tensor],
    *,
    classes: int,
    batch_size: int,
) -> Tensor:
    """Counts of pixels `[C, C]`, true classes down, of `split` at its masks' own resolution.

    Scores are resized bilinearly to each mask. A picture may be stored squashed to a square and is
    rendered whole, so stretching its scores to the mask's shape undoes that.

    Args:
        split: pictures with masks.
        view: how pictures are rendered; it has to show them whole.
        scores: (pictures `[b, 3, s, s]`) to scores of the classes `[b, C, h, w]`, any h and w.
        classes: the number of classes C, the ground included.
        batch_size: pictures at once.

    Raises:
        BenchError: the masks are not of the pictures' size, hold a value that is no class, or are
            void all over.
    """
    masks, confusion = _masks(split), Confusion(classes, split.device)
    order = torch.arange(len(split.split)).split(batch_size)
    for index, x in split.batches(order, view):
        found = scores(x)
        for rows, truth in _by_shape(masks, index.tolist()):
            few = max(1, CHUNK // (found.shape[1] * truth[0].numel()))
            for at in range(0, len(truth), few):
                some = truth[at : at + few]
                full = F.interpolate(found[rows[at : at + few]], some.shape[1:], mode="bilinear")
                confusion.add(full.argmax(1), some.to(split.device))
    return confusion.matrix(masks_of(split))


def masks_of(split: EvalSplit) -> str:
    """The masks of `split` in words."""
    return f"the masks of the {split.split.name} split of {split.info.name}"


def no_class(what: str, value: int, classes: int) -> BenchError:
    """The error for a mask's pixel that stands for no class."""
    return BenchError(
        f"{what} hold the value {value}, beyond the {classes - 1} classes and not {VOID} (void); "
        "number them 0 for the ground, then class + 1"
    )


def _masks(split: EvalSplit) -> Tensor | Sequence[Tensor]:
    masks = split.split.semantic
    if masks is None:
        raise BenchError(
            f"the {split.split.name} split of {split.info.name} has no masks; "
            "choose data with masks, such as scenes or voc, or another protocol"
        )
    size = split.split.images.size
    if isinstance(masks, Tensor) and tuple(masks.shape[1:]) != size:
        raise BenchError(
            f"{masks_of(split)} are {masks.shape[1]} x {masks.shape[2]} px, "
            f"its pictures {size[0]} x {size[1]} px; store both at one size"
        )
    return masks


def _nearest(masks: Tensor, side: int) -> Tensor:
    """`masks` `[..., H, W]` at `[..., side, side]`: at each place the pixel below its centre."""
    middle = torch.arange(side) + 0.5
    rows, cols = ((middle * length / side).long() for length in masks.shape[-2:])
    return masks[..., rows[:, None], cols]


def _by_shape(masks: Tensor | Sequence[Tensor], at: list[int]) -> list[tuple[list[int], Tensor]]:
    """The masks `at` these positions, those of one shape together: (rows, `[b, H, W]`)."""
    if isinstance(masks, Tensor):
        return [(list(range(len(at))), masks[at])] if at else []
    groups: dict[tuple[int, ...], tuple[list[int], list[Tensor]]] = {}
    for row, position in enumerate(at):
        mask = masks[position]
        rows, found = groups.setdefault(tuple(mask.shape), ([], []))
        rows.append(row)
        found.append(mask)
    return [(rows, torch.stack(found)) for rows, found in groups.values()]
