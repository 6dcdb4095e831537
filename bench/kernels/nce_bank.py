"""Noise-contrastive estimation over a memory bank: InstDisc (arXiv:1805.01978), CMC, PIRL."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full


@in_full
def bank_logits(
    query: Tensor, bank: Tensor, temperature: float, at: Tensor | None = None
) -> Tensor:
    """Cosines of queries with rows of a bank, over the temperature: `[N, K]`, or `[N, M]` at `at`.

    Args:
        query: `[N, D]` embeddings.
        bank: `[K, D]` unit vectors, without gradient.
        temperature: above 0.
        at: `[N, M]` the rows that each query is compared with; all of them by default.
    """
    query, bank = F.normalize(query, dim=1), bank.detach().to(query.dtype)
    if at is None:
        return query @ bank.T / temperature
    if len(bank) <= at.shape[1] * bank.shape[1]:
        # All cosines take no more memory than copies of the rows asked for, and are one product.
        return (query @ bank.T / temperature).gather(1, at)
    rows: Tensor = bank.index_select(0, at.flatten()).unflatten(0, at.shape)
    return (rows @ query[:, :, None]).squeeze(2) / temperature


@in_full
@torch.no_grad()
def log_partition(logits: Tensor, size: int) -> Tensor:
    """The logarithm of Z = size * mean of exp(logits), a sum over a bank from a sample of it."""
    return logits.flatten().logsumexp(0) + math.log(size / logits.numel())


@in_full
def nce_bank(logits: Tensor, log_z: Tensor, size: int) -> Tensor:
    """Tell each query's own row of a bank from m rows drawn uniformly as noise.

    mean over queries of -log h(own) - sum over noise of log(1 - h), where h = P / (P + m / size) is
    the posterior that a row is no noise, and P = exp(logit) / Z. The official codes add 1e-7 to the
    denominator; here logarithms keep it from zero.

    Args:
        logits: `[N, 1 + m]`, the own row first, of `bank_logits`.
        log_z: `[]` log of the constant Z, of `log_partition`.
        size: rows of the bank.
    """
    noise = logits.shape[1] - 1
    odds = logits - log_z - math.log(noise / size)  # of h: h is their sigmoid
    return -(F.logsigmoid(odds[:, 0]) + F.logsigmoid(-odds[:, 1:]).sum(1)).mean()
