"""Cases of the colour loss, the moving average of weights and the nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.color import rgb_to_lab
from bench.kernels import color_ce, ema_update, knn_topk
from bench.nn.color_bins import ColorBins
from bench.profiling.case import Case, Draw, Grid, Inputs, Size, Work
from bench.profiling.peers import others as peers
from bench.profiling.peers.others import MOMENTUM, NEAREST

SIDE, BINS = 56, 313  # px of the predicted colours, and their classes
TENSORS = 16  # that the averaged weights come in


_BINS: dict[torch.device, ColorBins] = {}  # made once


def _colors(size: Size, draw: Draw) -> Inputs:
    ab = rgb_to_lab(draw(size.batch, 3, SIDE, SIDE).float().sigmoid())[:, 1:].contiguous()
    if ab.device not in _BINS:
        _BINS[ab.device] = ColorBins().to(ab.device)
    return {"logits": draw(size.batch, BINS, SIDE, SIDE, grad=True), "ab": ab}


def _color(x: Inputs) -> Tensor:
    return color_ce(x["logits"], x["ab"], _BINS[x["ab"].device])


def _logits(size: Size) -> Work:
    pixels = size.batch * SIDE**2
    return Work(0, pixels * (3 * BINS * size.bytes + 2 * 2 * 4))


def _weights(size: Size, draw: Draw) -> Inputs:
    assert size.dim is not None
    return {key: draw(TENSORS, size.batch, size.dim) for key in ("target", "source")}


def _average(x: Inputs) -> Tensor:
    ema_update(x["target"].unbind(0), x["source"].unbind(0), MOMENTUM)
    return x["target"]


def _moved(size: Size) -> Work:
    assert size.dim is not None
    return Work(0, 3 * TENSORS * size.batch * size.dim * size.bytes)


def _search(size: Size, draw: Draw) -> Inputs:
    assert size.dim is not None and size.keys is not None
    rows = {"query": draw(size.batch, size.dim), "bank": draw(size.keys, size.dim)}
    return {key: torch.nn.functional.normalize(each, dim=1) for key, each in rows.items()}


def _compared(size: Size) -> Work:
    assert size.dim is not None and size.keys is not None
    numbers = (size.batch + size.keys) * size.dim * size.bytes
    return Work(2 * size.batch * size.keys * size.dim, numbers + 12 * size.batch * NEAREST)


CASES = (
    Case(
        op="color_ce",
        inputs=_colors,
        call=_color,
        work=_logits,
        floor=f"(3 Q e + 16) bytes a pixel: Q = {BINS} logits read twice, gradients written",
        cpu=Grid((1, 2, 4, 8)),
        cuda=Grid((32, 64, 128, 256)),
        peers=peers.COLOR,
        notes=(f"N pictures of {SIDE} x {SIDE} px, {BINS} bins",),
    ),
    Case(
        op="ema_update",
        inputs=_weights,
        call=_average,
        work=_moved,
        floor=f"3 e bytes for each of {TENSORS} N D weights: two read, one written",
        cpu=Grid((256, 1024, 4096), (256,)),
        cuda=Grid((1024, 4096, 16384), (1024,)),
        peers=peers.MOVING,
        triton=False,
        backward=False,
        notes=(f"{TENSORS} tensors of N x D",),
    ),
    Case(
        op="knn_topk",
        inputs=_search,
        call=lambda x: knn_topk(x["query"], x["bank"], NEAREST)[0],
        work=_compared,
        floor=f"2 N K D FLOP; (N + K) D e + {12 * NEAREST} N bytes",
        cpu=Grid((256, 512, 1024), (128,), (16384,)),
        cuda=Grid((1024, 4096, 16384), (128, 256), (65536, 1_281_167)),
        peers=peers.NEIGHBORS,
        least_keys=NEAREST,
        products=True,
        backward=False,
        notes=(f"the {NEAREST} nearest, of equals the first",),
    ),
)
