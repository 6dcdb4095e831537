"""The named colours of objects and backdrops."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.scenes.draws import Draws

_COLOURS = {
    "red": (0.84, 0.16, 0.15),
    "orange": (0.95, 0.52, 0.13),
    "yellow": (0.96, 0.82, 0.22),
    "green": (0.27, 0.62, 0.25),
    "teal": (0.12, 0.60, 0.60),
    "blue": (0.18, 0.38, 0.80),
    "purple": (0.50, 0.28, 0.68),
    "pink": (0.94, 0.52, 0.68),
    "brown": (0.48, 0.30, 0.17),
    "black": (0.15, 0.15, 0.18),
    "grey": (0.52, 0.54, 0.57),
    "white": (0.93, 0.93, 0.90),
}
NAMES = tuple(_COLOURS)
RGB = torch.tensor(list(_COLOURS.values()), dtype=torch.float64)


def other(draws: Draws, index: Tensor) -> Tensor:
    """A colour other than `index`, `[n]` int64."""
    return (index + 1 + draws.pick(len(NAMES) - 1)) % len(NAMES)


def tone(draws: Draws, index: Tensor, spread: float = 0.07) -> Tensor:
    """One shade of each named colour, `[n, 3]`: brighter or darker, and a little off its hue."""
    light = draws.uniform(0.82, 1.12)[:, None]
    hue = torch.stack([draws.uniform(-spread, spread) for _ in range(3)], dim=1)
    return (RGB[index] * light + hue).clamp(0.03, 1.0)


def mix(a: Tensor, b: Tensor, share: Tensor | float) -> Tensor:
    """`a` with `share` (a number, or `[n]`) of `b`, colours `[n, 3]`."""
    weight = share[:, None] if isinstance(share, Tensor) else share
    return a + (b - a) * weight
