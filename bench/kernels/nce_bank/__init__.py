"""Noise-contrastive estimation over a memory bank: InstDisc (arXiv:1805.01978), CMC, PIRL."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.kernels import dispatch
from bench.kernels.nce_bank import reference
from bench.kernels.nce_bank.reference import log_partition, nce_bank

__all__ = ["bank_logits", "log_partition", "nce_bank"]

# Numbers gathered from the bank from which `auto` takes the kernel. Provisional: to be set where
# `bench profile losses` finds the two level on a GPU.
FROM_NUMBERS = 2**20


def bank_logits(
    query: Tensor, bank: Tensor, temperature: float, at: Tensor | None = None
) -> Tensor:
    """Cosines of queries with rows of a bank, over the temperature: `[N, K]`, or `[N, M]` at `at`.

    Args:
        query: `[N, D]` embeddings.
        bank: `[K, D]` unit vectors of any floating type, without gradient.
        temperature: above 0.
        at: `[N, M]` the rows that each query is compared with, in [0, K); by default all of them,
            which is one matrix product. Of others the kernel makes NaN, the reference an error.
    """
    with torch.autocast(query.device.type, enabled=False):
        unit, bank = reference.unit_rows(query), bank.detach()
        if at is None:
            dispatch.note("nce_bank", "reference")
            return unit @ bank.to(unit.dtype).T / temperature
        if dispatch.triton("nce_bank", query, worth=at.numel() * bank.shape[1] >= FROM_NUMBERS):
            from bench.kernels.nce_bank.triton import dots_at

            return dots_at(unit / temperature, bank, at)
        return reference.dots_at(unit, bank, at) / temperature
