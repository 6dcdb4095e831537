"""Rendering of declared views: a whole batch at once, on the device that holds the pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from bench.api import DataInfo, Op, View
from bench.data.ops import CenterCrop, HorizontalFlip, Normalize, Resize
from bench.data.ops.crop import Crop
from bench.data.parts import job_threads

WHOLE = 96  # px: pictures stored up to this size are evaluated whole
CROP = 0.875  # else the central share of the shorter side: 224 of 256
CACHED = 2**17  # values (float32) that a CPU core keeps in its cache, with what is made of them

Stage = tuple[Op, Mapping[str, Tensor]]


def render(
    view: View, pixels: Tensor, rng: torch.Generator, aspect: Tensor | None = None
) -> list[Tensor]:
    """`view.count` independent renderings of every picture.

    Operations run in their order, on values in [0, 1] until `Normalize`. Every crop comes out at
    the view's size; a view without one is resized first. All of a batch's parameters are drawn
    before any is applied, so how the work is cut up does not change them.

    Args:
        view: what to render.
        pixels: stored pictures, uint8 `[B, 3, H, W]`, on any device.
        rng: the source of all randomness, on the same device.
        aspect: `[B]` true width/height of pictures that are stored squashed, on the same device.

    Returns:
        `view.count` tensors `[B, 3, s, s]`, float32, contiguous; s is the view's or stored size.
    """
    stored = (pixels.shape[2], pixels.shape[3])
    size = (view.size, view.size) if view.size else stored
    ops = view.ops
    if size != stored and not any(isinstance(op, Crop) for op in ops):
        ops = (Resize(), *ops)
    n = len(pixels)

    def draw() -> list[Stage]:
        return _draw(ops, n, rng, stored, size, aspect)

    outs = [torch.empty(n, 3, *size, device=pixels.device) for _ in range(view.count)]
    if pixels.device.type != "cpu":
        for out in outs:
            _apply(draw(), pixels, size, out)
        return outs
    parts = _parts(n, 3 * max(size[0] * size[1], stored[0] * stored[1]))
    with job_threads() as do:
        drawn = [draw() for _ in outs]
        do(
            partial(_apply, _part(stages, part), pixels[part], size, out[part])
            for stages, out in zip(drawn, outs, strict=True)
            for part in parts
        )
    return outs


def eval_view(info: DataInfo, size: int | None = None) -> View:
    """The plain transform of evaluation: the picture at `size` pixels (None: its own), normalised.

    Pictures stored at up to 96 px are seen whole, larger ones through the central 0.875 of their
    shorter side, as 224 of 256 in the ImageNet protocols.
    """
    whole = info.size <= WHOLE
    crop = Resize() if whole else CenterCrop(fraction=CROP)
    own = info.size if whole else round(info.size * CROP)
    return View("eval", (crop, Normalize(mean=info.mean, std=info.std)), size or own)


def _draw(
    ops: tuple[Op, ...],
    n: int,
    rng: torch.Generator,
    stored: tuple[int, int],
    size: tuple[int, int],
    aspect: Tensor | None,
) -> list[Stage]:
    """Every operation with its parameters; a flip straight after a crop becomes part of it."""
    stages: list[tuple[Op, dict[str, Tensor]]] = []
    now = stored
    for op in ops:
        params = op.sample(n, rng, now, aspect)
        if isinstance(op, HorizontalFlip) and stages:
            previous, drawn = stages[-1]
            if isinstance(previous, Crop) and "flip" not in drawn:
                drawn.update(params)
                continue
        stages.append((op, params))
        if isinstance(op, Crop):
            now = size
            aspect = None if op.straightens else aspect
    return [(op, params) for op, params in stages]


def _apply(stages: list[Stage], pixels: Tensor, size: tuple[int, int], out: Tensor) -> None:
    """Run the stages on `pixels`, into `out`."""
    x = pixels
    for op, params in stages:
        x = op.cut(x, params, size) if isinstance(op, Crop) else op.apply(_unit(x), params)
    out.copy_(_unit(x))


def _part(stages: list[Stage], part: slice) -> list[Stage]:
    return [(op, {name: drawn[part] for name, drawn in params.items()}) for op, params in stages]


def _unit(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x / 255


def _parts(n: int, values: int) -> list[slice]:
    """Slices of `n` pictures of `values` numbers, as equal as can be, that fit a core's cache."""
    count = max(1, math.ceil(n * values / CACHED))
    step = max(1, math.ceil(n / count))
    return [slice(start, start + step) for start in range(0, n, step)]
