"""Losses on the D x D (cross-)correlations of embeddings: Barlow Twins and VICReg.

Both sum the squares of a D x D matrix, which need not be there: ||A^T B||^2 = <A A^T, B B^T>, and
with fewer rows than dimensions the N x N side is the cheaper.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full

# Forward and backward take 8 N^2 D operations from the rows' side, 6 N D^2 from the dimensions'.
ROWS_BELOW = 0.75  # rows per dimension


@in_full
def barlow_twins(one: Tensor, two: Tensor, off_diagonal: float) -> Tensor:
    """Sum of (1 - C_ii)^2 + lambda * sum over i != j of C_ij^2 (Barlow Twins, arXiv:2103.03230).

    C = A^T B / N, A and B the embeddings with each dimension standardised over the batch as a
    batch norm without affine does it (biased variance, epsilon 1e-5).

    Args:
        one: `[N, D]` embeddings, N at least 2.
        two: `[N, D]` of the same pictures' other views.
        off_diagonal: lambda, the weight of redundancy.

    Raises:
        ValueError: N is 1.
    """
    a, b = (F.batch_norm(x, None, None, training=True) for x in (one, two))
    rows, dims = a.shape
    diagonal = (a * b).mean(0)
    if rows < ROWS_BELOW * dims:
        every: Tensor = _CrossSquares.apply(a, b) / rows**2  # type: ignore[no-untyped-call]
    else:
        every = (a.T @ b / rows).square().sum()
    redundancy = every - diagonal.square().sum()
    return (1 - diagonal).square().sum() + off_diagonal * redundancy


@in_full
def covariance_penalty(x: Tensor) -> Tensor:
    """Sum of squared covariances of different dimensions, over D (VICReg, arXiv:2105.04906).

    Args:
        x: `[N, D]` embeddings, N at least 2: covariances are over N - 1.
    """
    rows, dims = x.shape
    x = x - x.mean(0)
    # A product with itself costs the same on either side, up to which is the smaller.
    product = x @ x.T if rows < dims else x.T @ x
    variances = x.square().sum(0)
    return (product.square().sum() - variances.square().sum()) / ((rows - 1) ** 2 * dims)


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
