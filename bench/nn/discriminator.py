"""The judge of adversarial methods: is this picture real?"""

from __future__ import annotations

from torch import Tensor, nn

END = 4  # px: the side at which convolutions stop halving
WIDEST = 512  # channels
SLOPE = 0.2  # of the leaky ReLU below zero


class Discriminator(nn.Module):
    """Pictures `[B, channels, size, size]` to logits `[B]`, as in DCGAN (arXiv:1511.06434).

    4 x 4 convolutions of stride 2 with leaky ReLU, batch norm on all but the first, until the map
    is 4 x 4 or smaller; then one linear layer.

    Args:
        size: side of the pictures, pixels.
        channels: of the pictures.
        width: channels of the first map; each further one has twice as many, at most 512.
    """

    def __init__(self, size: int, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        inputs, outputs, side = channels, width, size
        while side > END:
            first = not steps
            steps.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=first))
            steps += [] if first else [nn.BatchNorm2d(outputs)]
            steps.append(nn.LeakyReLU(SLOPE))
            inputs, outputs, side = outputs, min(2 * outputs, WIDEST), side // 2
        self.features = nn.Sequential(*steps)
        self.dim = inputs * side**2  # values that the linear layer sees
        self.head = nn.Linear(self.dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B]`: above zero means real."""
        out: Tensor = self.head(self.features(x).flatten(1)).squeeze(1)
        return out
