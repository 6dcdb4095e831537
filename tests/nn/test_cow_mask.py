"""CowMask against scipy's Gaussian filter, and the share of ones that it is drawn for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.special import erfinv

from bench import rng
from bench.nn.cow_mask import blurred, cow_masks


@pytest.mark.parametrize("sigma", [0.7, 4.0, 16.0])
def test_the_blur_is_a_gaussian_filter_up_to_a_factor(sigma: float) -> None:
    noise = torch.randn(1, 32, 32, generator=rng.generator("noise"), dtype=torch.float64)
    got = blurred(noise, torch.tensor([sigma], dtype=torch.float64))[0].numpy()
    expected = gaussian_filter(noise[0].numpy(), sigma, mode="constant", truncate=100)
    np.testing.assert_allclose(got / got.std(), expected / expected.std(), rtol=1e-8, atol=1e-8)


def test_masks_are_those_of_the_official_formula() -> None:
    """The same draws in the same order, then scipy in float64; borders may differ by rounding."""
    draw = rng.generator("cow")
    masks = cow_masks(6, 32, draw, sigma=(4.0, 16.0), share=(0.2, 0.8))
    draw = rng.generator("cow")
    sigmas = np.exp(math.log(4) + math.log(4) * torch.rand(6, generator=draw).double().numpy())
    shares = 0.2 + 0.6 * torch.rand(6, generator=draw).double().numpy()
    noise = torch.randn(6, 32, 32, generator=draw).double().numpy()
    for mask, x, sigma, share in zip(masks[:, 0], noise, sigmas, shares, strict=True):
        smooth = gaussian_filter(x, sigma, mode="constant", truncate=100)
        limit = smooth.mean() + math.sqrt(2) * erfinv(2 * share - 1) * smooth.std()
        assert np.mean((smooth <= limit) == mask.bool().numpy()) > 0.995


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_share_of_ones_is_what_was_asked_for(share: float) -> None:
    masks = cow_masks(500, 32, rng.generator("share"), sigma=(2.0, 4.0), share=(share, share))
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert masks.mean().item() == pytest.approx(share, abs=0.02)


def test_spots_grow_with_the_picture() -> None:
    """As many borders across a picture of any side, where sigma is named for 32 px."""
    crossings = []
    for side in (32, 96):
        masks = cow_masks(200, side, rng.generator("grow"), sigma=(4.0, 4.0), share=(0.5, 0.5))
        crossings.append((masks[..., 1:] != masks[..., :-1]).float().sum(-1).mean().item())
    assert crossings[1] == pytest.approx(crossings[0], rel=0.15)
