"""NT-Xent: the normalised temperature-scaled cross-entropy of SimCLR (arXiv:2002.05709)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full


@in_full
def ntxent(one: Tensor, two: Tensor, temperature: float | Tensor) -> Tensor:
    """Each of 2N views must find the other view of its picture among the 2N - 1 others.

    mean over i of -log(exp(cos(i, pair) / t) / sum over j != i of exp(cos(i, j) / t)).

    Args:
        one: `[N, D]` embeddings of the pictures' first views.
        two: `[N, D]` of their second views, in the same order.
        temperature: above 0.
    """
    rows = F.normalize(torch.cat([one, two]), dim=1)
    # Scaled before and masked in place: there are few copies of the [2N, 2N] logits in memory.
    logits = (rows @ (rows / temperature).T).fill_diagonal_(float("-inf"))
    pair = torch.arange(len(rows), device=rows.device).roll(len(one))
    loss: Tensor = F.cross_entropy(logits, pair)
    return loss
