"""Fully convolutional heads: the classes at every place, from a network's last maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Encoder
from bench.data.masks import VOID
from bench.errors import BenchError

Head = Literal["fcn32s", "fcn16s", "fcn8s", "dilated"]
MAPS: Mapping[Head, int] = {"fcn32s": 1, "fcn16s": 2, "fcn8s": 3, "dilated": 1}  # from the last


class FCNHead(nn.Module):
    """Scores from the last maps of a network, fused by sum (Long et al., arXiv:1411.4038).

    Each map has a score layer, a 1 x 1 convolution that starts at zero; scores of a deeper map are
    enlarged bilinearly to the map before it and added. The enlargement is fixed. Maps first go
    through a batch norm without parameters, as those of a frozen network may be of any scale (as
    before the linear probe of Zhang et al., arXiv:1603.08511).
    """

    def __init__(self, channels: Mapping[str, int], classes: int) -> None:
        """Score the maps named in `channels`, first to last, for so many classes."""
        super().__init__()
        self.norms = nn.ModuleDict()
        self.scores = nn.ModuleDict()
        for layer, width in reversed(list(channels.items())):
            self.norms[layer] = nn.BatchNorm2d(width, affine=False)
            self.scores[layer] = score = nn.Conv2d(width, classes, 1)
            nn.init.zeros_(score.weight)
            assert score.bias is not None
            nn.init.zeros_(score.bias)

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Scores `[B, C, h, w]` on the grid of the earliest of the maps."""
        fused: Tensor | None = None
        for layer, score in self.scores.items():
            own: Tensor = score(self.norms[layer](maps[layer]))
            fused = own if fused is None else F.interpolate(fused, own.shape[2:], mode="bilinear")
            fused = own if fused is own else fused + own
        assert fused is not None
        return fused


def last_maps(
    encoder: Encoder, size: int, count: int, device: torch.device | str = "cpu"
) -> dict[str, int]:
    """The channels of the last `count` maps, in the network's order; fewer where it has fewer.

    Maps of a single place are left out: they cannot say where something is.

    Args:
        encoder: the network, in eval mode.
        size: the side of its pictures, pixels.
        count: how many maps.
        device: where the network is.

    Raises:
        BenchError: there is no map, or the network cannot take pictures of that size.
    """
    name = type(encoder).__name__
    if not encoder.layers:
        raise BenchError(
            f"{name} gives no feature maps to segment by; choose a backbone that has some, "
            "such as small, alexnet or resnet18"
        )
    try:
        with torch.no_grad():
            maps = encoder.maps(torch.zeros(1, 3, size, size, device=device))
    except (AssertionError, RuntimeError, ValueError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise BenchError(
            f"{name} cannot take pictures of {size} px; set another protocol.size: {why}"
        ) from error
    found = {layer: x.shape[1] for layer, x in maps.items() if x.shape[2] * x.shape[3] > 1}
    if not found:
        raise BenchError(
            f"every map of {name} is a single place at {size} px; set a larger protocol.size"
        )
    return dict(list(found.items())[-count:])


def pixel_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """Mean softmax cross-entropy of the pixels that are not void.

    Args:
        scores: `[B, C, h, w]`, enlarged bilinearly to the masks.
        masks: `[B, H, W]` uint8, with a pixel in all that is not void.
    """
    full = F.interpolate(scores, masks.shape[1:], mode="bilinear")
    return F.cross_entropy(full, masks.long(), ignore_index=VOID)
