"""The nearest rows of a bank by cosine, with one answer where there are equals."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.kernels import dispatch
from bench.kernels.knn_topk import reference
from bench.kernels.knn_topk.keys import from_sort_keys

# Similarities from which `auto` takes the kernel. Provisional: to be set where `bench profile
# losses` finds the two level on a GPU.
FROM_SIMILARITIES = 2**26
MOST = 256  # neighbours that the kernel finds: it has lists of twice as many in registers


@torch.no_grad()
def knn_topk(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` rows of `bank` most similar to each query; of equals, the earlier rows first.

    Memory does not grow with the bank, unless the kernel has to copy it: as float32 where it is in
    float64 or its type is not the queries'. Beyond `MOST` neighbours there is the reference alone.

    Args:
        queries: `[N, D]` rows of unit norm (or zero), finite, in float32 or half precision.
        bank: `[M, D]` likewise, with M >= k.
        k: how many to find.

    Returns:
        Cosine similarities in float32, greatest first, and positions in the bank, `[N, k]` each.

    Raises:
        BenchError: the bank has fewer than `k` rows, or the kernel was asked for beyond `MOST`.
    """
    if k > len(bank):
        raise BenchError(f"knn_topk: k={k}, but the bank has {len(bank)} rows; use a smaller k")
    large = len(queries) * len(bank) >= FROM_SIMILARITIES
    if dispatch.triton("knn_topk", bank, worth=large and k <= MOST):
        if k > MOST:
            raise BenchError(
                f"kernels=triton, op knn_topk: k={k}, above {MOST}; use auto or reference"
            )
        from bench.kernels.knn_topk.triton import nearest_keys

        return from_sort_keys(nearest_keys(queries, bank, k, dispatch.products()))
    return from_sort_keys(reference.nearest_keys(queries, bank, k))
