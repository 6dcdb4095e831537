"""The exponential moving average of a network's weights, all in one launch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def ema_update(targets: Iterable[Tensor], sources: Iterable[Tensor], momentum: float) -> None:
    """Target <- momentum * target + (1 - momentum) * source, in place, pair by pair."""
    torch._foreach_lerp_(list(targets), list(sources), 1 - momentum)
