"""Soft assignments to prototypes by cosine, their sharpened targets, and MSN's loss on them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels import sinkhorn
from bench.kernels.precision import in_full


@in_full
def log_assignments(x: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """Log-probabilities `[N, K]` of prototypes `[K, D]` for rows `[N, D]`, by their cosines."""
    cosines = F.normalize(x, dim=1) @ F.normalize(prototypes, dim=1).T
    return F.log_softmax(cosines / temperature, dim=1)


@torch.no_grad()
def sharpened(logs: Tensor, sharpen: float, balance: bool) -> Tensor:
    """Targets `[N, K]`: probabilities to the power 1 / `sharpen`, rows sum to 1, no gradient.

    Args:
        logs: `[N, K]` log-probabilities.
        sharpen: below 1 makes targets sharper.
        balance: whether Sinkhorn then lets prototypes share the rows evenly.
    """
    sharp = (logs / sharpen).log_softmax(1)
    return sinkhorn(sharp, 1.0) if balance else sharp.exp()


@in_full
def msn(logs: Tensor, targets: Tensor, memax: float) -> Tensor:
    """Mean cross-entropy, plus `memax` * (log K - entropy of the mean assignment), nats.

    As in the official src/losses.py of MSN (arXiv:2204.07141).

    Args:
        logs: `[V * N, K]` log-probabilities of V views of N pictures, view after view.
        targets: `[N, K]` probabilities; no gradient flows into them.
        memax: weight of the mean's entropy.
    """
    views = logs.unflatten(0, (-1, len(targets)))
    cross_entropy = -(targets.detach() * views).sum(2).mean()
    entropy = torch.special.entr(logs.exp().mean(0)).sum()
    loss: Tensor = cross_entropy + memax * (math.log(logs.shape[1]) - entropy)
    return loss
