"""Sinkhorn's iteration in plain torch: whole, or in halves on logarithms."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.kernels.precision import in_full

LEAST = -1e30  # the logarithm of an empty sum: finite, so that its inverse is


@in_full
def column_scales(scores: Tensor, temperature: float, iterations: int) -> Tensor:
    """Logarithms of the columns' scales `[K]` after whole iterations, of one process's rows.

    The scaled matrix is kept: exponentials are taken once, which a CPU has few units for.
    """
    logits = scores / temperature
    # The first iteration is done on logarithms, since exp(scores / t) overflows where t is small.
    # From then on rows and columns have entries of at least 1 / (N K), but for those of -inf alone.
    scale = -logits.logsumexp(0).clamp(min=LEAST)
    if iterations == 1:
        return scale
    plan = logits.add_(scale)
    plan = plan.sub_(plan.logsumexp(1, keepdim=True).clamp(min=LEAST)).exp_()
    for again in range(iterations - 1):
        if again:
            rows = plan.sum(1, keepdim=True)
            plan /= torch.where(rows == 0, 1, rows)
        columns = plan.sum(0)
        columns = torch.where(columns == 0, 1, columns)
        scale -= columns.log()
        plan /= columns
    return scale


@in_full
def column_sums(scores: Tensor, rows: Tensor | None, temperature: float) -> Tensor:
    """Logarithm of the sum over n of exp(scores_nk / t + rows_n), `[K]`.

    Args:
        scores: `[N, K]`.
        rows: `[N]` logarithms of the rows' scales; None for 0.
        temperature: above 0.
    """
    logs = scores / temperature
    if rows is not None:
        logs = logs + rows[:, None]
    return logs.logsumexp(0).clamp(min=LEAST)


@in_full
def row_sums(scores: Tensor, columns: Tensor, temperature: float) -> Tensor:
    """Logarithm of the sum over k of exp(scores_nk / t + columns_k), `[N]`.

    Args:
        scores: `[N, K]`.
        columns: `[K]` logarithms of the columns' scales.
        temperature: above 0.
    """
    return (scores / temperature + columns).logsumexp(1).clamp(min=LEAST)
