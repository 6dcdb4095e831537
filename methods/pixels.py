"""Raw pixels: the normalised picture itself, flattened; the floor that needs no network."""

from __future__ import annotations

from torch import Tensor

from bench.api import Encoder, Untrained


class Pixels(Untrained):
    """The backbone is not used."""

    def encoder(self) -> Encoder:
        """`[B, 3, s, s]` -> `[B, 3 * s * s]`."""
        return _Flatten(3 * self.data.size**2)


class _Flatten(Encoder):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)
