"""The nearest rows of a bank by cosine, tile by tile, with one answer where there are equals."""

from __future__ import annotations

import torch
from torch import Tensor

QUERIES, BANK = 1024, 8192  # a tile of similarities and its sort keys: 32 + 64 MiB
LOW, SIGNLESS = 2**32 - 1, 2**31 - 1  # masks: the lower half of an int64, an int32 but its sign


def neighbors(
    queries: Tensor, bank: Tensor, k: int, tile: tuple[int, int] = (QUERIES, BANK)
) -> tuple[Tensor, Tensor]:
    """The `k` rows of `bank` most similar to each query; of equals, the earlier rows first.

    Args:
        queries: `[N, D]` float32 rows of unit norm (or zero).
        bank: `[M, D]` likewise, with M >= k.
        k: How many to find.
        tile: How many queries and rows of the bank meet at once; memory does not grow beyond.

    Returns:
        Cosine similarities, greatest first, and positions in the bank, `[N, k]` each.
    """
    found = []
    for some in queries.split(tile[0]):
        best = torch.empty(len(some), 0, dtype=torch.int64, device=bank.device)
        for start in range(0, len(bank), tile[1]):
            part = bank[start : start + tile[1]]
            position = torch.arange(start, start + len(part), device=bank.device)
            keys = torch.cat([best, sort_keys(some @ part.T, position)], dim=1)
            best = keys.topk(min(k, keys.shape[1])).values
        found.append(best)
    return from_sort_keys(torch.cat(found))


def sort_keys(values: Tensor, position: Tensor) -> Tensor:
    """Unique int64 keys, so that top-k has one answer: by value, then by lower position.

    The bits of a float32 order as an int32 does once those of negative numbers are inverted.

    Args:
        values: float32 of any shape.
        position: int64 in [0, 2^32), of a shape that broadcasts to it.
    """
    bits = (values + 0.0).view(torch.int32)  # + 0.0 makes -0 and 0 the same
    return ((bits ^ (bits >> 31 & SIGNLESS)).long() << 32) | (LOW - position)


def from_sort_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The values and positions that `sort_keys` made `keys` of."""
    bits = (keys >> 32).int()
    return (bits ^ (bits >> 31 & SIGNLESS)).view(torch.float32), LOW - (keys & LOW)
