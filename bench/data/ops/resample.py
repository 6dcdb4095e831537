"""Crop, resize and flip in one resampling, each picture with its own window.

Bilinear resampling is separable, and a result row is a weighted sum of a few rows of the picture:
what `embedding_bag` computes, at the speed of memory, on any device. Columns are rows of the
transposed picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.errors import BenchError

Border = Literal["zero", "reflect"]
Taps = tuple[Tensor, Tensor]  # which rows make each result row, and their shares: `[n, out, t]`


def resample(x: Tensor, taps: Mapping[str, Tensor]) -> Tensor:
    """Crop, resize and mirror `x` `[n, c, h, w]`, float or uint8, to `[n, c, *size]` float32.

    Values of uint8 pictures come out in [0, 1]. `taps` is what `window_taps` makes.
    """
    rows = (taps["row_index"], taps["row_weight"])
    if not x.is_floating_point():
        rows = (rows[0], rows[1] / 255)
    upright = x.mT.to(torch.float32, memory_format=torch.contiguous_format)
    across = mix_rows(upright, (taps["col_index"], taps["col_weight"]))
    return mix_rows(across.mT, rows)


def window_taps(
    window: Mapping[str, Tensor],
    stored: tuple[int, int],
    size: tuple[int, int],
    padding: int = 0,
    border: Border = "zero",
) -> dict[str, Tensor]:
    """What `resample` needs to show each picture's window at `size`.

    Args:
        window: `top`, `left`, `height`, `width` `[n]`, pixels, with fractions; where it holds
            `flip` `[n]` bool, those results are mirrored left to right.
        stored: (height, width) of the pictures, pixels.
        size: (height, width) of the results, pixels.
        padding: pixels around the picture that a window may reach into.
        border: what the padding holds: zeros, or the picture mirrored about its edge pixels.
    """
    rows = axis_taps(window["top"], window["height"], stored[0], size[0], None, padding, border)
    flip = window.get("flip")
    cols = axis_taps(window["left"], window["width"], stored[1], size[1], flip, padding, border)
    return {
        "row_index": rows[0],
        "row_weight": rows[1],
        "col_index": cols[0],
        "col_weight": cols[1],
    }


def mix_rows(x: Tensor, taps: Taps) -> Tensor:
    """Weighted sums of rows: `x` `[n, c, h, w]` -> `[n, c, out, w]`."""
    n, channels, height, width = x.shape
    first = torch.arange(0, n * channels * height, height, device=x.device)
    index = taps[0][:, None] + first.view(n, channels, 1, 1)
    shares = taps[1][:, None].expand(index.shape)
    mixed = F.embedding_bag(
        index.flatten(0, 2),
        x.reshape(-1, width),
        mode="sum",
        per_sample_weights=shares.flatten(0, 2),
    )
    return mixed.view(n, channels, taps[0].shape[1], width)


def axis_taps(
    start: Tensor,
    length: Tensor,
    size: int,
    out: int,
    flip: Tensor | None = None,
    padding: int = 0,
    border: Border = "zero",
) -> Taps:
    """The taps of `out` results along an axis of `size` pixels, in windows `start`, `length` `[n]`.

    Shares form a triangle around each result's centre, as wide as a result or, where the window is
    enlarged, as a pixel; cut at the window's ends. Torch calls it bilinear with antialias=True.
    """
    step = (length / out)[:, None]
    place = torch.arange(out, device=start.device) + 0.5
    mirrored = place if flip is None else (flip[:, None] * out - place).abs()
    centre = start[:, None] + mirrored * step
    reach = step.clamp(min=1)
    first = (centre - reach + 0.5).floor_()
    count = math.ceil(2 * max(1.0, size / out))
    pixel = first[:, :, None] + torch.arange(count, device=start.device)
    share = 1 - (pixel + (0.5 - centre)[:, :, None]).abs_() / reach[:, :, None]
    low = start.floor().clamp_(min=-padding)[:, None, None]
    high = (start + length).ceil_().clamp_(max=size + padding)[:, None, None]
    share = share.clamp_(min=0).mul_((pixel >= low) & (pixel < high))
    share /= share.sum(-1, keepdim=True)
    if border == "reflect":
        return mirror(pixel.long(), size, padding), share
    share *= (pixel >= 0) & (pixel < size)
    return pixel.long().clamp_(0, size - 1), share


def mirror(index: Tensor, size: int, beyond: int) -> Tensor:
    """Reflect positions up to `beyond` outside 0 ... size - 1 about the edge pixels.

    Raises:
        BenchError: the picture is too small to be mirrored that far.
    """
    if beyond >= size:
        raise BenchError(
            f"pictures of {size} px cannot be mirrored by {beyond} px at their border; use a "
            "smaller padding or blur kernel, or larger pictures"
        )
    last = size - 1
    return (last - (last - index.abs()).abs()).clamp_(min=0)
