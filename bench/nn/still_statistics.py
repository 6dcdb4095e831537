"""A pass through a network that leaves no trace in the running statistics of its batch norms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def still_statistics(network: nn.Module) -> Iterator[None]:
    """Within, batch norms normalise as ever, in training by the batch, but remember nothing."""
    norms = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
