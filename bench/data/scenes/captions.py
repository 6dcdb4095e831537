"""A sentence about each picture: its main object, where that is, and what else is there."""

from __future__ import annotations

from torch import Tensor

from bench.data.scenes import palette, patterns, setting
from bench.data.scenes.catalog import CLASSES
from bench.data.scenes.compose import OUTDOOR, ROOM, Scenes

_GROUND = {
    "grass": "on a meadow",
    "sand": "on the sand",
    "water": "on the water",
    "snow": "in the snow",
    "road": "on grey asphalt",
    "earth": "on bare earth",
}
_SKY = {
    "clear": "under a clear sky",
    "cloudy": "under a cloudy sky",
    "sunset": "at sunset",
    "night": "at night",
}


def describe(scenes: Scenes, slot: Tensor) -> list[str]:
    """One sentence per picture; `slot` `[n, K]` lists the visible objects, the main one first."""
    wording = (scenes.backdrop[:, -1] * 3).long().tolist()
    objects, named = scenes.object.tolist(), scenes.named.tolist()
    x, depth = scenes.x.tolist(), scenes.depth.tolist()
    places = _places(scenes)
    sentences = []
    for i, slots in enumerate(slot.tolist()):
        main, *others = [s for s in slots if s >= 0]
        subject = _noun(objects[i][main], named[i][main])
        company = _listed(
            [
                _noun(objects[i][s], named[i][s], "small ")
                + _side(x[i][s], depth[i][s], x[i][main])
                for s in others
            ]
        )
        if wording[i] == 0 and company:
            text = f"{subject} with {company}, {places[i]}"
        elif wording[i] == 1:
            text = f"{places[i]}, {subject}" + (f"; also {company}" if company else "")
        else:
            text = f"{subject} {places[i]}" + (f", with {company}" if company else "")
        sentences.append(text[0].upper() + text[1:] + ".")
    return sentences


def _noun(kind: int, colour: int, size: str = "") -> str:
    name, hue = CLASSES[kind], palette.NAMES[colour]
    if name == "person":
        return f"a {size}person in {hue}"
    first = f"{size}{hue}"
    return f"{'an' if first[0] in 'aeiou' else 'a'} {first} {name}"


def _side(x: float, depth: float, main_x: float) -> str:
    nearness = "in front of it" if depth > 1 else "behind it"
    return f" {nearness} on the {'left' if x < main_x else 'right'}"


def _listed(items: list[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _places(scenes: Scenes) -> list[str]:
    """Where each picture is set."""
    ground, sky = setting.ground(scenes).tolist(), setting.sky(scenes).tolist()
    design = setting.pattern(scenes).tolist()
    hue = setting.surface_colour(scenes).tolist()
    places = []
    for i, kind in enumerate(scenes.kind.tolist()):
        if kind == OUTDOOR:
            places.append(f"{_GROUND[setting.GROUNDS[ground[i]]]} {_SKY[setting.SKIES[sky[i]]]}")
        else:
            look = f"{patterns.NAMES[design[i]]} {palette.NAMES[hue[i]]}"
            room = kind == ROOM
            places.append(f"in a room with a {look} wall" if room else f"on a {look} surface")
    return places
