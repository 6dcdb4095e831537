"""What is where: the classes, places, colours, light and camera motion of every picture."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from bench.data.scenes import palette
from bench.data.scenes.catalog import CLASSES
from bench.data.scenes.draws import Draws
from bench.rng import generator

SLOTS = 4  # the main object and up to three others
OUTDOOR, ROOM, PATTERN = range(3)  # kinds of backdrop
# Backdrops and colours hint at the class a little, as in photographs, and never give it away.
_BACKDROP_SHARES = torch.tensor([0.34, 0.16, 0.50])
_INDOORS = torch.tensor([0.20, 0.30, 0.50])
_INDOOR = ("cat", "chair", "lamp", "mug")
_LIKED_COLOURS = {
    "bird": "brown blue red yellow grey",
    "boat": "white red blue brown",
    "car": "red white grey black blue",
    "cat": "brown black grey orange white",
    "chair": "brown white red",
    "fish": "orange grey blue yellow",
    "house": "white yellow brown red grey",
    "lamp": "yellow white orange",
    "mug": "white red blue",
    "mushroom": "red brown orange white",
    "person": "red blue black white",
    "tree": "green",
}
_LIKING = 0.6  # how often a colour is one of those
_OTHERS = torch.tensor([0.18, 0.32, 0.28, 0.22])  # how many other objects: 0, 1, 2, 3
_COLUMNS, _SHAPE_COLUMNS, _BACKDROP_COLUMNS = 96, 48, 64


@dataclass(frozen=True)
class Scenes:
    """N pictures before they are rendered. Lengths are shares of the side, y down; K slots.

    Slots stand back to front, `main` among them; a slot of class -1 is empty. `depth` is how far
    an object moves with the camera, relative to the main object: below 1 is further away.
    """

    label: Tensor  # [N] class of the main object
    main: Tensor  # [N] its slot
    kind: Tensor  # [N] of backdrop
    horizon: Tensor  # [N] where the ground or floor begins
    standing: Tensor  # [N] height of the main object's base
    light: Tensor  # [N, 2] direction towards the light, x right and y up, length 1
    tint: Tensor  # [N, 3] colour of the light
    motion: Tensor  # [N, 4] of the camera: dx, dy, zoom, roll in radians
    object: Tensor  # [N, K] class
    x: Tensor  # [N, K] of the base's centre
    y: Tensor  # [N, K]
    scale: Tensor  # [N, K] of one object unit
    stretch: Tensor  # [N, K] width over height; negative: mirrored
    tilt: Tensor  # [N, K] radians, about the base's centre
    depth: Tensor  # [N, K]
    named: Tensor  # [N, K] index of the main colour's name
    colour: Tensor  # [N, K, 3] main colour
    accent: Tensor  # [N, K, 3] second colour
    shape: Tensor  # [N, K, columns] uniform numbers that decide an object's parts
    backdrop: Tensor  # [N, columns] uniform numbers that decide the backdrop

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: Tensor | slice) -> Scenes:
        """The pictures at `index`."""
        return Scenes(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def compose(split: str, count: int, version: int) -> Scenes:
    """The first `count` pictures of a split, the same whatever `count` is."""
    rng = generator("scenes", version, split)
    padded = -(-count // len(CLASSES)) * len(CLASSES)
    wide = _COLUMNS + SLOTS * _SHAPE_COLUMNS + _BACKDROP_COLUMNS
    table = torch.rand(padded, wide, dtype=torch.float64, generator=rng)
    draws = Draws(table[:, :_COLUMNS])
    shape, backdrop = table[:, _COLUMNS:].split([SLOTS * _SHAPE_COLUMNS, _BACKDROP_COLUMNS], 1)

    label = draws.unit().view(-1, len(CLASSES)).argsort(1).flatten()  # every block has each class
    indoor = torch.tensor([name in _INDOOR for name in CLASSES])[label]
    kind = draws.among(torch.where(indoor[:, None], _INDOORS, _BACKDROP_SHARES))
    grounded = kind != PATTERN
    horizon = torch.where(kind == ROOM, draws.uniform(0.55, 0.8), draws.uniform(0.35, 0.68))
    standing = torch.maximum(draws.uniform(0.76, 0.98), horizon + 0.08)
    standing = torch.where(grounded, standing, draws.uniform(0.80, 0.98))
    objects = _objects(draws, label, grounded, horizon, standing)
    order = objects["order"].argsort(dim=1, stable=True)
    main = (order == 0).long().argmax(1)
    placed = {
        name: value.gather(1, order.view(*order.shape, *[1] * (value.ndim - 2)).expand_as(value))
        for name, value in objects.items()
        if name != "order"
    }
    scenes = Scenes(
        label=label,
        main=main,
        kind=kind,
        horizon=horizon,
        standing=standing,
        light=_light(draws, grounded),
        tint=torch.stack([draws.uniform(0.8, 1.1) for _ in range(3)], 1)
        * draws.uniform(0.55, 1.1)[:, None],
        motion=_motion(draws),
        shape=shape.reshape(padded, SLOTS, _SHAPE_COLUMNS),
        backdrop=backdrop,
        **placed,
    )
    return scenes.take(slice(0, count))


def _objects(
    draws: Draws, label: Tensor, grounded: Tensor, horizon: Tensor, standing: Tensor
) -> dict[str, Tensor]:
    """Every object's class, place and colours, the main object first; `order` sorts by depth."""
    count = draws.among(_OTHERS)
    mirror, rows = draws.sign(), []
    main_x = draws.uniform(0.32, 0.68)
    for slot in range(SLOTS):
        if slot == 0:
            kind = label
            x, y = main_x, standing
            scale = draws.uniform(0.46, 0.84)
            depth = torch.ones_like(x)
            y = torch.where(grounded, y, 0.5 + scale * draws.uniform(0.3, 0.55))
        else:
            kind = (label + 1 + draws.pick(len(CLASSES) - 1)) % len(CLASSES)
            kind = torch.where(slot <= count, kind, -1)
            mirror = -mirror if slot == 2 else draws.sign()
            x = main_x + mirror * draws.uniform(0.28, 0.5)
            near = draws.uniform(0.35, 1.3)
            y = torch.where(
                grounded, horizon + near * (standing - horizon), draws.uniform(0.2, 1.05)
            )
            scale = draws.uniform(0.28, 0.44) * torch.where(grounded, 0.55 + 0.5 * near, 1.0)
            depth = torch.where(grounded, near, torch.where(draws.chance(0.4), 1.2, 0.75))
        named = draws.among(_colour_shares()[kind])  # of no account where a slot is empty
        rows.append(
            {
                "order": torch.where(kind < 0, -1.0, depth),
                "object": kind,
                "x": x,
                "y": y,
                "scale": scale,
                "stretch": draws.sign() * draws.uniform(0.8, 1.25),
                "tilt": draws.uniform(-0.22, 0.22),
                "depth": depth,
                "named": named,
                "colour": palette.tone(draws, named),
                "accent": palette.tone(draws, palette.other(draws, named)),
            }
        )
    return {name: torch.stack([row[name] for row in rows], 1) for name in rows[0]}


def _colour_shares() -> Tensor:
    """How often each class `[C]` has each colour, `[C, colours]`."""
    shares = torch.full((len(CLASSES), len(palette.NAMES)), (1 - _LIKING) / len(palette.NAMES))
    for row, name in zip(shares, CLASSES, strict=True):
        liked = _LIKED_COLOURS[name].split()
        for colour in liked:
            row[palette.NAMES.index(colour)] += _LIKING / len(liked)
    return shares


def _light(draws: Draws, grounded: Tensor) -> Tensor:
    """Towards the light: from above over ground, from anywhere over a pattern."""
    angle = torch.where(grounded, draws.uniform(-1.2, 1.2), draws.uniform(-torch.pi, torch.pi))
    return torch.stack([angle.sin(), angle.cos()], 1)


def _motion(draws: Draws) -> Tensor:
    """The camera's motion to the second frame, as `Camera` takes it."""
    dx, dy = draws.uniform(-0.12, 0.12), draws.uniform(-0.12, 0.12)
    return torch.stack([dx, dy, draws.uniform(0.87, 1.15), draws.uniform(-0.15, 0.15)], 1)
