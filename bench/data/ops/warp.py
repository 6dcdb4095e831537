"""Affine warps, each picture by its own matrix."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from bench.data.ops.draw import constant


def warp(x: Tensor, matrix: Tensor) -> Tensor:
    """Fetch every pixel of the result from the nearest pixel of `x`, or black outside it.

    Args:
        x: `[n, c, h, w]`.
        matrix: `[n, 2, 3]`, from a place (x, y, 1) in the result to its source (x, y), in pixels
            from the picture's centre.

    Returns:
        A new tensor like `x`.
    """
    height, width = x.shape[2:]
    half = constant((width / 2, height / 2, 1.0), x.device)
    unit = matrix * half / half[:2, None]  # torch counts from -1 to 1 along either axis
    grid = F.affine_grid(unit, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="nearest", padding_mode="zeros", align_corners=False)
