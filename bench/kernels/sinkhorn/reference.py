"""The two halves of a Sinkhorn iteration in plain torch, on logarithms."""

from __future__ import annotations

from torch import Tensor

from bench.kernels.precision import in_full

LEAST = -1e30  # the logarithm of an empty sum: finite, so that its inverse is


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
