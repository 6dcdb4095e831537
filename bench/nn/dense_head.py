"""Predictions for the places of a picture from all maps of a backbone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Encoder
from bench.errors import BenchError


class DenseHead(nn.Module):
    """Maps of any sizes to one grid `[B, outputs, side, side]`.

    Every map is brought to the grid (averaged, or enlarged bilinearly) and projected to `width`
    channels by a 1 x 1 convolution; their sum goes through batch norm, ReLU and a last 1 x 1
    convolution. That is a two-layer perceptron on hypercolumns (arXiv:1411.5752), which are never
    stored: a network without decoder of its own predicts at any stride for little work.

    Args:
        network: the network that gives the maps.
        size: side of its pictures, pixels.
        side: of the grid.
        outputs: values to predict in each place.
        width: hidden channels.

    Raises:
        BenchError: the network has no maps.
    """

    def __init__(
        self, network: Encoder, size: int, side: int, outputs: int, width: int = 128
    ) -> None:
        super().__init__()
        self.side = side
        projections = {
            layer: nn.Conv2d(channels, width, 1, bias=False)
            for layer, channels in map_channels(network, size).items()
        }
        self.projections = nn.ModuleDict(projections)
        self.norm = nn.BatchNorm2d(width)
        self.predict = nn.Conv2d(width, outputs, 1)

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Predictions `[B, outputs, side, side]` from the network's maps."""
        parts = [self._placed(maps[layer], conv) for layer, conv in self.projections.items()]
        hidden = F.relu(self.norm(torch.stack(parts).sum(0)))
        out: Tensor = self.predict(hidden)
        return out

    def _placed(self, x: Tensor, projection: nn.Module) -> Tensor:
        """A map, projected where that is less work: before it is enlarged, after it is averaged."""
        if min(x.shape[2:]) >= self.side:
            pooled: Tensor = projection(F.adaptive_avg_pool2d(x, self.side))
            return pooled
        return F.interpolate(projection(x), (self.side, self.side), mode="bilinear")


def map_channels(network: Encoder, size: int) -> dict[str, int]:
    """The channels of each map of `network` for pictures of `size` pixels.

    Raises:
        BenchError: it has no maps.
    """
    if not network.layers:
        raise BenchError(
            f"{type(network).__name__} gives no feature maps; choose a backbone that has "
            "some, such as small, alexnet, vgg16 or resnet18"
        )
    training = network.training
    with torch.no_grad():
        maps = network.eval().maps(torch.zeros(1, 3, size, size))
    network.train(training)
    return {layer: x.shape[1] for layer, x in maps.items()}
