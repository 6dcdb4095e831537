"""Surface patterns: each maps places in a plane to a share in [0, 1] of a second colour."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.scenes.draws import Draws

NAMES = ("plain", "striped", "checked", "dotted", "tiled", "mottled", "wavy", "wooden")


def _wave(x: Tensor) -> Tensor:
    """A triangle wave of period 1 in [0, 1]: 0 at whole numbers."""
    return 2 * (x - torch.floor(x + 0.5)).abs()


def _edge(x: Tensor, width: Tensor) -> Tensor:
    """0 below 0.5, 1 above, over a slope of about `width`."""
    return ((x - 0.5) / width + 0.5).clamp(0, 1)


def noise(x: Tensor, y: Tensor, draws: Draws) -> Tensor:
    """Smooth irregular blotches, in [0, 1]: sums of warped waves at three scales."""
    total = torch.zeros_like(x)
    for frequency in (4.0, 7.5, 13.0):
        angle, phase, bend = (draws.uniform(0, 2 * torch.pi)[:, None, None] for _ in range(3))
        along = (x * angle.cos() + y * angle.sin()) * frequency + phase
        across = (y * angle.cos() - x * angle.sin()) * frequency * 0.8 + bend
        total = total + (along + 1.5 * across.cos()).sin() * across.sin() * (3.0 / frequency)
    return (0.5 + 0.42 * total).clamp(0, 1)


def pattern(kind: Tensor, x: Tensor, y: Tensor, blur: Tensor, draws: Draws) -> Tensor:
    """The pattern `kind` `[n]` (an index into `NAMES`) at `x`, `y` `[n, h, w]`, in periods.

    `blur` `[n, 1, 1]` is how much of a period a pixel covers: borders are as soft as that.
    """
    fuzz = draws.unit()[:, None, None]
    blotches = noise(x * 0.35, y * 0.35, draws)
    out = torch.empty_like(x)
    blur = (2 * blur).clamp(0.02, 0.9).expand_as(x)
    for value in kind.unique().tolist():
        at = (kind == value).nonzero().flatten()
        u, v, b, f, spots = x[at], y[at], blur[at], fuzz[at], blotches[at]
        name = NAMES[value]
        if name == "plain":
            share = 0.25 * spots * f
        elif name == "striped":
            share = _edge(_wave(u), b)
        elif name == "checked":
            share = 0.5 * (_edge(_wave(u), b) + _edge(_wave(v), b))
        elif name == "dotted":
            radius = 0.25 + 0.25 * f
            r = (_wave(u).square() + _wave(v).square()).sqrt()
            share = 1 - _edge(r + 0.5 - 2 * radius, b)
        elif name == "tiled":
            joint = torch.maximum(_wave(u + 0.5), _wave(v + 0.5))
            share = _edge(joint - 0.36, b) + 0.2 * spots
        elif name == "mottled":
            share = spots
        elif name == "wavy":
            share = _edge(_wave(u + 0.25 * (2 * torch.pi * (v * 0.5 + f)).sin()), b)
        else:
            grain = 0.5 + 0.5 * (2 * torch.pi * (v * 0.25 + 2.0 * spots)).sin()
            share = 0.5 * grain + 0.5 * _edge(_wave(u * 0.5 + 0.5) - 0.42, b)
        out[at] = share.clamp(0, 1)
    return out
