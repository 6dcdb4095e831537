"""What a trained network says of every picture of a split, in one pass without gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.api import EvalSplit

BATCH = 256  # pictures at once


@torch.no_grad()
def predict(split: EvalSplit, network: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Outputs `[N, ...]`, float32, and labels `[N]` of the pictures that can be decoded, in order.

    Args:
        split: labelled pictures, rendered by the plain evaluation transform.
        network: pictures `[b, 3, s, s]` to outputs `[b, ...]`; in eval mode, on the split's device.
    """
    order = torch.arange(len(split.split)).split(BATCH)
    seen = [(index, network(x).float()) for index, x in split.batches(order)]
    index, outputs = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert split.split.labels is not None
    return outputs, split.split.labels.to(index.device)[index]
