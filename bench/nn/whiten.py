"""Principal components, and whitening by them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NO_VARIANCE = 1e-6  # of the largest: in float32 what is below this is rounding, not signal


@dataclass(frozen=True)
class Principal:
    """The first K principal components of D-dimensional data, by falling variance."""

    mean: Tensor  # [D]
    axes: Tensor  # [K, D], orthonormal rows
    variance: Tensor  # [K]

    def whitening(self, ridge: float = 0.0) -> Tensor:
        """The matrix `[K, D]` after which each component has variance 1.

        `ridge` is added to the variances. Components without variance become 0.
        """
        signal = self.variance > NO_VARIANCE * self.variance.max()
        scale = torch.where(signal, (self.variance + ridge).rsqrt(), 0.0)
        return self.axes * scale[:, None]

    def whiten(self, x: Tensor, ridge: float = 0.0) -> Tensor:
        """`x` `[N, D]` centred and whitened, `[N, K]`."""
        return (x - self.mean) @ self.whitening(ridge).T


def principal_components(x: Tensor, dim: int) -> Principal:
    """The first `min(dim, D)` principal components of the rows of `x` `[N, D]`."""
    mean = x.mean(0)
    centred = x - mean
    return from_covariance(mean, centred.T @ centred / len(x), dim)


def from_covariance(mean: Tensor, covariance: Tensor, dim: int) -> Principal:
    """The first `min(dim, D)` principal components of data with a known covariance.

    The sign of a component is arbitrary: here its largest entry is positive.

    Args:
        mean: `[D]`.
        covariance: `[D, D]`, divided by N.
        dim: the most components to keep.
    """
    variance, axes = torch.linalg.eigh(covariance)
    variance, axes = variance.flip(0)[:dim].clamp(min=0), axes.T.flip(0)[:dim]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return Principal(mean, axes * largest.sign(), variance)
