"""Momentum networks: a copy that follows a trained network as its moving average."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

from torch import nn

from bench.kernels import ema_update

M = TypeVar("M", bound=nn.Module)


def momentum_copy(network: M) -> M:
    """A copy of `network` without gradients; BatchNorms keep statistics of their own."""
    return copy.deepcopy(network).requires_grad_(False)


def follow(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """Move `target`'s parameters to momentum * target + (1 - momentum) * source's."""
    ema_update(target.parameters(), source.parameters(), momentum)


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` at progress 0 to `end` at 1 along half a cosine (BYOL, arXiv:2006.07733)."""
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
