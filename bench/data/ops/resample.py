"""Crop, resize and flip in one resampling, by two banded matrices per picture.

Bilinear resampling is separable: out = rows @ x @ cols^T. Building the matrices per picture lets
every picture have its own window while the work stays two batched matrix products, on any device.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Border = Literal["zero", "reflect"]


def resample(
    x: Tensor,
    window: tuple[Tensor, Tensor, Tensor, Tensor],
    size: tuple[int, int],
    *,
    flip: Tensor | None = None,
    padding: int = 0,
    border: Border = "zero",
) -> Tensor:
    """Each picture's window, resized bilinearly to `size`; antialiased where it shrinks.

    Args:
        x: pictures `[n, c, h, w]`, float, or uint8 in 0..255 that come out in [0, 1].
        window: (top, left, height, width), each `[n]`, pixels; fractions of a pixel are allowed.
        size: (height, width) of the result, pixels.
        flip: `[n]` bool, which results to mirror left to right.
        padding: pixels around the picture that a window may reach into.
        border: what the padding holds: zeros, or the picture mirrored about its edge pixels.

    Returns:
        `[n, c, *size]` float32.
    """
    n, channels, height, width = x.shape
    top, left, tall, wide = window
    scale = 1.0 if x.is_floating_point() else 1 / 255
    rows = axis_weights(top, tall, height, size[0], None, padding, border) * scale
    cols = axis_weights(left, wide, width, size[1], flip, padding, border)
    narrow = torch.bmm(x.float().reshape(n, channels * height, width), cols.mT)
    return torch.matmul(rows[:, None], narrow.view(n, channels, height, size[1]))


def axis_weights(
    start: Tensor,
    length: Tensor,
    size: int,
    out: int,
    flip: Tensor | None = None,
    padding: int = 0,
    border: Border = "zero",
) -> Tensor:
    """The weight of each of `size` pixels in each of `out` results along one axis.

    A triangle one result wide (one pixel wide where the window is enlarged) around each result's
    centre, cut at the window's ends: what torch calls bilinear with `antialias=True`.

    Returns:
        `[n, out, size]`, each row summing to one (less where the padding holds zeros).
    """
    step = (length / out)[:, None]
    place = torch.arange(out, device=start.device) + 0.5
    mirrored = place if flip is None else (flip[:, None] * out - place).abs()
    centre = start[:, None] + mirrored * step
    pixel = torch.arange(-padding, size + padding, device=start.device) + 0.5
    weights = (pixel - centre[:, :, None]).abs_().mul_(-1 / step.clamp(min=1)[:, :, None])
    weights.add_(1).clamp_(min=0)
    inside = (pixel > start.floor()[:, None]) & (pixel < (start + length).ceil()[:, None])
    weights.mul_(inside[:, None])
    weights.div_(weights.sum(-1, keepdim=True))
    return fold_border(weights, padding, border)


def fold_border(weights: Tensor, padding: int, border: Border) -> Tensor:
    """Move weights on padding to the pixels that it repeats, or drop them where it is zeros.

    Args:
        weights: `[..., padding + size + padding]`.
        padding: pixels at either end.
        border: what the padding holds.

    Returns:
        `[..., size]`.
    """
    if not padding:
        return weights
    before, inner, after = weights.tensor_split((padding, -padding), -1)
    if border == "reflect":
        inner = inner.clone()
        inner[..., 1 : padding + 1] += before.flip(-1)
        inner[..., -padding - 1 : -1] += after.flip(-1)
    return inner
