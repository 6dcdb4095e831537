"""The classes, and how an object of each is drawn."""

from __future__ import annotations

from collections.abc import Callable

from bench.data.scenes import creatures, made, plants
from bench.data.scenes.sketch import Sketch

DRAW: dict[str, Callable[[Sketch], None]] = {
    "bird": creatures.bird,
    "boat": made.boat,
    "car": made.car,
    "cat": creatures.cat,
    "chair": made.chair,
    "fish": creatures.fish,
    "house": made.house,
    "lamp": made.lamp,
    "mug": made.mug,
    "mushroom": plants.mushroom,
    "person": creatures.person,
    "tree": plants.tree,
}
CLASSES = tuple(DRAW)
