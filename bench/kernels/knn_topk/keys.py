"""Similarities and positions as one integer, by which sorting has one answer."""

from __future__ import annotations

import torch
from torch import Tensor

LOW, SIGNLESS = 2**32 - 1, 2**31 - 1  # masks: the lower half of an int64, an int32 but its sign


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
