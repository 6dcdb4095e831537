"""Patches worth tracking from one frame to the next, and where they went."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def most_moving(first: Tensor, second: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Where the window of `side` px is in which two frames `[B, C, H, W]` differ most.

    Returns:
        Its top row and left column, `[B]` int64 each.
    """
    energy = F.avg_pool2d((second - first).float().square().mean(1, keepdim=True), side, stride=1)
    best = energy.flatten(1).argmax(1)
    return best // energy.shape[3], best % energy.shape[3]


def windows(x: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """The window of `side` px at (`top`, `left`) `[B]` of each of `x` `[B, C, H, W]`."""
    inside = torch.arange(side, device=x.device)
    rows = (top[:, None] + inside)[:, :, None]
    cols = (left[:, None] + inside)[:, None, :]
    picture = torch.arange(len(x), device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[picture, rows, cols].permute(0, 3, 1, 2).contiguous()


def track(
    patch: Tensor, frame: Tensor, top: Tensor, left: Tensor, reach: int
) -> tuple[Tensor, Tensor]:
    """Find each `patch` `[B, C, p, p]` within `reach` px of (`top`, `left`) of its `frame`.

    By normalised cross-correlation over all channels: brightness and contrast may change.

    Returns:
        The top row and left column of the best match, `[B]` int64 each; it is inside the frame.
    """
    n, _, side, _ = patch.shape
    padded = F.pad(frame.float(), (reach,) * 4)
    area = windows(padded, top, left, side + 2 * reach)
    centred = patch.float() - patch.float().mean((1, 2, 3), keepdim=True)
    with torch.autocast(area.device.type, enabled=False):
        product = F.conv2d(area.flatten(0, 1)[None], centred, groups=n)[0]
    mean = F.avg_pool2d(area.mean(1), side, stride=1)
    square = F.avg_pool2d(area.square().mean(1), side, stride=1)
    score = product / (square - mean.square()).clamp(min=1e-6).sqrt()
    step = torch.arange(-reach, reach + 1, device=frame.device)
    rows, cols = top[:, None] + step, left[:, None] + step
    room_down, room_right = frame.shape[2] - side, frame.shape[3] - side
    inside = ((rows >= 0) & (rows <= room_down))[:, :, None]
    inside = inside & ((cols >= 0) & (cols <= room_right))[:, None, :]
    best = score.masked_fill(~inside, -torch.inf).flatten(1).argmax(1)
    return top + best // len(step) - reach, left + best % len(step) - reach
