"""NT-Xent in plain torch, with the [2N, 2N] matrix of similarities in memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full
from bench.kernels.ranks import ALONE, Ranks


@in_full
def ntxent(one: Tensor, two: Tensor, temperature: float | Tensor, ranks: Ranks = ALONE) -> Tensor:
    """`bench.kernels.ntxent`, formula by formula."""
    rows = F.normalize(torch.cat([one, two]), dim=1)
    first = ranks.rank * len(rows)  # of our rows among all
    # Scaled before and masked in place: there are few copies of the [2N, 2N] logits in memory.
    logits = rows @ (ranks.gather(rows) / temperature).T
    logits.diagonal(first).fill_(float("-inf"))
    pair = torch.arange(len(rows), device=rows.device).roll(len(one)) + first
    loss: Tensor = F.cross_entropy(logits, pair)
    return loss
