"""The nearest rows in plain torch, tile by tile."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.kernels.knn_topk.keys import sort_keys

QUERIES, BANK = 1024, 8192  # a tile of similarities and its sort keys: 32 + 64 MiB


def nearest_keys(
    queries: Tensor, bank: Tensor, k: int, tile: tuple[int, int] = (QUERIES, BANK)
) -> Tensor:
    """The greatest `sort_keys` of the similarities of queries and a bank, `[N, k]`, in order.

    Args:
        queries: `[N, D]`.
        bank: `[M, D]`, with M >= k.
        k: how many.
        tile: how many queries and rows of the bank meet at once; memory does not grow beyond.
    """
    found = [queries.new_empty(0, k, dtype=torch.int64)]
    with torch.autocast(queries.device.type, enabled=False):
        for some in queries.split(tile[0]):
            best = torch.empty(len(some), 0, dtype=torch.int64, device=bank.device)
            for start in range(0, len(bank), tile[1]):
                part = bank[start : start + tile[1]]
                position = torch.arange(start, start + len(part), device=bank.device)
                similar = some.float() @ part.float().T
                keys = torch.cat([best, sort_keys(similar, position)], dim=1)
                best = keys.topk(min(k, keys.shape[1])).values
            found.append(best)
    return torch.cat(found)
