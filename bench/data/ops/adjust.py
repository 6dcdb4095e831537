"""Per-picture colour arithmetic without branches: luma, blending, sharpening, turning the hue."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data.ops.draw import constant


def luma(x: Tensor) -> Tensor:
    """ITU-R BT.601 luma `[n, h, w]` of `x` `[n, 3, h, w]`, in torchvision's rounding."""
    red, green, blue = x.unbind(1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def blend(x: Tensor, factor: Tensor, mean: Tensor, gray: Tensor) -> Tensor:
    """Mix `x` with a reference: factor * x + (1 - factor) * reference, clamped to [0, 1].

    The reference is the picture's mean luma where `mean` (contrast), each pixel's luma where `gray`
    (saturation), else black (brightness).

    Args:
        x: `[n, 3, h, w]` in [0, 1].
        factor: `[n]`, at least 0.
        mean: `[n]` bool.
        gray: `[n]` bool.

    Returns:
        A new tensor like `x`.
    """
    reference, rest = luma(x), 1 - factor
    level = reference.mean((1, 2)).mul_(rest * mean)
    reference.mul_((rest * gray)[:, None, None]).add_(level[:, None, None])
    return torch.addcmul(reference[:, None], x, factor[:, None, None, None]).clamp_(0, 1)


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

    Value, chroma and so the least channel stay. With the hue in sixths of a turn, red falls from
    value to least as the distance from 3 goes from 2 to 1; green and blue fall from value to least
    as that from 2 and 4 goes from 1 to 2.

    Returns:
        A new tensor like `x`.
    """
    red, green, blue = x.unbind(1)
    value = torch.maximum(red, green).maximum(blue)
    least = torch.minimum(red, green).minimum(blue)
    chroma = value - least
    # Grey has no hue: its differences are zero, and any finite number keeps them so.
    scale = chroma.clamp(min=1e-12).reciprocal_()
    hue = (green - blue).mul_(scale)
    at_green = (blue - red).mul_(scale).add_(2)
    at_blue = (red - green).mul_(scale).add_(4)
    # sign() is 0 where the channel is the largest, else 1: a select that lerp does exactly, several
    # times faster on a CPU than torch.where.
    hue.lerp_(at_green.lerp_(at_blue, (value - green).sign_()), (value - red).sign_())
    hue.mul_(1 / 6).add_(turns[:, None, None])
    hue.sub_(hue.floor()).mul_(6)
    shifted = torch.empty_like(x)
    for channel, opposite in zip(shifted.unbind(1), (3, 2, 4), strict=True):
        torch.sub(hue, opposite, out=channel).abs_().sub_(1).clamp_(0, 1).mul_(chroma)
    shifted[:, 0].add_(least)
    torch.sub(value[:, None], shifted[:, 1:], out=shifted[:, 1:])
    return shifted
