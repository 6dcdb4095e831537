"""Views of several sizes through one network, one pass for each size (SwAV, arXiv:2006.09882)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from bench.api import Backbone


def by_size(network: nn.Module, views: Sequence[Tensor]) -> list[Tensor]:
    """`network`'s output for each of `views` `[B, 3, s, s]`, in order.

    Neighbours of equal size go through together, so that batch norm sees one size at a time.
    """
    outputs: list[Tensor] = []
    for _, group in groupby(views, key=lambda view: view.shape[-1]):
        same = list(group)
        outputs += network(torch.cat(same)).chunk(len(same))
    return outputs


def local_side(backbone: Backbone, size: int, share: float) -> int:
    """The side of local views, pixels; a multiple of the patch where the backbone has patches.

    Args:
        backbone: what sees them.
        size: of the global views, pixels.
        share: of that side.
    """
    grid: tuple[int, int] | None = getattr(backbone, "grid", None)
    patch = size // grid[0] if grid else 1
    return max(1, round(share * size / patch)) * patch
