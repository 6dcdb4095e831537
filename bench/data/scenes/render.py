"""Rendering a batch of scenes: shaded objects with soft shadows over their backdrops."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data.scenes import backdrops
from bench.data.scenes.camera import Camera
from bench.data.scenes.catalog import DRAW
from bench.data.scenes.compose import PATTERN, SLOTS, Scenes
from bench.data.scenes.draws import Draws
from bench.data.scenes.sketch import Part, Sketch

_AMBIENT, _DIFFUSE, _RIM = 1.0, 0.3, 0.14  # how bright a part is, and how that varies over it
_SHADOW = 0.42  # how much of the light a full shadow takes
CHUNK = 128 * 32 * 32  # pixels at a time: what one class has of them fits a core's cache


@dataclass(frozen=True)
class Rendered:
    """Pictures, and who is seen where."""

    pixels: Tensor  # [n, 3, h, w] uint8
    owner: Tensor  # [n, h, w] int8: the slot seen at each pixel; -1: the backdrop
    area: Tensor  # [n, K] pixels that each object would cover with nothing in front of it

    def take(self, index: slice) -> Rendered:
        """Those of the pictures at `index`."""
        return Rendered(self.pixels[index], self.owner[index], self.area[index])


def render(scenes: Scenes, size: int, moved: bool = False, workers: int | None = None) -> Rendered:
    """Render `scenes` at `size` x `size` pixels; `moved` renders the second frame.

    `workers` threads each render a part of the pictures (None: as many as torch uses).
    Arithmetic is float64 so that rounding to 8 bits gives the same bytes on every processor.
    """
    step = max(1, CHUNK // size**2)
    chunks = [scenes.take(slice(i, i + step)) for i in range(0, len(scenes), step)]
    with ThreadPoolExecutor(workers or torch.get_num_threads()) as pool:
        done = list(pool.map(_render, chunks, itertools.repeat(size), itertools.repeat(moved)))
    return Rendered(
        torch.cat([r.pixels for r in done]),
        torch.cat([r.owner for r in done]),
        torch.cat([r.area for r in done]),
    )


def _render(scenes: Scenes, size: int, moved: bool) -> Rendered:
    n = len(scenes)
    camera = Camera(n, size, scenes.motion if moved else None)
    canvas = backdrops.paint(scenes, camera)
    colour, alpha = _objects(scenes, camera)
    clear = 1 - alpha
    lit = 1 - _SHADOW * _shadows(scenes, camera, alpha)
    for slot in range(SLOTS):
        canvas *= (lit[:, slot] * clear[:, slot])[:, None]
        canvas += colour[:, slot]
    canvas *= scenes.tint[:, :, None, None] * 255
    pixels = canvas.round_().clamp_(0, 255).to(torch.uint8)
    return Rendered(pixels, _owner(alpha, clear), (alpha > 0.5).sum((2, 3)))


def _owner(alpha: Tensor, clear: Tensor) -> Tensor:
    """The slot, or -1 for the backdrop, that contributes most to each pixel."""
    left = torch.ones_like(alpha[:, 0])  # what objects further to the front let through
    best = torch.zeros_like(left)
    owner = torch.full_like(left, -1, dtype=torch.int8)
    for slot in reversed(range(SLOTS)):
        seen = left * alpha[:, slot]
        owner = torch.where(seen > best, slot, owner)
        best = torch.maximum(best, seen)
        left *= clear[:, slot]
    return torch.where(left >= best, -1, owner)


def _objects(scenes: Scenes, camera: Camera) -> tuple[Tensor, Tensor]:
    """Colours times coverage `[n, K, 3, h, w]` and coverage `[n, K, h, w]` of every object."""
    n, size = len(scenes), camera.size
    colour = torch.zeros(n, SLOTS, 3, size, size, dtype=torch.float64)
    alpha = torch.zeros(n, SLOTS, size, size, dtype=torch.float64)
    for value, draw in enumerate(DRAW.values()):
        row, slot = (scenes.object == value).nonzero(as_tuple=True)
        if not len(row):
            continue
        sketch = Sketch(
            Draws(scenes.shape[row, slot]), scenes.colour[row, slot], scenes.accent[row, slot]
        )
        draw(sketch)
        depth = scenes.depth[row, slot][:, None, None]
        cameras = camera.take(row)
        px, py = cameras.points(depth)
        tilt, stretch, scale = (
            field[row, slot][:, None, None] for field in (scenes.tilt, scenes.stretch, scenes.scale)
        )
        dx = (px - scenes.x[row, slot][:, None, None]) / scale
        dy = (scenes.y[row, slot][:, None, None] - py) / scale
        x, y = (dx * tilt.cos() - dy * tilt.sin()) / stretch, dx * tilt.sin() + dy * tilt.cos()
        light = scenes.light[row] * torch.stack([stretch.flatten().sign(), torch.ones(len(row))], 1)
        sharp = scale * cameras.zoom(depth) * size
        colour[row, slot], alpha[row, slot] = _shade(sketch.parts, x, y, sharp, light)
    return colour, alpha


def _shade(
    parts: list[Part], x: Tensor, y: Tensor, sharp: Tensor, light: Tensor
) -> tuple[Tensor, Tensor]:
    """Lay the parts over one another; `sharp` `[n, 1, 1]` is pixels per object unit."""
    colour = torch.zeros(len(x), 3, *x.shape[1:], dtype=x.dtype)
    alpha = torch.zeros_like(x)
    full = torch.ones_like(x)
    tilt_x, tilt_y = (_DIFFUSE * light[:, axis, None, None] for axis in (0, 1))
    for part in parts:
        cover = (part.distance(x, y) * -sharp).add_(0.5).clamp_(0, 1)
        if part.present is not None:
            cover *= part.present[:, None, None]
        u = (x - part.centre[0]).div_(part.radius[0])
        v = (y - part.centre[1]).div_(part.radius[1])
        bright = (tilt_x - _RIM * u).mul_(u).add_((tilt_y - _RIM * v).mul_(v)).add_(_AMBIENT)
        colour.lerp_(part.colour[:, :, None, None] * bright[:, None], cover[:, None])
        alpha.lerp_(full, cover)
    return colour, alpha


def _shadows(scenes: Scenes, camera: Camera, alpha: Tensor) -> Tensor:
    """Soft shadows `[n, K, h, w]`: laid on the ground, or thrown on the surface behind."""
    n, size = len(scenes), camera.size
    place = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    x, y = place.view(1, 1, 1, size), place.view(1, 1, size, 1)
    lx, ly = scenes.light[:, 0, None, None, None], scenes.light[:, 1, None, None, None]
    scale = scenes.scale[:, :, None, None]
    base = camera.project(scenes.x, scenes.y, scenes.depth)[1][:, :, None, None]
    # On a surface the silhouette moves away from the light; on the ground it is laid flat behind
    # the object, sheared away from the light.
    above = base - y
    thrown_x, thrown_y = x + 0.08 * scale * lx, y - 0.08 * scale * ly
    laid_x, laid_y = x + 1.2 * lx * above, base - 3.5 * above
    surface = (scenes.kind == PATTERN)[:, None, None, None]
    grid_x = torch.where(surface, thrown_x.expand(n, SLOTS, size, size), laid_x)
    grid_y = torch.where(surface, thrown_y.expand(n, SLOTS, size, size), laid_y)
    grid = torch.stack([grid_x, grid_y], -1).reshape(n * SLOTS, size, size, 2) * 2 - 1
    width = max(3, size // 10 | 1)
    soft = F.avg_pool2d(alpha, width, 1, width // 2, count_include_pad=False)
    cast = F.grid_sample(soft.reshape(n * SLOTS, 1, size, size), grid, align_corners=False)
    return cast.view(n, SLOTS, size, size)
