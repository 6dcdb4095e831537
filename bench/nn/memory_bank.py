"""A memory bank: every training picture's embedding as it was last seen (arXiv:1805.01978)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.kernels import bank_logits, log_partition, nce_bank
from bench.nn import memory

Contrast = Literal["nce", "softmax"]


class MemoryBank(nn.Module):
    """A unit vector for each of `size` pictures, random at first, moved each time it is seen.

    `bank.logits(query, bank.candidates(...))` compares queries with their own rows and some others,
    and `bank.contrast` makes a loss of it; nothing waits for the device.

    Args:
        size: training pictures.
        dim: of an embedding.
        momentum: the share of the old row in the new one.
        temperature: of the logits.

    Raises:
        BenchError: the bank does not fit in memory.
    """

    rows: Tensor  # [size, dim]
    log_z: Tensor  # [] log of NCE's constant Z, once it is estimated
    estimated: Tensor  # [] bool

    def __init__(self, size: int, dim: int, momentum: float, temperature: float) -> None:
        super().__init__()
        memory.require(
            4 * size * dim,
            f"a memory bank's {size:,} rows of {dim:,} numbers",
            "set a smaller method.projection, or train on fewer pictures",
        )
        self.momentum, self.temperature = momentum, temperature
        self.register_buffer("rows", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("log_z", torch.zeros(()))
        self.register_buffer("estimated", torch.zeros((), dtype=torch.bool))

    def candidates(self, index: Tensor, negatives: int, rng: torch.Generator) -> Tensor:
        """Each picture's own row, then rows drawn uniformly: `[B, 1 + negatives]`.

        The own row may be among the drawn, as in the official codes of InstDisc, CMC and PIRL.
        """
        shape = (len(index), negatives)
        drawn = torch.randint(len(self.rows), shape, generator=rng, device=rng.device)
        return torch.cat([index[:, None], drawn], 1)

    def logits(self, query: Tensor, at: Tensor | None = None) -> Tensor:
        """Cosines of `query` `[B, D]` with the rows `at` `[B, M]`, by default all, over t."""
        return bank_logits(query, self.rows, self.temperature, at)

    def contrast(self, logits: Tensor, loss: Contrast) -> Tensor:
        """The loss of `[B, 1 + m]` logits whose first is the own row's.

        "nce" is noise-contrastive estimation, "softmax" the cross-entropy over the candidates.
        """
        if loss == "nce":
            return self.nce(logits)
        return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))

    def nce(self, logits: Tensor) -> Tensor:
        """Noise-contrastive estimation of `[B, 1 + m]` logits, the own row's first.

        The first logits ever seen fix the constant Z.
        """
        log_z = log_partition(logits, len(self.rows)).to(self.log_z.dtype)
        self.log_z.copy_(torch.where(self.estimated, self.log_z, log_z))
        self.estimated.fill_(True)
        return nce_bank(logits, self.log_z, len(self.rows))

    @torch.no_grad()
    def fill(self, embeddings: Tensor) -> None:
        """Put `embeddings` `[size, D]`, normalised, in place of the random rows."""
        self.rows.copy_(F.normalize(embeddings, dim=1))

    @torch.no_grad()
    def update(self, embeddings: Tensor, index: Tensor) -> None:
        """Move the rows `index` `[B]` towards `embeddings` `[B, D]`, and back to unit length.

        Call it after the optimiser's step: the gradient of the logits needs the rows as they were.
        Of a picture that is in the batch more than once, the first embedding counts.
        """
        first = (index[:, None] == index).int().argmax(1)
        new = F.normalize(embeddings.to(self.rows.dtype), dim=1)[first]
        rows = self.momentum * self.rows[index] + (1 - self.momentum) * new
        self.rows.index_copy_(0, index, F.normalize(rows, dim=1))


def match_top1(logits: Tensor) -> Tensor:
    """Share, %, of rows `[B, 1 + m]` whose first logit no other exceeds; chance 100 / (1 + m)."""
    return 100 * (logits[:, 0] >= logits[:, 1:].amax(1)).float().mean()
