"""Losses on the D x D (cross-)correlations of embeddings: Barlow Twins and VICReg."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from bench.kernels import dispatch
from bench.kernels.cross_correlation import reference
from bench.kernels.precision import accumulator

__all__ = ["barlow_twins", "covariance_penalty"]

# Multiplications of the smaller product from which `auto` takes the kernel. Provisional: to be set
# where `bench profile losses` finds the two level on a GPU.
FROM_PRODUCTS = 2**28


def barlow_twins(one: Tensor, two: Tensor, off_diagonal: float) -> Tensor:
    """Sum of (1 - C_ii)^2 + lambda * sum over i != j of C_ij^2 (Barlow Twins, arXiv:2103.03230).

    C = A^T B / N, A and B the embeddings with each dimension standardised over the batch as a
    batch norm without affine does it (biased variance, epsilon 1e-5).

    Args:
        one: `[N, D]` embeddings, N at least 2. The kernel multiplies bfloat16 as such.
        two: `[N, D]` of the same pictures' other views.
        off_diagonal: lambda, the weight of redundancy.

    Raises:
        ValueError: N is 1.
    """
    if _fused("barlow_twins", one):
        from bench.kernels.cross_correlation.triton import redundancy

        return reference.barlow_twins(
            one, two, off_diagonal, partial(redundancy, dtype=_factors(one))
        )
    return reference.barlow_twins(one, two, off_diagonal)


def covariance_penalty(x: Tensor) -> Tensor:
    """Sum of squared covariances of different dimensions, over D (VICReg, arXiv:2105.04906).

    Args:
        x: `[N, D]` embeddings, N at least 2: covariances are over N - 1. The kernel multiplies
            bfloat16 as such.
    """
    if _fused("covariance_penalty", x):
        from bench.kernels.cross_correlation.triton import covariances

        return reference.covariance_penalty(x, partial(covariances, dtype=_factors(x)))
    return reference.covariance_penalty(x)


def _fused(op: str, x: Tensor) -> bool:
    return dispatch.triton(op, x, worth=x.numel() * min(x.shape) >= FROM_PRODUCTS)


def _factors(x: Tensor) -> torch.dtype:
    """The type that the kernel multiplies in; squares of float16 soon are beyond its range."""
    return x.dtype if x.dtype == torch.bfloat16 else accumulator(x.dtype)
