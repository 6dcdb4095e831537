"""DINO's cross-entropy between views (arXiv:2104.14294)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full


@in_full
def dino(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over pairs of different views of -sum over k of p_teacher log softmax(student / t).

    Args:
        student: `[V, N, K]` logits of V views of N pictures; the first G are the teacher's views.
        teacher: `[G, N, K]` probabilities, G of the views; no gradient flows into them.
        temperature: the student's.
    """
    shared = len(teacher)
    teacher, logs = teacher.detach(), F.log_softmax(student / temperature, dim=-1)
    # Over all pairs the sum factors; pairs of a view with itself are taken off again.
    every = (teacher.sum(0) * logs.sum(0)).sum()
    same = (teacher * logs[:shared]).sum()
    pairs = len(teacher) * len(student) - shared
    return (same - every) / (pairs * student.shape[1])
