"""NT-Xent: the normalised temperature-scaled cross-entropy of SimCLR (arXiv:2002.05709)."""

from __future__ import annotations

from torch import Tensor

from bench.kernels import dispatch
from bench.kernels.ntxent import reference
from bench.kernels.ranks import ALONE, Ranks

# Views from which `auto` takes the kernel. Provisional: to be set where `bench profile losses`
# finds the two level on a GPU.
FROM_VIEWS = 2048


def ntxent(one: Tensor, two: Tensor, temperature: float | Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Each of 2N views must find the other view of its picture among the 2N - 1 others.

    mean over i of -log(exp(cos(i, pair) / t) / sum over j != i of exp(cos(i, j) / t)).

    Args:
        one: `[N, D]` embeddings of the pictures' first views.
        two: `[N, D]` of their second views, in the same order.
        temperature: above 0; may carry a gradient.
        ranks: whose views there are beside this process's.
    """
    worth = 2 * len(one) >= FROM_VIEWS and one.shape[1] <= dispatch.LONGEST
    if dispatch.triton("ntxent", one, worth=worth):
        from bench.kernels.ntxent.triton import ntxent as fused

        return fused(one, two, temperature, ranks)
    return reference.ntxent(one, two, temperature, ranks)
