"""Colour as histograms of hue and chroma, and back (Larsson 2016, arXiv:1603.06668)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.data.color import rgb_to_hsv

FADE = 0.03  # the paper's eta: where hues disagree more than this, the picture loses its colour


def hue_and_chroma(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Hue in [0, 1) turns and chroma (saturation x value) in [0, 1], `[B, H, W]` each."""
    hue, saturation, value = rgb_to_hsv(rgb).unbind(1)
    return hue, saturation * value


def bin_of(x: Tensor, bins: int) -> Tensor:
    """Which of `bins` equal parts of [0, 1] each value lies in."""
    return (x * bins).long().clamp(0, bins - 1)


def local_histogram(x: Tensor, rows: Tensor, cols: Tensor, bins: int, window: int) -> Tensor:
    """Shares of the values of `x` `[B, H, W]` in a square around each pixel, `[B, P, bins]`.

    Squares that reach over the border repeat its pixels.
    """
    height, width = x.shape[1:]
    offset = torch.arange(window, device=x.device) - window // 2
    row = (rows[:, :, None, None] + offset[:, None]).clamp(0, height - 1)
    col = (cols[:, :, None, None] + offset).clamp(0, width - 1)
    at = (row * width + col).flatten(1)
    index = bin_of(x.flatten(1).gather(1, at), bins).unflatten(1, (rows.shape[1], -1))
    counts = x.new_zeros(*rows.shape, bins)
    return counts.scatter_add(2, index, torch.ones_like(index, dtype=x.dtype)) / window**2


def decode(hue: Tensor, chroma: Tensor) -> Tensor:
    """Colours `[B, 3, P]` with darkest channel 0 from histograms `[B, P, bins]`.

    Hue is the direction of the mean on the colour circle, chroma the median; where hues disagree
    (a mean shorter than FADE) chroma fades, lest the picture is spotted.
    """
    middle = (torch.arange(hue.shape[-1], device=hue.device) + 0.5) / hue.shape[-1]
    x, y = ((hue * f(2 * math.pi * middle)).sum(-1) for f in (torch.cos, torch.sin))
    turn = torch.atan2(y, x) / (2 * math.pi)
    median = middle[(chroma.cumsum(-1) < 0.5).sum(-1).clamp(max=len(middle) - 1)]
    faded = median * (torch.hypot(x, y) / FADE).clamp(max=1)
    apart = [((turn - third / 3 + 0.5).remainder(1) - 0.5).abs() * 6 for third in range(3)]
    return faded[:, None] * torch.stack([(2 - d).clamp(0, 1) for d in apart], 1)
