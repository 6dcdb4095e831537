"""Square patches cut from a grid of cells, as context prediction, jigsaw and CPC see a picture."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.errors import BenchError


def cut_patches(
    x: Tensor,
    *,
    grid: int,
    cell: int,
    gap: int = 0,
    jitter: int = 0,
    rng: torch.Generator | None = None,
) -> Tensor:
    """A `grid` x `grid` of patches of each picture, left to right, then top to bottom.

    Cells of `cell` pixels stand `gap` pixels apart (negative: they overlap), centred in the
    picture. Each holds a patch of `cell - jitter` pixels, anywhere in it: every patch of every
    picture is placed on its own. Relative patch location (arXiv:1505.05192) is cell 110, gap 34,
    jitter 14; jigsaw (arXiv:1603.09246) cell 85, jitter 21 of 255 px; CPC (arXiv:1905.09272)
    grid 7, cell 64, gap -32 of 256 px.

    Args:
        x: pictures `[B, C, H, W]`.
        grid: cells along either axis.
        cell: side of a cell, pixels.
        gap: pixels between neighbouring cells.
        jitter: pixels by which a patch may move within its cell.
        rng: the source of the movement, on the device of `x`; not used without jitter.

    Returns:
        `[B, grid * grid, C, s, s]` with s = cell - jitter.

    Raises:
        BenchError: the grid does not fit the picture, or the jitter the cell.
    """
    n, _, height, width = x.shape
    side, extent = cell - jitter, grid * cell + (grid - 1) * gap
    if extent > min(height, width) or extent < cell:
        raise BenchError(
            f"a {grid} x {grid} grid of {cell} px cells, {gap} px apart, needs {extent} px, but "
            f"pictures are {width} x {height} px; choose a smaller cell or gap"
        )
    if side < 1 or jitter < 0:
        raise BenchError(f"a jitter of {jitter} px does not fit a cell of {cell} px")
    steps = torch.arange(grid, device=x.device) * (cell + gap)
    top = ((height - extent) // 2 + steps).repeat_interleave(grid).expand(n, -1)
    left = ((width - extent) // 2 + steps).repeat(grid).expand(n, -1)
    if jitter:
        moved = torch.randint(jitter + 1, (2, n, grid**2), generator=rng, device=x.device)
        top, left = top + moved[0], left + moved[1]
    inside = torch.arange(side, device=x.device)
    rows = (top[:, :, None] + inside)[:, :, :, None]
    cols = (left[:, :, None] + inside)[:, :, None, :]
    picture = torch.arange(n, device=x.device)[:, None, None, None]
    return x.permute(0, 2, 3, 1)[picture, rows, cols].permute(0, 1, 4, 2, 3).contiguous()


def normalize_patches(patches: Tensor) -> Tensor:
    """Give every channel of every patch `[B, P, C, s, s]` zero mean and unit deviation.

    Without it, neighbouring patches give themselves away by their brightness.
    """
    return F.instance_norm(patches.flatten(0, 1)).view_as(patches)
