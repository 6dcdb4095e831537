"""InfoNCE against a queue in plain torch, with the [N, 1 + K] logits in memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full


@in_full
def queue_infonce(query: Tensor, key: Tensor, queue: Tensor, temperature: float | Tensor) -> Tensor:
    """`bench.kernels.queue_infonce`, formula by formula."""
    query, key = F.normalize(query, dim=1), F.normalize(key.detach(), dim=1)
    own = (query * key).sum(1, keepdim=True)
    logits = torch.cat([own, query @ queue.detach().to(query.dtype).T], dim=1) / temperature
    loss: Tensor = F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))
    return loss
