"""DINO's loss in plain torch, with all probabilities and log-probabilities in memory."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full
from bench.kernels.teacher import Teacher


@in_full
def dino(student: Tensor, teacher: Teacher, temperature: float) -> Tensor:
    """`bench.kernels.dino`, formula by formula."""
    targets, logs = teacher.probabilities(), F.log_softmax(student / temperature, dim=-1)
    shared = len(targets)
    # Over all pairs the sum factors; pairs of a view with itself are taken off again.
    every = (targets.sum(0) * logs.sum(0)).sum()
    same = (targets * logs[:shared]).sum()
    pairs = shared * (len(student) - 1)
    return (same - every) / (pairs * student.shape[1])
