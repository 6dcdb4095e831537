"""RotNet's Network in Network for 32 px pictures (arXiv 1803.07728; NIN: arXiv 1312.4400)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from bench.api import Backbone
from bench.backbones.width import scaled
from bench.errors import BenchError

WIDTH = 192
NARROW = (160, 96)  # channels after the first block's 1x1 convolutions
MIN_BLOCKS = 3


def block(kernel: int, *widths: int) -> list[nn.Module]:
    """A kernel x kernel convolution, then 1x1 ones, with batch norm and ReLU after each."""
    parts: list[nn.Module] = []
    for side, (inputs, outputs) in zip((kernel, 1, 1), pairwise(widths), strict=True):
        conv = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
        parts += [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return parts


class NIN(Backbone):
    """`blocks` blocks of three convolutions, then global average pooling to 192 values.

    Maps are taken after a block's pool, as the paper's code does: conv2 is 192 x 8 x 8 at 32 px.
    `pool_after_3` is that code's `use_avg_on_conv3`, off in its 4-block configuration. Weights
    keep PyTorch's default initialisation: the reference defines another, but never calls it.
    `width` multiplies the channels.
    """

    def __init__(
        self, size: int, blocks: int = 4, pool_after_3: bool = False, width: float = 1.0
    ) -> None:
        super().__init__()
        if blocks < MIN_BLOCKS:
            raise BenchError(f"a NIN has at least {MIN_BLOCKS} blocks, not {blocks}")
        self.make_half = partial(NIN, size, blocks, pool_after_3, width / 2)
        full, *narrow = scaled(width, WIDTH, *NARROW)
        self.dim = full
        self.layers = tuple(f"conv{i + 1}" for i in range(blocks))
        for layer in self.layers:
            if layer == "conv1":
                parts = [*block(5, 3, full, *narrow), nn.MaxPool2d(3, 2, 1)]
            elif layer == "conv2":
                parts = [*block(5, narrow[-1], full, full, full), nn.AvgPool2d(3, 2, 1)]
            else:
                parts = block(3, full, full, full, full)
            if layer == "conv3" and pool_after_3 and blocks > MIN_BLOCKS:
                parts.append(nn.AvgPool2d(3, 2, 1))
            self.add_module(layer, nn.Sequential(*parts))

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """Each block's output, after its ReLU and its pool."""
        out = {}
        for layer in self.layers:
            out[layer] = x = self.get_submodule(layer)(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """The last block averaged over space, `[B, 192]`."""
        return self.tap(x)[0]

    def tap(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Both in one pass: `forward` needs no more than the maps."""
        maps = self.maps(x)
        return maps[self.layers[-1]].mean(dim=(2, 3)), maps

    def half(self) -> NIN:
        """The same at half the width."""
        return self.make_half()
