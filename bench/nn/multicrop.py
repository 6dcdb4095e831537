"""Views of several sizes through one network, one pass for each size (SwAV, arXiv:2006.09882)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn


def by_size(network: nn.Module, views: Sequence[Tensor]) -> list[Tensor]:
    """`network`'s output for each of `views` `[B, 3, s, s]`, in order.

    Neighbours of equal size go through together, so that batch norm sees one size at a time.
    """
    outputs: list[Tensor] = []
    for _, group in groupby(views, key=lambda view: view.shape[-1]):
        same = list(group)
        outputs += network(torch.cat(same)).chunk(len(same))
    return outputs
