"""Open country: a sky with sun and clouds, hills, and ground that recedes to the horizon."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.scenes import palette, patterns, setting
from bench.data.scenes.camera import Camera
from bench.data.scenes.compose import Scenes
from bench.data.scenes.draws import Draws
from bench.data.scenes.planes import blend, coverage, plane

_FAR = 0.1  # how far the horizon moves with the camera; the main object: 1
_SUN = 0.06  # radius
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
_CLOUDY, _NIGHT = setting.SKIES.index("cloudy"), setting.SKIES.index("night")
_MOTTLED = patterns.NAMES.index("mottled")


def paint(scenes: Scenes, camera: Camera) -> Tensor:
    """Outdoor backdrops, `[n, 3, h, w]`."""
    draws = setting.details(scenes)
    sky = setting.sky(scenes)
    horizon = plane(scenes.horizon)
    x, y = camera.points(torch.full_like(horizon, _FAR))
    hue = _any_hue(draws, 0.08)
    top, low = (_SKY_TOP[sky] + hue).clamp(0, 1), (_SKY_LOW[sky] - hue).clamp(0, 1)
    canvas = blend(low, top, ((horizon - y) / horizon).clamp(0, 1))
    canvas = _sun(canvas, scenes, draws, x, y, camera.pixel)
    canvas = _clouds(canvas, scenes, draws, low, x, y)
    canvas = _hills(canvas, horizon, draws, low, x, y, camera.pixel)
    near = ((y - horizon) / (1 - horizon)).clamp(0, 1)
    land = _ground(scenes, camera, draws, low, near, y)
    canvas = blend(canvas, land, coverage(y - horizon, camera.pixel))
    return canvas * torch.where(sky == _NIGHT, 0.55, 1.0)[:, None, None, None]


def _sun(
    canvas: Tensor, scenes: Scenes, draws: Draws, x: Tensor, y: Tensor, pixel: float
) -> Tensor:
    """In about half of the skies that are not overcast, a disc and its halo on the light's side."""
    at_x, at_y = 0.5 + 0.45 * scenes.light[:, 0], draws.uniform(0.05, 0.3)
    away = ((x - plane(at_x)).square() + (y - plane(at_y)).square()).sqrt()
    white = torch.tensor([1.0, 0.97, 0.8], dtype=canvas.dtype).expand(len(canvas), 3)
    shown = plane(draws.chance(0.5) & (setting.sky(scenes) != _CLOUDY))
    canvas = blend(canvas, white, shown * coverage(_SUN - away, pixel))
    return blend(canvas, white, shown * 0.25 * (1 - away / (5 * _SUN)).clamp(0, 1).square())


def _clouds(
    canvas: Tensor, scenes: Scenes, draws: Draws, low: Tensor, x: Tensor, y: Tensor
) -> Tensor:
    blotches = patterns.noise(x * 0.8, y * 2.2, draws)
    cover = torch.where(setting.sky(scenes) == _CLOUDY, 0.9, 0.5 * draws.unit())
    pale = palette.mix(low, torch.ones_like(low), 0.6)
    return blend(canvas, pale, plane(cover) * ((blotches - 0.55) * 4).clamp(0, 1))


def _hills(
    canvas: Tensor,
    horizon: Tensor,
    draws: Draws,
    low: Tensor,
    x: Tensor,
    y: Tensor,
    pixel: float,
) -> Tensor:
    """A ridge in the haze, in the sky's lower colour for the most part."""
    phase, rate = plane(draws.uniform(0, 6.3)), plane(draws.uniform(3, 9))
    wave = 0.45 + 0.35 * (x * rate + phase).sin() + 0.2 * (x * rate * 2.3).cos()
    ridge = horizon - plane(draws.uniform(0.0, 0.22)) * wave
    hue = palette.tone(draws, draws.pick(len(palette.NAMES)), 0.15)
    return blend(canvas, palette.mix(hue, low, 0.55), coverage(y - ridge, pixel))


def _ground(
    scenes: Scenes, camera: Camera, draws: Draws, low: Tensor, near: Tensor, y: Tensor
) -> Tensor:
    """Textured ground; `near` `[n, h, w]` is 0 at the horizon and 1 at the lower border."""
    moved_x, moved_y = camera.points(_FAR + (1 - _FAR) * near)
    period = plane(draws.uniform(3.0, 7.0))
    base = (_GROUND_RGB[setting.ground(scenes)] + _any_hue(draws, 0.1)).clamp(0, 1)
    dark = palette.mix(base, torch.zeros_like(base), draws.uniform(0.12, 0.3))
    kind = torch.where(draws.chance(0.7), _MOTTLED, draws.pick(len(patterns.NAMES)))
    # Perspective: a ground point's distance grows as the inverse of its height below the horizon.
    away = 0.25 / (near + 0.12) * period * 2
    u, v = (moved_x - 0.5) * away, away + (moved_y - y) * period
    land = blend(base, dark, patterns.pattern(kind, u, v, away * camera.pixel, draws))
    return blend(land, low, 0.45 * (1 - near).square())


def _any_hue(draws: Draws, spread: float) -> Tensor:
    return torch.stack([draws.uniform(-spread, spread) for _ in range(3)], 1)
