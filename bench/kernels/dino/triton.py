"""DINO's loss in Triton: each logit is read once forward and once backward."""

from __future__ import annotations

from torch import Tensor

from bench.kernels.soft_cross_entropy import soft_cross_entropy
from bench.kernels.teacher import Teacher


def dino(student: Tensor, teacher: Teacher, temperature: float) -> Tensor:
    """`bench.kernels.dino`; the gradient is in the type of the student's logits."""
    views, pictures, _ = student.shape
    pairs = len(teacher.logits) * (views - 1)
    return soft_cross_entropy(student, teacher, temperature, own=False) / (pairs * pictures)
