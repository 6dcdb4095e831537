"""iBOT's cross-entropy on masked patches (arXiv:2111.07832)."""

from __future__ import annotations

from torch import Tensor

from bench.kernels import dispatch
from bench.kernels.ibot import reference
from bench.kernels.teacher import Teacher, require

# Student logits from which `auto` takes the kernel. Provisional: to be set where `bench profile
# losses` finds the two level on a GPU.
FROM_LOGITS = 2**20


def ibot(
    student: Tensor,
    teacher: Teacher,
    weight: Tensor,
    temperature: float,
    index: Tensor | None = None,
) -> Tensor:
    """Sum over patches of w * -sum over k of p_teacher log softmax(student / t).

    Args:
        student: `[T, K]` logits of T patches.
        teacher: of R patches, `[R, K]`; no gradient flows into it.
        weight: `[T]`: 1 / (its picture's masked patches * pictures) where masked, else 0; no
            gradient flows into it.
        temperature: the student's, above 0.
        index: `[T]` which of the teacher's patches each patch has to agree with, in [0, R); by
            default the same, and R = T.

    Raises:
        BenchError: shapes that do not fit, or a temperature of 0.
    """
    count = (len(teacher.logits) if index is None else len(index),)
    fits = student.ndim == teacher.logits.ndim == 2 and student.shape[:1] == weight.shape == count
    require(fits, "ibot", student, teacher, temperature)
    if dispatch.triton("ibot", student, worth=student.numel() >= FROM_LOGITS):
        from bench.kernels.ibot.triton import ibot as fused

        return fused(student, teacher, weight, temperature, index)
    return reference.ibot(student, teacher, weight, temperature, index)
