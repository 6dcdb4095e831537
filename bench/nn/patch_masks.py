"""Which patches of each picture are masked or dropped: drawn for a whole batch, on its device.

Nothing waits for the device, and shapes do not depend on what was drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BLOCKS = 8  # per picture; their areas are drawn up to the masked one, so that few are needed
SMALLEST = 4  # patches of a block: min_num_patches of DINOv2's masking.py
ASPECT = 0.3  # of a block, height over width, up to 1 / 0.3: BEiT (arXiv:2106.08254)
ROUNDING = 1e-4  # of a share times a count in float32


def chosen_ratios(
    n: int, means: Sequence[float], spreads: Sequence[float], rng: torch.Generator
) -> Tensor:
    """A share of patches to mask for each of `n` pictures, `[n]` (iBOT, arXiv:2111.07832).

    One of `means` is chosen per picture, all alike, and moved evenly by up to its spread.

    Args:
        n: pictures.
        means: in [0, 1].
        spreads: one for each of `means`.
        rng: the source of all randomness; its device is the result's.
    """
    which = torch.randint(len(means), (n,), generator=rng, device=rng.device)
    move = 2 * torch.rand(n, generator=rng, device=rng.device) - 1
    drawn = [mean + spread * move for mean, spread in zip(means, spreads, strict=True)]
    return torch.stack(drawn).gather(0, which[None])[0]


def spread_ratios(
    n: int, share: float, between: tuple[float, float], rng: torch.Generator
) -> Tensor:
    """Shares to mask for `n` pictures, `[n]`, of which 1 - `share` are 0 (DINOv2's collate.py).

    The interval is cut into equal parts, one for each masked picture, which draws in it: every
    batch has masks of all sizes, and about the same number of masked patches.

    Args:
        n: pictures.
        share: of the pictures that are masked.
        between: the least and the greatest share of masked patches.
        rng: the source of all randomness; its device is the result's.
    """
    masked = int(n * share)
    low, high = between
    part = torch.rand(n, generator=rng, device=rng.device).argsort()
    within = torch.rand(n, generator=rng, device=rng.device)
    ratio = low + (high - low) * (part + within) / max(masked, 1)
    return torch.where(part < masked, ratio, 0.0)


def block_masks(ratios: Tensor, grid: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Masks of overlapping blocks, `[n, h * w]` bool, of floor(ratio * h * w) patches each.

    After BEiT (arXiv:2106.08254): a block has at least four patches and an aspect in 0.3 .. 1/0.3,
    and lies inside the picture. There a block that would mask too much is drawn anew, ten times at
    most, so that masks may be too small; here the last block grows from its middle until the number
    is reached.

    Args:
        ratios: `[n]` shares of patches, in [0, 1].
        grid: patches down and across.
        rng: the source of all randomness, on the device of `ratios`.
    """
    height, width = grid
    count = (ratios * (height * width) + ROUNDING).floor()[:, None]
    area, aspect, *place = torch.rand(4, len(ratios), BLOCKS, generator=rng, device=rng.device)
    area = SMALLEST + area * (count - SMALLEST).clamp(min=0)
    stretch = ((1 - 2 * aspect) * math.log(ASPECT)).exp().sqrt()
    distance = torch.zeros(len(ratios), BLOCKS, height, width, device=rng.device)
    for axis, (cells, side) in enumerate(
        ((height, area.sqrt() * stretch), (width, area.sqrt() / stretch))
    ):
        side = side.round().clamp(1, cells)
        first = (place[axis] * (cells - side + 1)).floor()
        at = torch.arange(cells, device=rng.device)
        off = (at - (first + (side - 1) / 2)[..., None]).abs() / side[..., None]
        distance = torch.maximum(distance, off[..., None] if axis == 0 else off[..., None, :])
    # 0 in the middle of a block, below 1/2 inside; a patch's rank is that of its first block, and
    # patches in no block come last, the nearest to one first.
    number = torch.arange(BLOCKS, device=rng.device)[:, None]
    distance = distance.flatten(2)
    rank = torch.where(distance < 0.5, number + distance, BLOCKS + distance).amin(1)
    masked: Tensor = rank.argsort(dim=1).argsort(dim=1) < count
    return masked


def masked_first(mask: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The masked patches of a batch, in a number that is known beforehand.

    Args:
        mask: `[n, P]` bool.
        most: at least as many as are masked, or the last ones are left out.

    Returns:
        `[most]` positions in the flattened mask, the masked ones first and others after them; and
        `[most]` weights: 1 / (its picture's masked patches * n), 0 for the others.
    """
    share = mask / (mask.sum(1, keepdim=True).clamp(min=1) * len(mask))
    at = mask.flatten().to(torch.uint8).argsort(descending=True, stable=True)[:most]
    return at, share.flatten()[at]


def kept_patches(n: int, patches: int, drop: float, rng: torch.Generator) -> Tensor:
    """The patches that each picture keeps, drawn evenly, `[n, floor((1 - drop) * patches)]`.

    Args:
        n: pictures.
        patches: of a picture.
        drop: the share to drop, in [0, 1); at least one patch is kept.
        rng: the source of all randomness; its device is the result's.
    """
    order = torch.rand(n, patches, generator=rng, device=rng.device).argsort(1)
    return order[:, : max(1, int((1 - drop) * patches))]


def as_pixels(patches: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Values of patches `[n, h * w]`, each as a square of pixels, `[n, size, size]`."""
    cells: Tensor = patches.unflatten(1, grid)
    return cells.repeat_interleave(size // grid[0], 1).repeat_interleave(size // grid[1], 2)
