"""Sinkhorn-Knopp: balanced soft assignments to prototypes (arXiv:1306.0895; SwAV, 2006.09882)."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.kernels.precision import in_full


@in_full
@torch.no_grad()
def sinkhorn(scores: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """exp(scores / t), scaled so that prototypes share the rows evenly: `[N, K]`, rows sum to 1.

    Alternately each column and each row is divided by its sum, `iterations` times, a row last. No
    gradient flows.

    Args:
        scores: `[N, K]`, cosines to the prototypes, say.
        temperature: SwAV's epsilon, above 0.
        iterations: at least 1.
    """
    logits = scores / temperature
    # The first iteration is done on logarithms, since exp(scores / t) overflows where t is small.
    # From then on every row and every column has an entry of at least 1 / (N K): no sum is 0.
    plan = (logits - logits.logsumexp(0)).softmax(1)
    for _ in range(iterations - 1):
        plan /= plan.sum(0)
        plan /= plan.sum(1, keepdim=True)
    return plan
