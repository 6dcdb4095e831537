"""The order in which pictures come, as a function of the step alone."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from bench.rng import generator


def endless(count: int, batch_size: int, step: int, *name: str | int) -> Tensor:
    """Positions `[batch_size]` of step `step` (from 0) in one permutation of `count` after another.

    Batches are always full and may span two permutations; `name` names their draws.
    """
    at = torch.arange(step * batch_size, (step + 1) * batch_size)
    rounds = at // count
    numbers = range(int(rounds[0]), int(rounds[-1]) + 1)
    return torch.cat([_round(count, n, name)[at[rounds == n] % count] for n in numbers])


@lru_cache(maxsize=8)  # every step of a round asks for it
def _round(count: int, number: int, name: tuple[str | int, ...]) -> Tensor:
    return torch.randperm(count, generator=generator(*name, "round", number))
