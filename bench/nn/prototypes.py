"""Prototype heads of the self-distillation family: logits over K learnt directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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

    def probabilities(self, logits: Tensor, temperature: float) -> Tensor:
        """softmax((logits - mean) / temperature) of `[..., K]`, without gradient.

        In the mean's precision, float32, whatever that of the logits.
        """
        centred = logits.detach().to(self.mean.dtype) - self.mean
        return F.softmax(centred / temperature, dim=-1)

    @torch.no_grad()
    def update(self, logits: Tensor) -> None:
        """Move the mean towards that of `logits` `[..., K]`."""
        mean = logits.to(self.mean.dtype).flatten(0, -2).mean(0)
        self.mean.lerp_(mean, 1 - self.momentum)


def cancel_gradients(head: PrototypeHead) -> None:
    """Leave the prototypes as they are in this step (DINO's frozen last layer)."""
    prototypes: Any = head.prototypes
    prototypes.grad = None
