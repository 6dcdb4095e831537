"""Pictures turned by some angles: what RotNet and S4L are trained to recognise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def rotations(x: Tensor, angles: Sequence[int]) -> Tensor:
    """`x` `[B, C, s, s]` turned counter-clockwise by each angle, degrees: `[angles * B, C, s, s]`.

    Multiples of 90 are exact. Where any other angle is asked for, corners would give it away, so
    all angles get the same circular mask, filled with 0 (the mean of normalised pictures).
    """
    turned = [_rotate(x, angle) for angle in angles]
    if all(angle % 90 == 0 for angle in angles):
        return torch.cat(turned)
    side = x.shape[-1]
    at = torch.arange(side, device=x.device) - (side - 1) / 2
    inside = at[:, None] ** 2 + at[None, :] ** 2 <= (side / 2 - 1) ** 2
    return torch.cat(turned) * inside


def _rotate(x: Tensor, angle: int) -> Tensor:
    if angle % 90 == 0:
        return torch.rot90(x, angle // 90, (2, 3))
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turn = x.new_tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(len(x), 2, 3)
    grid = F.affine_grid(turn, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
