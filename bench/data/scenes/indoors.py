"""Rooms with a wall and a floor, and patterned surfaces seen close up, where no side is up."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.scenes import palette, patterns, setting
from bench.data.scenes.camera import Camera
from bench.data.scenes.compose import Scenes
from bench.data.scenes.draws import Draws
from bench.data.scenes.planes import blend, coverage, plane

_WALL, _SURFACE = 0.45, 0.6  # how far each moves with the camera; the main object: 1


def paint_room(scenes: Scenes, camera: Camera) -> Tensor:
    """A papered wall, on half of them a picture, over a patterned floor, `[n, 3, h, w]`."""
    draws = setting.details(scenes)
    horizon = plane(scenes.horizon)
    x, y = camera.points(torch.full_like(horizon, _WALL))
    wall = _wall(scenes, draws, x, y, camera.pixel)
    wall = _picture(wall, draws, horizon, x, y, camera.pixel)
    near = ((y - horizon) / (1 - horizon)).clamp(0, 1)
    floor = _floor(scenes, camera, draws, near, y)
    edge = (1 - (y - horizon).abs() / 0.02).clamp(0, 1)
    room = blend(wall, floor, coverage(y - horizon, camera.pixel))
    return room * (1 - 0.3 * edge * plane(draws.unit()))[:, None]


def paint_surface(scenes: Scenes, camera: Camera) -> Tensor:
    """A flat pattern turned any way, under light that falls off any way, `[n, 3, h, w]`."""
    draws = setting.details(scenes)
    x, y = camera.points(torch.full_like(plane(scenes.horizon), _SURFACE))
    angle, period = plane(draws.uniform(0, 2 * torch.pi)), plane(draws.uniform(2, 8))
    u = (x * angle.cos() + y * angle.sin()) * period + plane(draws.unit())
    v = (y * angle.cos() - x * angle.sin()) * period
    first = setting.surface_colour(scenes)
    a = palette.tone(draws, first, 0.12)
    b = palette.tone(draws, palette.other(draws, first), 0.12)
    b = palette.mix(a, b, draws.uniform(0.2, 0.9))
    share = patterns.pattern(setting.pattern(scenes), u, v, period * camera.pixel, draws)
    fall = plane(draws.uniform(0, 2 * torch.pi))
    slope = (x - 0.5) * fall.cos() + (y - 0.5) * fall.sin()
    return blend(a, b, share) * (1 + 0.5 * plane(draws.unit()) * slope)[:, None]


def _wall(scenes: Scenes, draws: Draws, x: Tensor, y: Tensor, pixel: float) -> Tensor:
    first = setting.surface_colour(scenes)
    pale = draws.uniform(0.1, 0.6)
    a = palette.tone(draws, first)
    a = palette.mix(a, torch.ones_like(a), pale)
    b = palette.tone(draws, palette.other(draws, first))
    b = palette.mix(a, b, draws.uniform(0.15, 0.6))
    period = plane(draws.uniform(3, 8))
    kind = setting.pattern(scenes)
    return blend(a, b, patterns.pattern(kind, x * period, y * period, period * pixel, draws))


def _picture(
    wall: Tensor, draws: Draws, horizon: Tensor, x: Tensor, y: Tensor, pixel: float
) -> Tensor:
    at_x, at_y = plane(draws.uniform(0.05, 0.95)), horizon * plane(draws.uniform(0.3, 0.55))
    half_x, half_y = plane(draws.uniform(0.08, 0.2)), plane(draws.uniform(0.08, 0.18))
    inside = torch.minimum(half_x - (x - at_x).abs(), half_y - (y - at_y).abs())
    shown = plane(draws.chance(0.5))
    frame = palette.tone(draws, draws.pick(len(palette.NAMES)))
    sheet = palette.tone(draws, draws.pick(len(palette.NAMES)))
    wall = blend(wall, frame, shown * coverage(inside, pixel))
    return blend(wall, sheet, shown * coverage(inside - 0.03, pixel))


def _floor(scenes: Scenes, camera: Camera, draws: Draws, near: Tensor, y: Tensor) -> Tensor:
    """A floor or table top; `near` `[n, h, w]` is 0 at the wall and 1 at the lower border."""
    moved_x, moved_y = camera.points(_WALL + (1 - _WALL) * near)
    period = plane(draws.uniform(2, 5))
    a = palette.tone(draws, palette.other(draws, setting.surface_colour(scenes)))
    b = palette.mix(a, torch.zeros_like(a), draws.uniform(0.1, 0.5))
    away = 0.5 / (near + 0.35) * period
    u, v = (moved_x - 0.5) * away, away * 2 + (moved_y - y) * period
    kind = draws.pick(len(patterns.NAMES))
    return blend(a, b, patterns.pattern(kind, u, v, away * camera.pixel, draws))
