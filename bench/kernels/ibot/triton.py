"""iBOT's loss in Triton: DINO's with one view, which has itself for target, and weights."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.kernels.soft_cross_entropy import soft_cross_entropy
from bench.kernels.teacher import Teacher


def ibot(
    student: Tensor, teacher: Teacher, weight: Tensor, temperature: float, index: Tensor | None
) -> Tensor:
    """`bench.kernels.ibot`; rows whose weight is 0 are not read."""
    if index is not None:  # the kernel would read whatever is there
        inside = (index >= 0) & (index < len(teacher.logits))
        torch._assert_async(inside.all(), "ibot: index beyond the teacher's rows")
    only = Teacher(teacher.logits[None], teacher.temperature, teacher.center)
    return soft_cross_entropy(student[None], only, temperature, weight=weight, index=index)
