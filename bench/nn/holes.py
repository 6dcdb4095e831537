"""What context encoders cut out of a picture: random blocks and irregular regions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CELLS = 8  # noise cells across a picture: 0.06 per pixel of 128 in the official train_random.lua
BLOCKS = 8  # tries; the paper (arXiv:1604.07379) gives no number
AREA = 0.25  # most that random masks cover


def random_blocks(n: int, size: int, rng: torch.Generator) -> Tensor:
    """Overlapping rectangles on at most a quarter of each picture, `[n, 1, size, size]` bool.

    Each of 8 is drawn anywhere inside the picture and left out where it would cover too much.
    """
    holes = torch.zeros(n, size, size, dtype=torch.bool, device=rng.device)
    at = torch.arange(size, device=rng.device)
    for _ in range(BLOCKS):
        length, place = torch.rand(2, n, 2, generator=rng, device=rng.device)
        length = ((1 + 2 * length) / 8 * size).round()  # 1/8 to 3/8 of the side
        start = (place * (size - length + 1)).floor()[..., None]
        inside = (at >= start) & (at < start + length[..., None])  # [n, 2, size]
        more = holes | (inside[:, 0, :, None] & inside[:, 1, None, :])
        fits = more.float().mean((1, 2), keepdim=True) <= AREA
        holes = torch.where(fits, more, holes)
    return holes[:, None]


def random_regions(n: int, size: int, rng: torch.Generator) -> Tensor:
    """Irregular regions on a quarter of each picture, `[n, 1, size, size]` bool.

    The lowest quarter of bicubically enlarged noise, which hangs together in a few regions.
    """
    noise = torch.rand(n, 1, CELLS, CELLS, generator=rng, device=rng.device)
    smooth = F.interpolate(noise, (size, size), mode="bicubic", align_corners=False)
    threshold = smooth.flatten(1).kthvalue(int(AREA * size**2), dim=1).values
    return smooth <= threshold[:, None, None, None]
