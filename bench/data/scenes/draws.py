"""Random draws for a batch: a table of uniform numbers, read column by column."""

from __future__ import annotations

import torch
from torch import Tensor


class Draws:
    """Hands out the columns of a uniform table `[n, columns]` in [0, 1), one per question.

    The table is drawn once for a whole split, so that a picture does not depend on how the
    pictures are grouped into batches.
    """

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.used = 0

    def __len__(self) -> int:
        return len(self.table)

    def unit(self) -> Tensor:
        """The next column, `[n]`.

        Raises:
            IndexError: the table has no column left.
        """
        column = self.table[:, self.used]
        self.used += 1
        return column

    def uniform(self, low: float, high: float) -> Tensor:
        """Uniform in [low, high), `[n]`."""
        return low + (high - low) * self.unit()

    def chance(self, share: float) -> Tensor:
        """True with probability `share`, `[n]` bool."""
        return self.unit() < share

    def sign(self) -> Tensor:
        """-1 or 1, `[n]`."""
        return torch.where(self.unit() < 0.5, -1.0, 1.0).to(self.table.dtype)

    def pick(self, count: int) -> Tensor:
        """A whole number below `count`, `[n]` int64."""
        return (self.unit() * count).long()

    def among(self, weights: Tensor) -> Tensor:
        """A column of `weights` `[n, k]` (or `[k]`), drawn in proportion, `[n]` int64."""
        ends = weights.double().cumsum(-1).expand(len(self), -1)
        return (self.unit()[:, None] * ends[:, -1:] >= ends).sum(1)
