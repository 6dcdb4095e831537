"""DINO's cross-entropy between views (arXiv:2104.14294)."""

from __future__ import annotations

from torch import Tensor

from bench.kernels import dispatch
from bench.kernels.dino import reference
from bench.kernels.teacher import Teacher, require

# Student logits from which `auto` takes the kernel. Provisional: to be set where `bench profile
# losses` finds the two level on a GPU.
FROM_LOGITS = 2**20


def dino(student: Tensor, teacher: Teacher, temperature: float) -> Tensor:
    """Mean over pairs of different views of -sum over k of p_teacher log softmax(student / t).

    Args:
        student: `[V, N, K]` logits of V views of N pictures; the first G are the teacher's views.
        teacher: of G of the views, `[G, N, K]`; no gradient flows into it.
        temperature: the student's, above 0.

    Raises:
        BenchError: shapes that do not fit, no pair of different views, or a temperature of 0.
    """
    shape, given = student.shape, teacher.logits.shape
    fits = student.ndim == len(given) == 3 and given[1] == shape[1] and 0 < given[0] <= shape[0] > 1
    require(fits, "dino", student, teacher, temperature)
    if dispatch.triton("dino", student, worth=student.numel() >= FROM_LOGITS):
        from bench.kernels.dino.triton import dino as fused

        return fused(student, teacher, temperature)
    return reference.dino(student, teacher, temperature)
