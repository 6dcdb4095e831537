"""Rendering of declared views: a whole batch at once, on the device that holds the pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from bench.api import DataInfo, Op, View
from bench.data.ops import CenterCrop, HorizontalFlip, Normalize, Resize
from bench.data.ops.crop import Crop
from bench.data.ops.draw import BRANCHES, Branching, put
from bench.data.ops.resample import resample
from bench.data.threads import job_threads

WHOLE = 96  # px: pictures stored up to this size are evaluated whole
CROP = 0.875  # else the central share of the shorter side: 224 of 256
CACHED = 2**19  # values of a part of a batch: with what is made of them, about a CPU core's cache

Stage = tuple[Callable[[Tensor, Mapping[str, Tensor]], Tensor], Mapping[str, Tensor]]


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
    outs = [torch.empty(len(pixels), 3, *size, device=pixels.device) for _ in range(view.count)]
    if pixels.device.type != "cpu":
        for out in outs:
            stages, _ = _draw(ops, len(pixels), rng, stored, size, aspect)
            out.copy_(_apply(stages, pixels))
        return outs
    values = 3 * len(pixels) * max(size[0] * size[1], stored[0] * stored[1])
    count = max(1, min(len(pixels), math.ceil(values / CACHED)))
    with job_threads() as do:
        drawn = [_draw(ops, len(pixels), rng, stored, size, aspect) for _ in outs]
        do(
            partial(_apply_part, stages, pixels, out, part)
            for (stages, branch), out in zip(drawn, outs, strict=True)
            for part in branch.argsort(stable=True).tensor_split(count)
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
) -> tuple[list[Stage], Tensor]:
    """What to do with which parameters, and each picture's branch through it all, `[n]`."""
    stages: list[Stage] = []
    branch = torch.zeros(n, dtype=torch.int64, device=rng.device)
    now, waiting = stored, list(ops)
    while waiting:
        op = waiting.pop(0)
        params = op.sample(n, rng, now, aspect)
        if isinstance(op, Crop):
            if waiting and isinstance(waiting[0], HorizontalFlip):  # for free while resampling
                params |= waiting.pop(0).sample(n, rng, size, aspect)
            stages.append((resample, op.taps(params, now, size)))
            now = size
            aspect = None if op.straightens else aspect
            continue
        stages.append((op.apply, params))
        if isinstance(op, Branching):
            branch = branch * BRANCHES + op.branch(params)
    return stages, branch


def _apply(stages: Sequence[Stage], pixels: Tensor) -> Tensor:
    x = pixels
    for function, params in stages:
        x = function(x if function is resample else _unit(x), params)
    return _unit(x)


def _apply_part(stages: list[Stage], pixels: Tensor, out: Tensor, part: Tensor) -> None:
    # index_select copies whole pictures, x[part] every value on its own: many times slower.
    own = [
        (function, {name: drawn.index_select(0, part) for name, drawn in params.items()})
        for function, params in stages
    ]
    put(out, part, _apply(own, pixels.index_select(0, part)))


def _unit(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x / 255
