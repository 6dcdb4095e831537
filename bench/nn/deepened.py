"""An encoder with one more layer than the backbone has."""

from __future__ import annotations

from torch import Tensor, nn

from bench.api import Encoder


class Deepened(Encoder):
    """A backbone with a further layer on top; the maps are the backbone's.

    Args:
        backbone: gives `[B, D]`.
        layer: from that to `[B, dim]`.
        dim: the layer's width.
    """

    def __init__(self, backbone: Encoder, layer: nn.Module, dim: int) -> None:
        super().__init__()
        self.backbone, self.layer = backbone, layer
        self.dim, self.layers = dim, backbone.layers

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, `[B, dim]`."""
        out: Tensor = self.layer(self.backbone(x))
        return out

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The backbone's maps."""
        return self.backbone.maps(x)

    def tap(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Both in one pass."""
        features, maps = self.backbone.tap(x)
        return self.layer(features), maps
