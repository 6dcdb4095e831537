"""CowMask: masks with irregular, rounded borders (French 2020, arXiv:2003.12022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SIDE = 32  # px, where spots have the size that the settings name


def cow_masks(
    n: int,
    side: int,
    rng: torch.Generator,
    *,
    sigma: tuple[float, float],
    share: tuple[float, float],
) -> Tensor:
    """`n` masks `[n, 1, side, side]`, float32 0 or 1, on the generator's device.

    Normal noise is blurred and cut off where its share of ones is expected to be that drawn.

    Args:
        n: how many.
        side: pixels.
        rng: the source of all draws.
        sigma: range of the blur, pixels at 32 px, which grow with the side; evenly by logarithm.
        share: range of the expected share of ones, evenly.
    """
    low, high = (math.log(value * side / SIDE) for value in sigma)
    blur = _uniform(n, low, high, rng).exp()
    limit = math.sqrt(2) * torch.erfinv(2 * _uniform(n, *share, rng) - 1)
    noise = torch.randn(n, side, side, generator=rng, device=rng.device)
    smooth = blurred(noise, blur).flatten(1)
    spread, mean = torch.std_mean(smooth, 1, correction=0, keepdim=True)
    return (smooth <= mean + limit[:, None] * spread).float().view(n, 1, side, side)


def blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """`x` `[n, s, s]` under a Gaussian of `sigma` `[n]` pixels each, up to a factor; 0 outside."""
    at = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
    weights = (-0.5 * ((at[:, None] - at) / sigma[:, None, None]).square()).exp()
    with torch.autocast(x.device.type, enabled=False):
        return weights @ x @ weights


def _uniform(n: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=rng, device=rng.device)
