"""Where each picture is set: what painters paint and captions tell."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.scenes import palette, patterns
from bench.data.scenes.catalog import CLASSES
from bench.data.scenes.compose import Scenes
from bench.data.scenes.draws import Draws

GROUNDS = ("grass", "sand", "water", "snow", "road", "earth")
SKIES = ("clear", "cloudy", "sunset", "night")
# How often each ground bears these classes, a little as in the world: the backdrop only hints.
_LIKING = {"boat": (1, 1, 3, 1, 1, 1), "fish": (1, 2, 3, 1, 1, 1), "car": (1, 1, 0.5, 1, 3, 1)}
_SKY_SHARES = torch.tensor([0.4, 0.25, 0.2, 0.15])
_USED = 4  # columns of `Scenes.backdrop` that are read here; painters read on from there


def ground(scenes: Scenes) -> Tensor:
    """Index into `GROUNDS` of each outdoor picture's ground, `[n]`."""
    liking = torch.tensor([_LIKING.get(name, (1.0,) * len(GROUNDS)) for name in CLASSES])
    return Draws(scenes.backdrop[:, 0:1]).among(liking[scenes.label])


def sky(scenes: Scenes) -> Tensor:
    """Index into `SKIES` of each outdoor picture's sky, `[n]`."""
    return Draws(scenes.backdrop[:, 1:2]).among(_SKY_SHARES)


def pattern(scenes: Scenes) -> Tensor:
    """Index into `patterns.NAMES` of each room's wall or each surface, `[n]`."""
    return Draws(scenes.backdrop[:, 2:3]).pick(len(patterns.NAMES))


def surface_colour(scenes: Scenes) -> Tensor:
    """Index into the palette of a wall's or surface's first colour: never the main object's."""
    main = scenes.named.gather(1, scenes.main[:, None]).squeeze(1)
    return palette.other(Draws(scenes.backdrop[:, 3:4]), main)


def details(scenes: Scenes) -> Draws:
    """The draws that decide everything else about the backdrops."""
    return Draws(scenes.backdrop[:, _USED:])
