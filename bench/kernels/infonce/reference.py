"""InfoNCE in plain torch, with the [N, N] matrix of similarities in memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full
from bench.kernels.ranks import ALONE, Ranks


@in_full
def infonce(
    one: Tensor,
    two: Tensor,
    scale: float | Tensor,
    *,
    symmetric: bool = True,
    ranks: Ranks = ALONE,
) -> Tensor:
    """`bench.kernels.infonce`, formula by formula."""
    one, two = F.normalize(one, dim=1), F.normalize(two, dim=1)
    target = torch.arange(len(one), device=one.device) + ranks.rank * len(one)
    logits = one @ ranks.gather(two).T * scale
    loss: Tensor = F.cross_entropy(logits, target)
    if not symmetric:
        return loss
    back = logits.T if ranks is ALONE else two @ ranks.gather(one).T * scale
    return (loss + F.cross_entropy(back, target)) / 2
