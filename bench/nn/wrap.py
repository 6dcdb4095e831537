"""Encoders for methods that see something else than whole RGB pictures."""

from __future__ import annotations

from torch import Tensor, nn

from bench.api import Encoder


class Rewired(Encoder):
    """An encoder behind a fixed change of its input, such as RGB to lightness.

    Args:
        inputs: turns normalised RGB `[B, 3, H, W]` into what the network was trained on.
        network: the trained network.
    """

    def __init__(self, inputs: nn.Module, network: Encoder) -> None:
        super().__init__()
        self.inputs, self.network = inputs, network
        self.dim, self.layers = network.dim, network.layers

    def forward(self, x: Tensor) -> Tensor:
        """The network's representation of the changed pictures, `[B, dim]`."""
        out: Tensor = self.network(self.inputs(x))
        return out

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The network's maps of the changed pictures."""
        return self.network.maps(self.inputs(x))

    def tap(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Both; pictures are changed once."""
        return self.network.tap(self.inputs(x))
