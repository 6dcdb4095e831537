"""Sets of permutations that are far from one another, for jigsaw puzzles."""

from __future__ import annotations

import itertools
import math

import torch
from safetensors.torch import load, save
from torch import Tensor

from bench.errors import BenchError
from bench.files import cache_root, write_atomic


def permutation_set(count: int, length: int = 9) -> Tensor:
    """`count` permutations of 0 ... `length` - 1, `[count, length]` int64, kept in the cache.

    Chosen as in "Solving Jigsaw Puzzles" (arXiv:1603.09246, algorithm 1) for the greatest average
    Hamming distance, by `farthest_permutations`; the same everywhere.

    Raises:
        BenchError: there are not as many permutations.
    """
    if not 2 <= count <= math.factorial(length):
        raise BenchError(
            f"{count} permutations of {length} patches cannot be had; ask for 2 to "
            f"{math.factorial(length)}"
        )
    path = cache_root() / "permutations" / f"{length}-{count}.safetensors"
    if path.exists():
        return load(path.read_bytes())["permutations"].long()
    chosen = farthest_permutations(count, length)
    data = save({"permutations": chosen.to(torch.uint8)})
    write_atomic(path, lambda file: file.write(data))
    return chosen


def farthest_permutations(count: int, length: int) -> Tensor:
    """Greedily chosen permutations `[count, length]` int64, the identity first.

    Each next one has the greatest average Hamming distance to those before; of equals the one that
    is farthest from its nearest, then the first in lexicographic order. So the first n of a set are
    the set of n.
    """
    numbers = itertools.chain.from_iterable(itertools.permutations(range(length)))
    every = torch.frombuffer(bytearray(numbers), dtype=torch.uint8).view(-1, length).T.contiguous()
    total = torch.zeros(every.shape[1], dtype=torch.int32)  # places shared with all those chosen
    most = torch.zeros_like(total, dtype=torch.uint8)  # ... and with the nearest of them
    chosen: list[int] = []
    for _ in range(count):
        # One number orders by the total, then by the nearest; argmin gives the first of equals.
        chosen.append(int((total * (length + 1) + most).argmin()))
        shared = (every == every[:, chosen[-1:]]).sum(0, dtype=torch.uint8)
        total += shared
        torch.maximum(most, shared, out=most)
        # Out of the race: its key is now above that of any other.
        total[chosen[-1]] += count * length + 1
    return every[:, chosen].T.long().contiguous()
