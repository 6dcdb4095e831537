"""Draws that the operations share; every one comes from the caller's generator."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


def uniform(shape: int | tuple[int, ...], low: float, high: float, rng: torch.Generator) -> Tensor:
    """Uniform numbers in [low, high), on the generator's device."""
    draws = torch.rand(shape, generator=rng, device=rng.device)
    return draws.mul_(high - low).add_(low)


def chance(n: int, p: float, rng: torch.Generator) -> Tensor:
    """`[n]` bool, each true with probability `p`."""
    return torch.rand(n, generator=rng, device=rng.device) < p


def pick(n: int, options: Tensor, rng: torch.Generator) -> Tensor:
    """`[n]` whole numbers (as float), each uniform in 0 ... options - 1, `options` `[n]`."""
    draws = torch.rand(n, generator=rng, device=rng.device)
    # float32 can round u * options up to options itself.
    return (draws * options).floor_().minimum(options - 1)


@lru_cache(maxsize=64)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers as a tensor on `device`, copied there once: a copy waits for the device."""
    return torch.tensor(values, device=device)


def on_chosen(
    function: Callable[..., Tensor], x: Tensor, chosen: Tensor, *params: Tensor
) -> Tensor:
    """`x` `[n, ...]` with `function(x, *params)` in place of the pictures that are `chosen` `[n]`.

    On a CPU only those are computed. Elsewhere all are, since their number would have to be waited
    for.
    """
    if x.device.type == "cpu":
        (at,) = chosen.nonzero(as_tuple=True)
        return x.index_copy(0, at, function(x[at], *(p[at] for p in params)))
    return torch.where(chosen[:, None, None, None], function(x, *params), x)
