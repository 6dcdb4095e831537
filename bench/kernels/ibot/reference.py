"""iBOT's loss in plain torch, with all probabilities and log-probabilities in memory."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from bench.kernels.precision import in_full
from bench.kernels.teacher import Teacher


@in_full
def ibot(
    student: Tensor, teacher: Teacher, weight: Tensor, temperature: float, index: Tensor | None
) -> Tensor:
    """`bench.kernels.ibot`, formula by formula."""
    if index is not None and len(index) < len(teacher.logits):  # fewer softmaxes
        teacher = Teacher(teacher.logits[index], teacher.temperature, teacher.center)
        index = None
    targets, logs = teacher.probabilities(), F.log_softmax(student / temperature, dim=-1)
    if index is not None:
        targets = targets[index]
    return -((targets * logs).sum(-1) * weight.detach()).sum()
