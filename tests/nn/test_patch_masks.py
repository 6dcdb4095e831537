"""Masks and dropped patches: how many, where, and whether every patch has its turn."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from bench import rng
from bench.nn.patch_masks import (
    as_pixels,
    block_masks,
    chosen_ratios,
    kept_patches,
    masked_first,
    spread_ratios,
)


def test_ratios_are_chosen_and_moved_as_ibots_loader_does() -> None:
    ratios = chosen_ratios(20_000, (0.0, 0.3), (0.0, 0.2), rng.generator("chosen"))
    masked = ratios[ratios > 0]
    assert len(masked) / len(ratios) == pytest.approx(0.5, abs=0.02)
    assert masked.min() >= 0.1 and masked.max() <= 0.5
    assert masked.mean().item() == pytest.approx(0.3, abs=0.005)
    assert masked.std().item() == pytest.approx(0.4 / 12**0.5, rel=0.03)  # even, not peaked


def test_ratios_are_spread_over_the_batch_as_dinov2s_collate_does() -> None:
    ratios = spread_ratios(40, 0.5, (0.1, 0.5), rng.generator("spread"))
    masked = ratios[ratios > 0].sort().values
    assert len(masked) == 20
    edges = torch.linspace(0.1, 0.5, 21)
    assert ((masked >= edges[:-1]) & (masked <= edges[1:])).all(), "one in each part"
    assert not torch.equal(ratios[ratios > 0], masked), "in random order"


@pytest.mark.parametrize("grid", [(4, 4), (14, 14), (6, 9)])
def test_masks_have_exactly_the_number_of_patches(grid: tuple[int, int]) -> None:
    patches = grid[0] * grid[1]
    counts = torch.arange(64) % patches
    masks = block_masks(counts / patches, grid, rng.generator("blocks"))
    assert masks.shape == (64, patches) and masks.dtype == torch.bool
    assert torch.equal(masks.sum(1), counts)


def test_a_share_is_rounded_down() -> None:
    masks = block_masks(torch.tensor([0.499, 0.5, 0.06]), (4, 4), rng.generator("down"))
    assert masks.sum(1).tolist() == [7, 8, 0]


def neighbours(masks: Tensor) -> float:
    """How many of a masked patch's right and lower neighbours are masked, mean."""
    down = (masks[:, 1:] & masks[:, :-1]).sum()
    right = (masks[:, :, 1:] & masks[:, :, :-1]).sum()
    return ((down + right) / masks.sum()).item()


def beit(n: int, side: int, count: int) -> Tensor:
    """Masks as BEiT draws them, block after block (arXiv:2106.08254, Algorithm 1)."""
    draw = random.Random(0)
    masks = torch.zeros(n, side, side, dtype=torch.bool)
    for mask in masks:
        while (left := count - int(mask.sum())) > 0:
            for _ in range(10):
                area = draw.uniform(4, left)
                aspect = math.exp(draw.uniform(math.log(0.3), -math.log(0.3)))
                height, width = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
                if height >= side or width >= side:
                    continue
                top, first = draw.randint(0, side - height), draw.randint(0, side - width)
                block = mask[top : top + height, first : first + width]
                if 0 < int((~block).sum()) <= left:
                    block[:] = True
                    break
            else:
                break
    return masks


@pytest.mark.parametrize(("side", "count"), [(14, 40), (14, 58), (4, 7)])
def test_masks_are_where_and_what_beits_are(side: int, count: int) -> None:
    """As often in each place, and as compact; the drawn numbers are not the same."""
    theirs = beit(500, side, count)
    ratios = torch.full((2000,), count / side**2)
    ours = block_masks(ratios, (side, side), rng.generator("beit")).view(-1, side, side)
    often = torch.stack([theirs.float().mean(0), ours.float().mean(0)])
    assert torch.corrcoef(often.flatten(1))[0, 1] > 0.95
    assert (often[0] - often[1]).abs().mean() < 0.15 * often[0].mean()
    assert neighbours(ours) == pytest.approx(neighbours(theirs), rel=0.1)
    scattered = torch.rand(500, side**2, generator=rng.generator("scattered")).argsort(1) < count
    assert neighbours(ours) > 1.2 * neighbours(scattered.view(-1, side, side))


def test_one_drawn_block_is_a_rectangle() -> None:
    """What fits one block of the drawn shape: 4 of 16 patches are 2 x 2, 4 x 1 or 1 x 4, mostly."""
    masks = block_masks(torch.full((200,), 0.25), (4, 4), rng.generator("one")).view(200, 4, 4)
    boxes = masks.any(1).sum(1) * masks.any(2).sum(1)
    assert (boxes == 4).float().mean() > 0.5


def test_masked_patches_come_first_with_their_pictures_weight() -> None:
    mask = torch.tensor([[0, 1, 1], [0, 0, 0], [1, 0, 0]], dtype=torch.bool)
    at, weight = masked_first(mask, 5)
    assert at[:3].tolist() == [1, 2, 6]
    assert weight.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 3, 0, 0])
    assert len(set(at.tolist())) == 5


def test_kept_patches_are_distinct_and_even() -> None:
    keep = kept_patches(4000, 16, 0.15, rng.generator("keep"))
    assert keep.shape == (4000, 13)
    assert all(len(set(row)) == 13 for row in keep[:50].tolist())
    often = keep.flatten().bincount(minlength=16) / 4000
    assert (often - 13 / 16).abs().max() < 0.03
    assert kept_patches(2, 4, 0.9, rng.generator("few")).shape == (2, 1)


def test_pixels_of_patches_are_those_of_the_grid() -> None:
    tiles = as_pixels(torch.arange(4)[None], (2, 2), 6)[0]
    assert tiles[0].tolist() == [0, 0, 0, 1, 1, 1]
    assert tiles[5].tolist() == [2, 2, 2, 3, 3, 3]


def test_draws_come_from_the_generator_alone() -> None:
    one, two = (
        block_masks(chosen_ratios(16, (0.0, 0.3), (0.0, 0.2), source), (4, 4), source)
        for source in (rng.generator("same"), rng.generator("same"))
    )
    assert torch.equal(one, two)
