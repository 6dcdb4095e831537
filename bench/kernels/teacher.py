"""A teacher's soft targets as logits, a centre and a temperature: no probability is kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.errors import BenchError
from bench.kernels.precision import in_full


@dataclass(frozen=True)
class Teacher:
    """softmax((logits - center) / temperature); no gradient flows into any of it.

    A balanced (Sinkhorn) teacher is one too: the last step of Sinkhorn's iteration is this softmax,
    with the centre that `bench.kernels.sinkhorn_center` gives.

    Attributes:
        logits: `[G, N, K]` of G views, or `[T, K]`.
        temperature: above 0.
        center: `[K]`, `[G, K]` with one for each view, or None for 0.
    """

    logits: Tensor
    temperature: float = 1.0
    center: Tensor | None = None

    @classmethod
    def of(cls, probabilities: Tensor) -> Teacher:
        """A teacher whose `probabilities` `[..., K]` are known."""
        return cls(probabilities.detach().log())

    def probabilities(self) -> Tensor:
        """The targets `[..., K]` themselves, in float32 at least."""
        return _centred_softmax(self.logits.detach(), self.temperature, self.center)

    def view(self, number: int) -> Teacher:
        """The teacher `[N, K]` of one of the G views."""
        center = self.center
        if center is not None and center.ndim > 1:
            center = center[number]
        return Teacher(self.logits[number], self.temperature, center)

    def rows(self, count: int) -> Teacher:
        """The teacher of the first `count` of N or T rows."""
        return Teacher(self.logits[..., :count, :], self.temperature, self.center)


@in_full
@torch.no_grad()
def _centred_softmax(logits: Tensor, temperature: float, center: Tensor | None) -> Tensor:
    if center is not None:
        logits = logits - center.unsqueeze(-2)
    return F.softmax(logits / temperature, dim=-1)


def require(fits: bool, op: str, student: Tensor, teacher: Teacher, temperature: float) -> None:
    """Refuse what no loss is defined for.

    Raises:
        BenchError: shapes that do not fit, that of the centre too, or temperatures not above 0.
    """
    shape = teacher.logits.shape
    if not fits or student.shape[-1] != shape[-1]:
        shapes = f"{tuple(student.shape)} and {tuple(shape)}"
        raise BenchError(
            f"{op}: logits {shapes} of student and teacher do not fit; see the shapes in its help"
        )
    views = teacher.logits.shape[:-2]
    center = teacher.center
    if center is not None and center.shape not in {shape[-1:], (*views, *shape[-1:])}:
        raise BenchError(f"{op}: a centre of {tuple(center.shape)} for logits of {tuple(shape)}")
    if min(temperature, teacher.temperature) <= 0:
        raise BenchError(f"{op}: temperatures must be above 0")
