"""Cross-entropy of predicted colours to the soft labels of true ones (arXiv:1603.08511)."""

from __future__ import annotations

from torch import Tensor

from bench.kernels import dispatch
from bench.kernels.color_ce import reference
from bench.kernels.color_ce.reference import Bins

__all__ = ["Bins", "color_ce"]

# Logits from which `auto` takes the kernel. Provisional: to be set where `bench profile losses`
# finds the two level on a GPU.
FROM_LOGITS = 2**20


def color_ce(logits: Tensor, ab: Tensor, bins: Bins, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy to the soft labels of `ab`, averaged over all pixels of all pictures.

    A colour's label is shared out to its ten nearest bins by a Gaussian of the distance; of bins as
    near, the first counts as nearer. A pixel counts by the weight of its nearest bin; those of grey
    pictures count nothing.

    Args:
        logits: `[B, Q, h, w]`, in any order in memory.
        ab: true colours of sRGB `[B, 2, h, w]`, in full precision; no gradient flows into them.
        bins: the Q bins.
        weights: of the bins, `[Q]`, without gradient; None: all pixels count the same.
    """
    if dispatch.triton("color_ce", logits, worth=logits.numel() >= FROM_LOGITS):
        from bench.kernels.color_ce.triton import color_ce as fused

        return fused(logits, ab, bins, weights)
    return reference.color_ce(logits, ab, bins, weights)
