"""InfoNCE against a queue of keys: MoCo (arXiv:1911.05722)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full


@in_full
def queue_infonce(query: Tensor, key: Tensor, queue: Tensor, temperature: float | Tensor) -> Tensor:
    """Each query must find its own key among K keys of other pictures.

    mean over i of -log(exp(q_i k_i / t) / (exp(q_i k_i / t) + sum over queue of exp(q_i k / t))).

    Args:
        query: `[N, D]` embeddings.
        key: `[N, D]` of the same pictures; no gradient flows into them.
        queue: `[K, D]` unit vectors, without gradient.
        temperature: above 0.
    """
    query, key = F.normalize(query, dim=1), F.normalize(key.detach(), dim=1)
    own = (query * key).sum(1, keepdim=True)
    logits = torch.cat([own, query @ queue.detach().to(query.dtype).T], dim=1) / temperature
    loss: Tensor = F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))
    return loss
