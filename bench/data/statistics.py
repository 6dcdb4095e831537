"""Channel means and standard deviations: the published ones, or computed from pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_CHUNK = 2**22  # pixels summed at once, to bound memory


class Statistics(NamedTuple):
    """Mean and standard deviation of red, green and blue over a set's pixels, on [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# The constants that published work normalises with.
CIFAR10 = Statistics((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100 = Statistics((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def channel_statistics(pixels: Tensor) -> Statistics:
    """The statistics of `pixels` `[N, 3, H, W]` uint8, rounded to four decimals.

    Sums are of integers, so the result does not depend on the number of threads. A channel that
    never varies gets a deviation of one grey level, so that normalising stays finite.
    """
    total = torch.zeros(3, dtype=torch.int64)
    squares = torch.zeros(3, dtype=torch.int64)
    count = len(pixels) * pixels.shape[2] * pixels.shape[3]
    for chunk in torch.split(pixels, max(1, _CHUNK * len(pixels) // max(1, count))):
        values = chunk.to(torch.int32)
        total += values.sum((0, 2, 3))
        squares += (values * values).sum((0, 2, 3))
    mean = total.double() / max(1, count)
    std = (squares.double() / max(1, count) - mean * mean).clamp(min=1).sqrt()
    return Statistics(_rounded(mean / 255), _rounded(std / 255))


def _rounded(values: Tensor) -> tuple[float, float, float]:
    red, green, blue = (round(value, 4) for value in values.tolist())
    return red, green, blue
