"""Per-picture colour arithmetic without branches: blending with grey, and turning the hue."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data.ops.draw import constant

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, in torchvision's rounding


def blend(x: Tensor, factor: Tensor, *, mean: Tensor, gray: Tensor) -> Tensor:
    """The blend factor * x + (1 - factor) * reference, clamped to [0, 1]; each picture its own.

    The reference is the picture's mean luma where `mean` (contrast), each pixel's luma where `gray`
    (saturation), black otherwise (brightness). Each is an affine map of colour, so that a batch of
    pictures with different ones is a single product.

    Args:
        x: `[n, 3, h, w]` in [0, 1].
        factor: `[n]`, at least 0.
        mean: `[n]` bool.
        gray: `[n]` bool.

    Returns:
        A new tensor like `x`.
    """
    luma = constant(LUMA, x.device)
    pixels = x.flatten(2)
    rest = 1 - factor
    identity = constant((1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0), x.device).view(3, 3)
    matrix = factor[:, None, None] * identity + (rest * gray)[:, None, None] * luma
    offset = rest * mean * (pixels.mean(2) @ luma)
    mixed = torch.bmm(matrix, pixels).add_(offset[:, None, None])
    return mixed.clamp_(0, 1).view_as(x)


def sharpen(x: Tensor, factor: Tensor) -> Tensor:
    """Blend `x` `[n, 3, h, w]` with its 3 x 3 smoothing: below 1 smoother, above 1 sharper.

    The outermost pixels stay, as in PIL and torchvision.

    Args:
        x: pictures in [0, 1].
        factor: `[n]`, at least 0.

    Returns:
        A new tensor like `x`.
    """
    kernel = constant((1 / 13,) * 4 + (5 / 13,) + (1 / 13,) * 4, x.device)
    smooth = F.conv2d(x, kernel.view(1, 1, 3, 3).expand(3, 1, 3, 3), groups=3)
    sharp = x.clone()
    inner = sharp[:, :, 1:-1, 1:-1]
    inner.add_((smooth - inner).mul_((1 - factor)[:, None, None, None]))
    return sharp.clamp_(0, 1)


def shift_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Turn every colour of `x` `[n, 3, h, w]` by `turns` `[n]` of the HSV circle.

    Value and chroma stay; with the hue `u` in turns, a channel is value - chroma * c, where c falls
    from 1 to 0 as the distance on the circle from `u` to the channel's opposite grows from 1/6 to
    1/3.

    Returns:
        A new tensor like `x`.
    """
    red, green, blue = x.unbind(1)
    value = torch.maximum(red, green).maximum(blue)
    chroma = value - torch.minimum(red, green).minimum(blue)
    # Grey has no hue: its differences are zero, and any finite number keeps them so.
    scale = chroma.clamp(min=1e-12).reciprocal_()
    hue = (green - blue).mul_(scale)
    at_green = (blue - red).mul_(scale).add_(2)
    at_blue = (red - green).mul_(scale).add_(4)
    # sign() is 0 where the channel is the largest, else 1: a select that lerp does exactly, several
    # times faster on a CPU than torch.where.
    hue = hue.lerp_(at_green.lerp_(at_blue, (value - green).sign_()), (value - red).sign_())
    hue = hue.mul_(1 / 6).add_(turns[:, None, None])
    opposite = constant((1 / 2, 1 / 6, -1 / 6), x.device).view(3, 1, 1)
    distance = hue[:, None] + opposite
    distance.sub_(distance.round()).abs_()
    part = distance.mul_(-6).add_(2).clamp_(0, 1).mul_(chroma[:, None])
    return torch.sub(value[:, None], part, out=part)
