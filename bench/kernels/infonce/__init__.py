"""InfoNCE within a batch: CLIP's symmetric loss (arXiv:2103.00020), MoCo v3's one-sided one."""

from __future__ import annotations

from torch import Tensor

from bench.kernels import dispatch
from bench.kernels.infonce import reference
from bench.kernels.ranks import ALONE, Ranks

# Rows from which `auto` takes the kernel. Provisional: to be set where `bench profile losses`
# finds the two level on a GPU.
FROM_ROWS = 2048


def infonce(
    one: Tensor,
    two: Tensor,
    scale: float | Tensor,
    *,
    symmetric: bool = True,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Each row of `one` must find its partner among the rows of `two`; by default also back.

    mean over i of -log(exp(s cos(i, i')) / sum over j' of exp(s cos(i, j'))), `symmetric`: the
    mean of both directions.

    Args:
        one: `[N, D]` embeddings.
        two: `[N, D]` their partners, in the same order.
        scale: s, the inverse temperature; may carry a gradient.
        symmetric: whether `two` must find `one` as well.
        ranks: whose rows there are beside this process's.
    """
    worth = len(one) >= FROM_ROWS and one.shape[1] <= dispatch.LONGEST
    if dispatch.triton("infonce", one, worth=worth):
        from bench.kernels.infonce.triton import infonce as fused

        return fused(one, two, scale, symmetric, ranks)
    return reference.infonce(one, two, scale, symmetric=symmetric, ranks=ranks)
