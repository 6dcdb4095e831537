"""Sinkhorn-Knopp: balanced soft assignments to prototypes (arXiv:1306.0895; SwAV, 2006.09882)."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.kernels.precision import in_full

TINY = 1e-30  # in place of the sum of a prototype that no row comes near


@in_full
@torch.no_grad()
def sinkhorn(scores: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """exp(scores / t), scaled so that prototypes share the rows evenly: `[N, K]`, rows sum to 1.

    Alternately each column and each row is divided by its sum, `iterations` times, a row last.

    Args:
        scores: `[N, K]`, cosines to the prototypes, say.
        temperature: SwAV's epsilon.
        iterations: at least 1.
    """
    # A factor of a row changes nothing in the end, so each row's maximum may be 1: no overflow.
    plan = ((scores - scores.amax(1, keepdim=True)) / temperature).exp()
    plan = plan / plan.sum(1, keepdim=True)
    for _ in range(iterations):
        plan = plan / plan.sum(0).clamp_min(TINY)
        plan = plan / plan.sum(1, keepdim=True)
    return plan
