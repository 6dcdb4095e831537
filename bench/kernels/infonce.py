"""InfoNCE within a batch: CLIP's symmetric loss (arXiv:2103.00020), MoCo v3's one-sided one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full


@in_full
def infonce(one: Tensor, two: Tensor, scale: float | Tensor, *, symmetric: bool = True) -> Tensor:
    """Each row of `one` must find its partner among the rows of `two`; by default also back.

    mean over i of -log(exp(s cos(i, i')) / sum over j' of exp(s cos(i, j'))), `symmetric`: the
    mean of both directions.

    Args:
        one: `[N, D]` embeddings.
        two: `[N, D]` their partners, in the same order.
        scale: s, the inverse temperature; may carry a gradient.
        symmetric: whether `two` must find `one` as well.
    """
    logits = F.normalize(one, dim=1) @ F.normalize(two, dim=1).T * scale
    target = torch.arange(len(logits), device=logits.device)
    loss: Tensor = F.cross_entropy(logits, target)
    return (loss + F.cross_entropy(logits.T, target)) / 2 if symmetric else loss
