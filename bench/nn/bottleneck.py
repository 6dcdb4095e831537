"""From a backbone's last map to the code vector of an autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.api import Backbone

SIDE = 4  # cells: larger maps are averaged to this side, or the layer would outgrow the backbone


class Bottleneck(nn.Module):
    """A linear layer from a backbone's last map to a code.

    It sees where things are, as a reconstruction needs; the pooled output would not say.

    Args:
        backbone: whose last map it takes; read for its shape only, and not kept.
        size: side of the pictures, pixels.
        dim: values of a code.
    """

    def __init__(self, backbone: Backbone, size: int, dim: int) -> None:
        super().__init__()
        was_training = backbone.training
        with torch.no_grad():
            shape = last_map(backbone.eval(), torch.zeros(1, 3, size, size)).shape
        backbone.train(was_training)
        self.pool = nn.AdaptiveAvgPool2d((min(shape[2], SIDE), min(shape[3], SIDE)))
        self.linear = nn.Linear(self.pool(torch.zeros(shape)).numel(), dim)

    def forward(self, x: Tensor) -> Tensor:
        """Codes `[B, dim]`, unbounded, of last maps `[B, C, h, w]`."""
        code: Tensor = self.linear(self.pool(x).flatten(1))
        return code


def last_map(backbone: Backbone, x: Tensor) -> Tensor:
    """The backbone's last map `[B, C, h, w]`; its pooled output as a 1 x 1 map if it has none."""
    if not backbone.layers:
        pooled: Tensor = backbone(x)
        return pooled[:, :, None, None]
    return backbone.maps(x)[backbone.layers[-1]]


def between(one: Tensor, other: Tensor, count: int) -> Tensor:
    """`count` codes `[count, dim]` on the straight line from code `one` `[dim]` to `other`."""
    return torch.lerp(one, other, torch.linspace(0, 1, count, device=one.device)[:, None])
