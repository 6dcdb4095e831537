"""iBOT's cross-entropy on masked patches (arXiv:2111.07832)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full


@in_full
def ibot(student: Tensor, teacher: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Sum over patches of w * -sum over k of p_teacher log softmax(student / t).

    Args:
        student: `[T, K]` logits of T patches.
        teacher: `[T, K]` probabilities of the same patches; no gradient flows into them.
        weight: `[T]`: 1 / (its picture's masked patches * pictures) where masked, else 0.
        temperature: the student's.
    """
    logs = F.log_softmax(student / temperature, dim=-1)
    return -((teacher.detach() * logs).sum(-1) * weight).sum()
