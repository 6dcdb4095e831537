"""The exponential moving average of a network's weights, of one implementation.

There is no Triton kernel, since there is nothing for one to save: lerp reads target and source and
writes target, the least that an update can move, and `_foreach` does so for many tensors a launch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from bench.kernels import dispatch


@torch.no_grad()
def ema_update(targets: Iterable[Tensor], sources: Iterable[Tensor], momentum: float) -> None:
    """Target <- momentum * target + (1 - momentum) * source, in place, pair by pair."""
    dispatch.note("ema_update", "foreach")
    torch._foreach_lerp_(list(targets), list(sources), 1 - momentum)
