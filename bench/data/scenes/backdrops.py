"""What stands behind the objects: open country, a room, or a patterned surface seen close up."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.scenes import palette, patterns
from bench.data.scenes.camera import Camera
from bench.data.scenes.compose import CLASSES, OUTDOOR, PATTERN, ROOM, Scenes
from bench.data.scenes.draws import Draws

FAR, WALL, SURFACE = 0.1, 0.45, 0.6  # how far each moves with the camera; the main object: 1
GROUNDS = ("grass", "sand", "water", "snow", "road", "earth")
SKIES = ("clear", "cloudy", "sunset", "night")
_GROUND_RGB = torch.tensor(
    [
        [0.36, 0.58, 0.25],
        [0.85, 0.74, 0.52],
        [0.20, 0.45, 0.66],
        [0.90, 0.93, 0.97],
        [0.45, 0.45, 0.48],
        [0.52, 0.38, 0.26],
    ],
    dtype=torch.float64,
)
_SKY_TOP = torch.tensor(
    [[0.30, 0.55, 0.90], [0.55, 0.65, 0.75], [0.35, 0.30, 0.55], [0.05, 0.07, 0.20]],
    dtype=torch.float64,
)
_SKY_LOW = torch.tensor(
    [[0.75, 0.88, 0.98], [0.82, 0.86, 0.90], [0.98, 0.62, 0.38], [0.20, 0.22, 0.40]],
    dtype=torch.float64,
)
# How often each ground bears each class, a little as in the world: the backdrop hints, no more.
_LIKING = {"boat": (1, 1, 3, 1, 1, 1), "fish": (1, 2, 3, 1, 1, 1), "car": (1, 1, 0.5, 1, 3, 1)}


def paint(scenes: Scenes, camera: Camera) -> Tensor:
    """The backdrops of a batch, `[n, 3, h, w]` in [0, 1]."""
    out = torch.empty(len(scenes), 3, camera.size, camera.size, dtype=torch.float64)
    for kind, painter in ((OUTDOOR, _outdoor), (ROOM, _room), (PATTERN, _surface)):
        at = (scenes.kind == kind).nonzero().flatten()
        if len(at):
            out[at] = painter(scenes.take(at), camera.take(at))
    return out


def ground_of(scenes: Scenes) -> Tensor:
    """Index into `GROUNDS` of each outdoor picture's ground, `[n]`."""
    liking = torch.tensor([_LIKING.get(name, (1.0,) * len(GROUNDS)) for name in CLASSES])
    return Draws(scenes.backdrop[:, :1]).among(liking[scenes.label])


def sky_of(scenes: Scenes) -> Tensor:
    """Index into `SKIES` of each outdoor picture's sky, `[n]`."""
    return Draws(scenes.backdrop[:, 1:2]).among(torch.tensor([0.4, 0.25, 0.2, 0.15]))


def pattern_of(scenes: Scenes) -> Tensor:
    """Index into `patterns.NAMES` of each room's wall or each surface, `[n]`."""
    return Draws(scenes.backdrop[:, 2:3]).pick(len(patterns.NAMES))


def surface_colour_of(scenes: Scenes) -> Tensor:
    """Index into the palette of a wall's or surface's first colour: never the main object's."""
    main = scenes.named.gather(1, scenes.main[:, None]).squeeze(1)
    return palette.other(Draws(scenes.backdrop[:, 3:4]), main)


def _blend(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Colours `[n, 3]` or `[n, 3, h, w]` blended by `share` `[n, h, w]`."""
    a = a[:, :, None, None] if a.ndim == 2 else a
    b = b[:, :, None, None] if b.ndim == 2 else b
    return a + (b - a) * share[:, None]


def _outdoor(scenes: Scenes, camera: Camera) -> Tensor:
    draws = Draws(scenes.backdrop[:, 4:])
    n, pixel = len(scenes), 1.0 / camera.size
    ground, sky = ground_of(scenes), sky_of(scenes)
    horizon = scenes.horizon[:, None, None]
    x, y = camera.points(torch.full((n, 1, 1), FAR, dtype=torch.float64))

    hue = torch.stack([draws.uniform(-0.08, 0.08) for _ in range(3)], 1)
    top, low = (_SKY_TOP[sky] + hue).clamp(0, 1), (_SKY_LOW[sky] - hue).clamp(0, 1)
    canvas = _blend(low, top, ((horizon - y) / horizon).clamp(0, 1))
    sun_x, sun_y = 0.5 + 0.45 * scenes.light[:, 0], draws.uniform(0.05, 0.3)
    away = ((x - sun_x[:, None, None]).square() + (y - sun_y[:, None, None]).square()).sqrt()
    disc = torch.tensor([1.0, 0.97, 0.8], dtype=torch.float64).expand(n, 3)
    shown = (draws.chance(0.5) & (sky != 1))[:, None, None]
    canvas = _blend(canvas, disc, shown * ((0.06 - away) / pixel + 0.5).clamp(0, 1))
    canvas = _blend(canvas, disc, shown * 0.25 * (1 - away / 0.3).clamp(0, 1).square())
    clouds = patterns.noise(x * 0.8, y * 2.2, draws)
    cover = torch.where(sky == 1, 0.9, 0.5 * draws.unit())[:, None, None]
    canvas = _blend(canvas, _paler(low), cover * ((clouds - 0.55) * 4).clamp(0, 1))

    phase, roll = draws.uniform(0, 6.3)[:, None, None], draws.uniform(3, 9)[:, None, None]
    height = draws.uniform(0.0, 0.22)[:, None, None]
    ridge = horizon - height * (
        0.45 + 0.35 * (x * roll + phase).sin() + 0.2 * (x * roll * 2.3).cos()
    )
    hills = palette.mix(palette.tone(draws, draws.pick(len(palette.NAMES)), 0.15), low, 0.55)
    canvas = _blend(canvas, hills, ((y - ridge) / pixel + 0.5).clamp(0, 1))

    near = ((y - horizon) / (1 - horizon)).clamp(0, 1)
    gx, gy = camera.points(FAR + (1 - FAR) * near)
    # Perspective: a ground point's distance grows as the inverse of its height below the horizon.
    away = 0.25 / (near + 0.12)
    period = draws.uniform(3.0, 7.0)[:, None, None]
    base = (
        _GROUND_RGB[ground] + torch.stack([draws.uniform(-0.1, 0.1) for _ in range(3)], 1)
    ).clamp(0, 1)
    dark = palette.mix(base, torch.zeros_like(base), draws.uniform(0.12, 0.3))
    kind = torch.where(draws.chance(0.7), 5, draws.pick(len(patterns.NAMES)))
    u, v = (gx - 0.5) * away * period * 2, away * period * 2 + (gy - y) * period
    land = _blend(base, dark, patterns.pattern(kind, u, v, away * period * 2 * pixel, draws))
    land = _blend(land, low, 0.45 * (1 - near).clamp(0, 1).square())
    canvas = _blend(canvas, land, ((y - horizon) / pixel + 0.5).clamp(0, 1))
    dim = torch.where(sky == 3, 0.55, 1.0)
    return canvas * dim[:, None, None, None]


def _paler(colour: Tensor) -> Tensor:
    return palette.mix(colour, torch.ones_like(colour), 0.6)


def _room(scenes: Scenes, camera: Camera) -> Tensor:
    draws = Draws(scenes.backdrop[:, 4:])
    n, pixel = len(scenes), 1.0 / camera.size
    horizon = scenes.horizon[:, None, None]
    x, y = camera.points(torch.full((n, 1, 1), WALL, dtype=torch.float64))
    first = surface_colour_of(scenes)
    pale = draws.uniform(0.1, 0.6)
    wall_a = palette.mix(palette.tone(draws, first), torch.ones(n, 3, dtype=torch.float64), pale)
    wall_b = palette.mix(
        wall_a, palette.tone(draws, palette.other(draws, first)), draws.uniform(0.15, 0.6)
    )
    period = draws.uniform(3, 8)[:, None, None]
    wall = _blend(
        wall_a,
        wall_b,
        patterns.pattern(pattern_of(scenes), x * period, y * period, period * pixel, draws),
    )

    fx, fy = (
        draws.uniform(0.05, 0.95)[:, None, None],
        horizon * draws.uniform(0.3, 0.55)[:, None, None],
    )
    rx, ry = draws.uniform(0.08, 0.2)[:, None, None], draws.uniform(0.08, 0.18)[:, None, None]
    frame = torch.maximum((x - fx).abs() - rx, (y - fy).abs() - ry)
    shown = draws.chance(0.5)[:, None, None]
    wood = palette.tone(draws, draws.pick(len(palette.NAMES)))
    view = palette.tone(draws, draws.pick(len(palette.NAMES)))
    wall = _blend(wall, wood, shown * (0.5 - frame / pixel).clamp(0, 1))
    wall = _blend(wall, view, shown * (0.5 - (frame + 0.03) / pixel).clamp(0, 1))

    near = ((y - horizon) / (1 - horizon)).clamp(0, 1)
    gx, gy = camera.points(WALL + (1 - WALL) * near)
    away = 0.5 / (near + 0.35)
    period = draws.uniform(2, 5)[:, None, None]
    floor_a = palette.tone(draws, palette.other(draws, first))
    floor_b = palette.mix(floor_a, torch.zeros_like(floor_a), draws.uniform(0.1, 0.5))
    u, v = (gx - 0.5) * away * period, away * period * 2 + (gy - y) * period
    floor = _blend(
        floor_a,
        floor_b,
        patterns.pattern(draws.pick(len(patterns.NAMES)), u, v, away * period * pixel, draws),
    )
    edge = (1 - ((y - horizon).abs() / 0.02)).clamp(0, 1)
    room = _blend(wall, floor, ((y - horizon) / pixel + 0.5).clamp(0, 1))
    return room * (1 - 0.3 * edge * draws.unit()[:, None, None])[:, None]


def _surface(scenes: Scenes, camera: Camera) -> Tensor:
    draws = Draws(scenes.backdrop[:, 4:])
    n, pixel = len(scenes), 1.0 / camera.size
    x, y = camera.points(torch.full((n, 1, 1), SURFACE, dtype=torch.float64))
    angle = draws.uniform(0, 2 * torch.pi)[:, None, None]
    period = draws.uniform(2, 8)[:, None, None]
    u = (x * angle.cos() + y * angle.sin()) * period + draws.unit()[:, None, None]
    v = (y * angle.cos() - x * angle.sin()) * period
    first = surface_colour_of(scenes)
    a = palette.tone(draws, first, 0.12)
    b = palette.mix(
        a, palette.tone(draws, palette.other(draws, first), 0.12), draws.uniform(0.2, 0.9)
    )
    flat = _blend(a, b, patterns.pattern(pattern_of(scenes), u, v, period * pixel, draws))
    # Light falls off across the surface in any direction.
    fall = draws.uniform(0, 2 * torch.pi)[:, None, None]
    slope = (x - 0.5) * fall.cos() + (y - 0.5) * fall.sin()
    return flat * (1 + 0.5 * draws.unit()[:, None, None] * slope)[:, None]
