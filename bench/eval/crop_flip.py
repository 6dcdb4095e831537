"""The training view of classification: a random crop, mirrored half of the time."""

from __future__ import annotations

from bench.api import DataInfo, Op, View
from bench.data.ops import HorizontalFlip, Normalize, RandomCrop, RandomResizedCrop
from bench.data.views import WHOLE, eval_view


def crop_and_flip(info: DataInfo) -> View:
    """CIFAR's padded crop for pictures up to 96 px, else Inception's; at the size of evaluation."""
    crop: Op = RandomCrop(padding=info.size // 8) if info.size <= WHOLE else RandomResizedCrop()
    normalize = Normalize(mean=info.mean, std=info.std)
    return View("crop_flip", (crop, HorizontalFlip(), normalize), size=eval_view(info).size)
