"""Networks' inputs from parts of a picture's colour space: lightness alone, or colour alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.api import DataInfo
from bench.data.color import lab_to_rgb, rgb_to_lab

# Of photographs, about, in round numbers.
LIGHTNESS_MEAN, LIGHTNESS_STD, AB_STD = 50.0, 25.0, 20.0  # CIE Lab
INTENSITY_MEAN, INTENSITY_STD = 0.5, 0.25  # RGB in [0, 1]


class Lightness(nn.Module):
    """Normalised RGB `[B, 3, H, W]` to CIE lightness, standardised, as three equal channels."""

    def __init__(self, data: DataInfo) -> None:
        super().__init__()
        self.data = data

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 3, H, W]`, all channels the same."""
        return lightness_input(rgb_to_lab(self.data.rgb(x)))


class Intensity(nn.Module):
    """Normalised RGB `[B, 3, H, W]` to the mean of R, G and B, standardised, three times."""

    def __init__(self, data: DataInfo) -> None:
        super().__init__()
        self.data = data

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 3, H, W]`, all channels the same."""
        return intensity_input(self.data.rgb(x))


def lightness_input(lab: Tensor) -> Tensor:
    """The lightness of `lab` `[B, 3, H, W]` as a network sees it, `[B, 3, H, W]`."""
    return ((lab[:, :1] - LIGHTNESS_MEAN) / LIGHTNESS_STD).expand(-1, 3, -1, -1)


def intensity_input(rgb: Tensor) -> Tensor:
    """The mean of R, G and B of `rgb` `[B, 3, H, W]` as a network sees it, `[B, 3, H, W]`."""
    mean = (rgb.mean(1, keepdim=True) - INTENSITY_MEAN) / INTENSITY_STD
    return mean.expand(-1, 3, -1, -1)


def chroma_input(lab: Tensor) -> Tensor:
    """The colour of `lab` `[B, 3, H, W]` as a network sees it, `[B, 3, H, W]`."""
    ab = lab[:, 1:] / AB_STD
    return torch.cat([ab, torch.zeros_like(ab[:, :1])], 1)


def on_grid(x: Tensor, side: int) -> Tensor:
    """Every so many-th pixel of `x` `[B, C, H, W]`, `[B, C, side, side]`: colours are not mixed."""
    return nn.functional.interpolate(x, (side, side), mode="nearest-exact")


def rmse(guess: Tensor, truth: Tensor) -> Tensor:
    """Root of the mean squared distance of colours `[B, C, h, w]`."""
    return (guess.float() - truth).square().sum(1).mean().sqrt()


def colorized(lightness: Tensor, ab: Tensor) -> Tensor:
    """RGB in [0, 1] of a lightness `[B, 1, H, W]` and colours `[B, 2, h, w]`, enlarged to it."""
    ab = nn.functional.interpolate(ab, lightness.shape[2:], mode="bilinear")
    return lab_to_rgb(torch.cat([lightness, ab], 1))
