"""A first-in first-out queue of embeddings on the device (MoCo, arXiv:1911.05722)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.nn import memory


class Queue(nn.Module):
    """The last `size` rows that were pushed, unit vectors, random ones at first.

    Raises:
        BenchError: the size is not a multiple of the batch.
    """

    rows: Tensor  # [K, D]
    at: Tensor  # [] where the next batch goes

    def __init__(self, size: int, dim: int, batch_size: int) -> None:
        super().__init__()
        if size < batch_size or size % batch_size:
            raise BenchError(
                f"a queue of {size} is no multiple of the batch of {batch_size}: set it to "
                f"{max(1, round(size / batch_size)) * batch_size}, or change the batch"
            )
        memory.require(4 * size * dim, f"a queue of {size:,} keys", "set a smaller queue")
        self.register_buffer("rows", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("at", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        """Put `keys` `[B, D]`, normalised, in place of the oldest; the host does not wait."""
        places = (self.at + torch.arange(len(keys), device=keys.device)) % len(self.rows)
        self.rows[places] = F.normalize(keys.to(self.rows.dtype), dim=1)
        self.at.add_(len(keys)).remainder_(len(self.rows))
