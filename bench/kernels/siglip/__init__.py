"""SigLIP: each pair of picture and text is a yes or no of its own (arXiv:2303.15343)."""

from __future__ import annotations

from torch import Tensor

from bench.kernels import dispatch
from bench.kernels.ranks import ALONE, Ranks
from bench.kernels.siglip import reference

# Rows from which `auto` takes the kernel. Provisional: to be set where `bench profile losses`
# finds the two level on a GPU.
FROM_ROWS = 2048


def siglip(
    one: Tensor,
    two: Tensor,
    scale: float | Tensor,
    bias: float | Tensor,
    ranks: Ranks = ALONE,
) -> Tensor:
    """-1/N sum over i, j of log sigmoid(z_ij (s cos(i, j) + b)), z = 1 for partners, else -1.

    Args:
        one: `[N, D]` embeddings.
        two: `[N, D]` their partners, in the same order.
        scale: s, the inverse temperature; may carry a gradient.
        bias: b; may carry a gradient.
        ranks: whose rows there are beside this process's.
    """
    worth = len(one) >= FROM_ROWS and one.shape[1] <= dispatch.LONGEST
    if dispatch.triton("siglip", one, worth=worth):
        from bench.kernels.siglip.triton import siglip as fused

        return fused(one, two, scale, bias, ranks)
    return reference.siglip(one, two, scale, bias, ranks)
