"""Prototype heads of the self-distillation family: logits over K learnt directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Step
from bench.kernels import Teacher
from bench.nn import memory


class PrototypeHead(nn.Module):
    """DINO's head (arXiv:2104.14294, main_dino.py): MLP with GELU, unit vectors, cosines.

    Args:
        dim: of the input.
        prototypes: K.
        hidden: of the two hidden layers.
        bottleneck: of the unit vectors that are compared with the prototypes.
    """

    def __init__(self, dim: int, prototypes: int, hidden: int = 2048, bottleneck: int = 256):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        # Weight norm with the gain fixed at 1: only the direction of a prototype is learnt.
        bound = bottleneck**-0.5
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """`[..., dim]` -> cosines `[..., K]`."""
        unit = F.normalize(self.mlp(x), dim=-1)
        out: Tensor = F.linear(unit, F.normalize(self.prototypes, dim=1))
        return out


class Center(nn.Module):
    """The moving mean of the teacher's logits, taken off before its softmax (DINO).

    Args:
        prototypes: K.
        momentum: 0.9 in the paper.
    """

    mean: Tensor  # [K]

    def __init__(self, prototypes: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(prototypes))

    @torch.no_grad()
    def teacher(self, logits: Tensor, temperature: float) -> Teacher:
        """Targets softmax((logits - mean) / temperature); the mean moves towards `logits` after.

        Args:
            logits: `[..., K]`, in which no gradient flows.
            temperature: above 0.
        """
        teacher = Teacher(logits.detach(), temperature, self.mean.clone())
        mean = logits.flatten(0, -2).mean(0, dtype=self.mean.dtype)
        self.mean.lerp_(mean, 1 - self.momentum)
        return teacher


@torch.no_grad()
def watch_targets(step: Step, teacher: Teacher, student: Tensor, temperature: float) -> None:
    """Log what `Step.watch_targets` tells of the first rows, whose probabilities are made for it.

    Args:
        step: that logs.
        teacher: of `[N, K]` logits.
        student: `[N, K]` logits for the same pictures.
        temperature: the student's.
    """
    rows = memory.watched(student.shape[1])
    logs = (student[:rows].detach().float() / temperature).log_softmax(1)
    step.watch_targets(teacher.rows(rows).probabilities(), logs)


def cancel_gradients(head: PrototypeHead) -> None:
    """Leave the prototypes as they are in this step (DINO's frozen last layer)."""
    prototypes: Any = head.prototypes
    prototypes.grad = None
