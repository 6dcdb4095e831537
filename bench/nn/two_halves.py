"""Two networks of half the width, each with its own channels of a colour space."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from bench.api import Backbone, DataInfo
from bench.data.color import rgb_to_lab, rgb_to_ycbcr
from bench.nn import channels

ColorSpace = Literal["lab", "ycbcr", "r_gb"]

CBCR_STD = 0.08  # of photographs, about, as the constants of `bench.nn.channels`


def color_pair(rgb: Tensor, space: ColorSpace) -> tuple[Tensor, Tensor]:
    """A colour space's first channel, three times, and its two others with a channel of zeros.

    Networks that take RGB take either as it is; both are standardised.

    Args:
        rgb: `[B, 3, H, W]` in [0, 1].
        space: "lab": L and ab; "ycbcr": Y and CbCr, which is the Y and DbDr of papers up to scale;
            "r_gb": red, and green and blue.
    """
    if space == "lab":
        lab = rgb_to_lab(rgb)
        return channels.lightness_input(lab), channels.chroma_input(lab)
    x = rgb_to_ycbcr(rgb) if space == "ycbcr" else rgb
    one = (x[:, :1] - channels.INTENSITY_MEAN) / channels.INTENSITY_STD
    two = (x[:, 1:] - 0.5) / (CBCR_STD if space == "ycbcr" else channels.INTENSITY_STD)
    return one.expand(-1, 3, -1, -1), torch.cat([two, torch.zeros_like(one)], 1)


class TwoHalves(Backbone):
    """Normalised RGB to both halves' features side by side, neither half seeing the other's part.

    `half_l` sees a colour space's first channel, `half_ab` the two others.

    Args:
        whole: the backbone whose halves are made; its own weights are not used.
        data: what the pictures are normalised by.
        space: of the pairs of `color_pair`.

    Raises:
        BenchError: there is no backbone of this kind of half the width.
    """

    def __init__(self, whole: Backbone, data: DataInfo, space: ColorSpace = "lab") -> None:
        super().__init__()
        self.half_l, self.half_ab = whole.half(), whole.half()
        self.data, self.space = data, space
        self.dim = self.half_l.dim + self.half_ab.dim
        self.layers = self.half_l.layers
        self.notes = whole.notes

    def forward(self, x: Tensor) -> Tensor:
        """`[B, dim]`: first the channels of `half_l`, then those of `half_ab`."""
        return self.tap(x)[0]

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The whole backbone's layers, with the channels of both halves."""
        return self.tap(x)[1]

    def tap(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Both in one pass."""
        seen_by_l, seen_by_ab = color_pair(self.data.rgb(x), self.space)
        one, one_maps = self.half_l.tap(seen_by_l)
        other, other_maps = self.half_ab.tap(seen_by_ab)
        both = {layer: torch.cat([one_maps[layer], other_maps[layer]], 1) for layer in self.layers}
        return torch.cat([one, other], 1), both
