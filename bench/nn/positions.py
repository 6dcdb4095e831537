"""Fixed positions of patches, and what vision transformers are given of them (arXiv:2111.06377)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.api import Backbone
from bench.errors import BenchError

LONGEST = 10_000  # sets the slowest wave, as in arXiv:1706.03762


def sincos(grid: tuple[int, int], dim: int) -> Tensor:
    """Sines and cosines of each patch's column and row, `[h * w, dim]`, row after row.

    A quarter of the values each: sin and cos of column * w, sin and cos of row * w, with
    frequencies w falling from 1 geometrically.

    Args:
        grid: patches down and across.
        dim: a multiple of 4.
    """
    rate = LONGEST ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row, column = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    waves = [place.flatten()[:, None] * rate for place in (column, row)]
    return torch.cat([f(wave) for wave in waves for f in (torch.sin, torch.cos)], dim=1).float()


def fix_positions(backbone: Backbone) -> None:
    """Give a timm vision transformer `sincos` positions that are not trained; 0 for its class.

    Other networks, and transformers without a table of positions, stay as they are.

    Raises:
        BenchError: the width is no multiple of 4.
    """
    model: Any = getattr(backbone, "model", None)
    table, grid = getattr(model, "pos_embed", None), getattr(backbone, "grid", None)
    if table is None or grid is None:
        return
    if table.shape[-1] % 4:
        raise BenchError(
            f"sines and cosines of two axes need a width that is a multiple of 4, not "
            f"{table.shape[-1]}: choose another backbone or embed_dim"
        )
    fixed = sincos(grid, table.shape[-1])
    with torch.no_grad():
        table.zero_()[0, -len(fixed) :] = fixed
    table.requires_grad_(False)
