"""Noise-contrastive estimation in plain torch, with the rows asked for copied.

The loss itself has no kernel: its logits are a hundredth of the bytes that are gathered for them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full


@in_full
def unit_rows(x: Tensor) -> Tensor:
    """Rows `[N, D]` of unit length, in float32 at least."""
    return F.normalize(x, dim=1)


def dots_at(query: Tensor, bank: Tensor, at: Tensor) -> Tensor:
    """Dot products `[N, M]` of queries `[N, D]` with the rows `at` `[N, M]` of a bank `[K, D]`."""
    if len(bank) <= at.shape[1] * bank.shape[1]:
        # All products take no more memory than copies of the rows asked for, and are made as one.
        return (query @ bank.to(query.dtype).T).gather(1, at)
    rows: Tensor = bank.index_select(0, at.flatten()).to(query.dtype).unflatten(0, at.shape)
    return (rows @ query[:, :, None]).squeeze(2)


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
