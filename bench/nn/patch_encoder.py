"""An encoder for networks that were trained on parts of pictures."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from bench.api import Encoder


class Cutter(Protocol):
    """What `PatchEncoder` asks of a module that cuts pictures, whatever its patches are."""

    def still(self, x: Tensor) -> tuple[Tensor, ...]:
        """A square grid of patches `[B, g * g, 3, s, s]` of `x` `[B, 3, H, W]`, per rendering."""


class PatchEncoder(Encoder):
    """A network that sees a picture patch by patch, as it was trained.

    Its representation is the mean over the patches, as Kolesnikov 2019 (arXiv:1901.09005) evaluates
    such networks; its maps are the patches' maps side by side, as the patches lie. Where patches
    are shown in several renderings, all of this is averaged over them.

    Args:
        cutter: cuts whole pictures as in training.
        network: the trained network.
    """

    def __init__(self, cutter: Cutter, network: Encoder) -> None:
        super().__init__()
        self.cutter, self.network = cutter, network
        self.dim, self.layers = network.dim, network.layers

    def forward(self, x: Tensor) -> Tensor:
        """The mean representation of all patches, `[B, dim]`."""
        return self.tap(x)[0]

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The maps of the patches, tiled: `[B, C, g * h, g * w]` for a grid of g x g patches."""
        return self.tap(x)[1]

    def tap(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Both; every patch passes through the network once."""
        renderings = self.cutter.still(x)
        outputs, mean = [], dict[str, Tensor]()
        for patches in renderings:
            out, maps = self.network.tap(patches.flatten(0, 1))
            outputs.append(out.unflatten(0, patches.shape[:2]).mean(1))
            for name, value in maps.items():
                share = tiled(value.unflatten(0, patches.shape[:2])) / len(renderings)
                mean[name] = mean[name] + share if name in mean else share
        return torch.stack(outputs).mean(0), mean


def tiled(patches: Tensor) -> Tensor:
    """A square grid of patches `[B, g * g, C, h, w]` side by side: `[B, C, g * h, g * w]`."""
    grid = math.isqrt(patches.shape[1])
    rows = patches.unflatten(1, (grid, grid)).permute(0, 3, 1, 4, 2, 5)
    out: Tensor = rows.flatten(4, 5).flatten(2, 3)
    return out
