"""What the operations share: draws from the caller's generator, and work on some pictures only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from bench.api import Op

BRANCHES = 8  # at most, of one operation


class Branching(Op):
    """An operation that leaves out some pictures, or part of its work on them."""

    def branch(self, params: Mapping[str, Tensor]) -> Tensor:
        """Which way each picture goes, `[n]`, below `BRANCHES`; one branch shares all its work."""
        return params["applied"]


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

    On a CPU only those are computed, and `x` is overwritten: `render` sorts pictures so that those
    chosen mostly stand together, and then nothing has to be gathered. Elsewhere all are computed,
    since their number would have to be waited for.
    """
    if x.device.type != "cpu":
        return torch.where(chosen[:, None, None, None], function(x, *params), x)
    (at,) = chosen.nonzero(as_tuple=True)
    if len(at) == 0:
        return x
    if len(at) == len(x):
        return function(x, *params)
    x = x.contiguous()
    first, last = int(at[0]), int(at[-1])
    if last - first + 1 == len(at):
        run = slice(first, last + 1)
        x[run] = function(x[run], *(tensor[run] for tensor in params))
        return x
    some = (tensor.index_select(0, at) for tensor in (x, *params))
    return put(x, at, function(*some))


def put(x: Tensor, at: Tensor, pictures: Tensor) -> Tensor:
    """Overwrite the pictures `at` of contiguous `x` `[n, ...]`, float32; return `x`."""
    places, values = x.flatten(1), pictures.flatten(1)
    if places.shape[1] % 4 == 0:
        # index_copy_ moves number by number; four at a time take a third of the time.
        places, values = places.view(torch.complex128), values.view(torch.complex128)
    places.index_copy_(0, at, values)
    return x
