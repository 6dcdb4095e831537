"""From a code vector back to a picture."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

START = 4  # px: the side at which a code becomes a map
WIDEST = 256  # channels


class Decoder(nn.Module):
    """Codes `[B, dim]` to pictures `[B, channels, size, size]`, unbounded values.

    A linear layer makes a map of about 4 x 4, and every step doubles it: nearest-neighbour
    upsampling, then a 3 x 3 convolution, which leaves no checkerboard as strided transposed
    convolutions do (Odena 2016, doi:10.23915/distill.00003), batch norm and ReLU. The last
    doubling is a sub-pixel convolution (arXiv:1609.05158): at full size the work would be fourfold.

    Args:
        dim: values of a code.
        size: side of the pictures, pixels.
        channels: of the pictures.
        width: channels of the last hidden map; each map before has twice as many, at most 256.
    """

    def __init__(self, dim: int, size: int, channels: int = 3, width: int = 32) -> None:
        super().__init__()
        self.size = size
        doublings = max(round(math.log2(size / START)), 1)
        self.side = math.ceil(size / 2**doublings)
        widths = [min(width * 2**i, WIDEST) for i in range(doublings)][::-1]
        self.first = nn.Linear(dim, widths[0] * self.side**2)
        self.norm = nn.BatchNorm2d(widths[0])
        steps: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            steps += [nn.Upsample(scale_factor=2), conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.steps = nn.Sequential(*steps)
        pixels = nn.Conv2d(widths[-1], 4 * channels, 3, padding=1)
        self.last = nn.Sequential(pixels, nn.PixelShuffle(2))

    def forward(self, code: Tensor) -> Tensor:
        """Pictures `[B, channels, size, size]`."""
        x = self.first(code).unflatten(1, (-1, self.side, self.side))
        x = self.steps(nn.functional.relu(self.norm(x)))
        out: Tensor = self.last(x)[..., : self.size, : self.size]
        return out
