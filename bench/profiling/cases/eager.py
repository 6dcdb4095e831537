"""The losses that compare embeddings in plain torch, in the inputs' own precision.

The reference raises half precision to float32 first. Here inputs are multiplied as they are, as in
the kernels, and what comes after the products is float32: a kernel is fairly held against that.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.profiling.case import Inputs
from bench.profiling.peers.contrastive import BIAS, SCALE, TEMPERATURE


def ntxent(x: Inputs) -> Tensor:
    """NT-Xent of `bench.kernels`, as below."""
    rows = F.normalize(torch.cat([x["one"], x["two"]]), dim=1)
    logits = (rows @ rows.T).float() / TEMPERATURE
    logits.fill_diagonal_(float("-inf"))
    pair = torch.arange(len(rows), device=rows.device).roll(len(rows) // 2)
    return F.cross_entropy(logits, pair)


def infonce(x: Inputs) -> Tensor:
    """Both directions of InfoNCE."""
    logits = _logits(x) * SCALE
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def siglip(x: Inputs) -> Tensor:
    """The sigmoid loss of all pairs."""
    logits = _logits(x) * SCALE + BIAS
    sign = torch.full_like(logits, -1).fill_diagonal_(1)
    return -F.logsigmoid(sign * logits).sum() / len(logits)


def queue_infonce(x: Inputs) -> Tensor:
    """InfoNCE against a queue."""
    query, key = F.normalize(x["query"], dim=1), F.normalize(x["key"], dim=1)
    own = (query * key).sum(1, keepdim=True, dtype=torch.float32)
    logits = torch.cat([own, (query @ x["queue"].T).float()], dim=1) / TEMPERATURE
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))


def _logits(x: Inputs) -> Tensor:
    return (F.normalize(x["one"], dim=1) @ F.normalize(x["two"], dim=1).T).float()
