"""SigLIP in plain torch, with the [N, N] matrix of logits in memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full
from bench.kernels.ranks import ALONE, Ranks


@in_full
def siglip(
    one: Tensor,
    two: Tensor,
    scale: float | Tensor,
    bias: float | Tensor,
    ranks: Ranks = ALONE,
) -> Tensor:
    """`bench.kernels.siglip`, formula by formula."""
    one, two = F.normalize(one, dim=1), F.normalize(two, dim=1)
    logits = one @ ranks.gather(two).T * scale + bias
    sign = torch.full_like(logits, -1)
    sign.diagonal(ranks.rank * len(one)).fill_(1)
    return -F.logsigmoid(sign * logits).sum() / len(logits)
