"""Barlow Twins and VICReg's covariance in plain torch.

Both sum the squares of a D x D matrix, which need not be there: ||A^T B||^2 = <A A^T, B B^T>, and
with fewer rows than dimensions the N x N side is the cheaper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full

# Forward and backward take 8 N^2 D operations from the rows' side, 6 N D^2 from the dimensions'.
ROWS_BELOW = 0.75  # rows per dimension


def redundancy(a: Tensor, b: Tensor, diagonal: Tensor) -> Tensor:
    """Sum over i != j of C_ij^2, C = A^T B / N, of `[N, D]` tensors and C's diagonal `[D]`."""
    rows, dims = a.shape
    if rows < ROWS_BELOW * dims:
        every: Tensor = _CrossSquares.apply(a, b) / rows**2  # type: ignore[no-untyped-call]
    else:
        every = (a.T @ b / rows).square().sum()
    return every - diagonal.square().sum()


def covariances(x: Tensor) -> Tensor:
    """Sum over i != j of (X^T X)_ij^2, of an `[N, D]` tensor."""
    rows, dims = x.shape
    # A product with itself costs the same on either side, up to which is the smaller.
    product = x @ x.T if rows < dims else x.T @ x
    return product.square().sum() - x.square().sum(0).square().sum()


@in_full
def barlow_twins(
    one: Tensor,
    two: Tensor,
    off_diagonal: float,
    redundancy: Callable[[Tensor, Tensor, Tensor], Tensor] = redundancy,
) -> Tensor:
    """`bench.kernels.barlow_twins`, by one way or another to the sum over i != j."""
    a, b = (F.batch_norm(x, None, None, training=True) for x in (one, two))
    diagonal = (a * b).mean(0)
    return (1 - diagonal).square().sum() + off_diagonal * redundancy(a, b, diagonal)


@in_full
def covariance_penalty(x: Tensor, covariances: Callable[[Tensor], Tensor] = covariances) -> Tensor:
    """`bench.kernels.covariance_penalty`, by one way or another to the sum over i != j."""
    rows, dims = x.shape
    return covariances(x - x.mean(0)) / ((rows - 1) ** 2 * dims)


class _CrossSquares(torch.autograd.Function):
    """||A^T B||^2 from the rows' side; autograd would not see that A A^T is symmetric."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        """<A A^T, B B^T>."""
        gram_a, gram_b = a @ a.T, b @ b.T
        ctx.save_for_backward(a, b, gram_a, gram_b)
        return (gram_a * gram_b).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """2 B B^T A and 2 A A^T B."""
        a, b, gram_a, gram_b = ctx.saved_tensors
        return 2 * grad * (gram_b @ a), 2 * grad * (gram_a @ b)
