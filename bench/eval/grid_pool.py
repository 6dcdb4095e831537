"""Feature maps brought to a grid of about as many numbers for every layer, as probes need them."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Pool = Literal["resize", "max", "avg"]


def grid_side(channels: int, side: int, numbers: int) -> int:
    """The k for which C * k * k is about `numbers`; at least 1, at most the map's own side.

    At 9,000 numbers it is 10, 6, 5, 5, 6 for AlexNet's five layers in arXiv:1603.08511, and
    12, 7, 5, 6, 6 in RotNet (arXiv:1803.07728), whose layers have other widths.
    """
    return max(1, min(side, round(math.sqrt(numbers / channels))))


def pool_to_grid(maps: Tensor, numbers: int, pool: Pool) -> Tensor:
    """Maps `[B, C, h, w]` as `[B, C, k, k]` with C * k * k of about `numbers`.

    Args:
        maps: the maps; a grid is never finer than they are.
        numbers: how many numbers a picture is left with.
        pool: "resize" samples bilinearly between the centres of cells, without smoothing (Zhang);
            "max" and "avg" pool adaptively (RotNet and CMC; VISSL).
    """
    side = grid_side(maps.shape[1], min(maps.shape[2:]), numbers)
    if maps.shape[2:] == (side, side):
        return maps
    if pool == "resize":
        return F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)
    adaptive = F.adaptive_max_pool2d if pool == "max" else F.adaptive_avg_pool2d
    return adaptive(maps, side)
