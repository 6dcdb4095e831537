"""Learning from few labels: the share of the training pictures whose labels may be used."""

from __future__ import annotations

import torch
from torch import Tensor, nn

IGNORED = -100  # the label that torch's cross-entropy leaves out


class LabelledShare(nn.Module):
    """Which of `count` pictures have a label that may be used; drawn evenly, at least one.

    Args:
        count: of the training pictures.
        share: of them, in (0, 1].
    """

    chosen: Tensor

    def __init__(self, count: int, share: float) -> None:
        super().__init__()
        drawn = torch.randperm(count)[: max(1, round(share * count))]
        self.register_buffer("chosen", torch.zeros(count).index_fill(0, drawn, 1.0))

    def forward(self, label: Tensor, index: Tensor) -> Tensor:
        """`label` `[B]` of the pictures at `index` `[B]`, `IGNORED` where it may not be used."""
        return label.where(self.chosen[index] > 0, IGNORED)
