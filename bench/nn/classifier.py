"""An encoder with the classifier that its method trained: what supervised methods leave behind."""

from __future__ import annotations

from torch import Tensor, nn

from bench.api import Classifier, Encoder


class WithHead(Classifier):
    """An encoder and a head on its representation; both are shared, not copied.

    All but `classify` is the encoder's own, so that probes see the same with and without the head.

    Args:
        network: gives the representation `[B, dim]`.
        head: turns it into logits `[B, C]`.
    """

    def __init__(self, network: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network, head
        self.dim, self.layers = network.dim, network.layers

    def forward(self, x: Tensor) -> Tensor:
        """The network's representation, `[B, dim]`."""
        out: Tensor = self.network(x)
        return out

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The network's maps."""
        return self.network.maps(x)

    def tap(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Both, in one pass where the network has one."""
        return self.network.tap(x)

    def classify(self, x: Tensor) -> Tensor:
        """The head's logits, `[B, C]`."""
        out: Tensor = self.head(self.network(x))
        return out
