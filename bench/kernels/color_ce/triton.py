"""The cross-entropy of colours in Triton: logits are read once, and again for the gradient.

A program has some pixels of a picture. It finds how far their tenth nearest bin is, which says of
every bin whether it is among the ten, and then streams the logits: neither labels nor logarithms
of them are ever in memory, only five numbers a pixel. Distances are computed without fused
multiply-add, so that they, and which bins are equally near, are those of the reference.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench.kernels.color_ce.reference import NEAREST, SIGMA, Bins, has_color
from bench.kernels.contrast import tl_type

BINS = 64  # of a tile
STATS = 5  # numbers kept of a pixel for the backward pass


def color_ce(logits: Tensor, ab: Tensor, bins: Bins, weights: Tensor | None) -> Tensor:
    """`bench.kernels.color_ce`."""
    dtype = torch.promote_types(ab.dtype, bins.centers.dtype)
    if weights is None:
        weights = bins.centers.new_ones(len(bins.centers))
    loss: Tensor = _ColorCE.apply(
        logits,
        ab.detach().to(dtype),
        bins.nearest(ab),
        bins.centers.to(dtype),
        bins.around,
        weights.detach().to(dtype),
        has_color(ab),
    )
    return loss


class _ColorCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, ab: Tensor, cell: Tensor, centers: Tensor, around: Tensor,
        weights: Tensor, colored: Tensor,
    ) -> Tensor:  # fmt: skip
        entropy, stats = color_entropy(logits, ab, cell, centers, around, weights, colored)
        ctx.save_for_backward(logits, ab, centers, stats)
        loss: Tensor = entropy.mean()
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, ab, centers, stats = ctx.saved_tensors
        return color_grad(grad / stats[0].numel(), logits, ab, centers, stats), *[None] * 6


@triton.jit
def _squared(a, b, center_a, center_b):
    """Squared distances, rounded after each operation: not to be contracted."""
    da = center_a - a
    db = center_b - b
    return da * da + db * db


@triton.jit
def _entropy(
    logits, ab, cell, centers, around, near, weights, colored, entropy, stats,
    pixels, logits_n, logits_q, logits_p, Q: tl.constexpr, AROUND: tl.constexpr,
    COUNT: tl.constexpr, WIDTH: tl.constexpr, ACC: tl.constexpr,
    BP: tl.constexpr, BQ: tl.constexpr, BA: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    valid = pixel < pixels
    a = tl.load(ab + 2 * n * pixels + pixel, valid, other=0.0)[:, None]
    b = tl.load(ab + (2 * n + 1) * pixels + pixel, valid, other=0.0)[:, None]
    start = tl.load(cell + n * pixels + pixel, valid, other=0) * AROUND

    # The bins around, nearest first: each is the least that comes after the one before it.
    place = tl.arange(0, BA)[None, :]
    at = near + 2 * (start[:, None] + place)
    inside = place < AROUND
    far = _squared(a, b, tl.load(at, inside, other=0.0), tl.load(at + 1, inside, other=0.0))
    far = tl.where(inside, far, float("inf"))
    last = tl.full([BP], -1.0, ACC)
    where = tl.full([BP], -1, tl.int32)
    first = last
    own = where
    total = tl.zeros([BP], ACC)
    for step in range(COUNT):
        beyond = (far > last[:, None]) | ((far == last[:, None]) & (place > where[:, None]))
        last = tl.min(tl.where(beyond, far, float("inf")), 1)
        equal = beyond & (far == last[:, None])
        where = tl.min(tl.where(equal, place, BA), 1)
        first = tl.where(step == 0, last, first)
        own = tl.where(step == 0, where, own)
        total += tl.exp((first - last) / WIDTH)
    tenth = tl.load(around + start + where, valid, other=0)
    own = tl.load(around + start + own, valid, other=0)
    offset = first / WIDTH - tl.log(total)

    best = tl.full([BP], -float("inf"), ACC)
    norm = tl.zeros([BP], ACC)
    pulled = tl.zeros([BP], ACC)
    row = logits + n * logits_n + pixel.to(tl.int64)[:, None] * logits_p
    for begin in range(0, Q, BQ):
        q = begin + tl.arange(0, BQ)[None, :]
        x = tl.load(row + q * logits_q, valid[:, None] & (q < Q), other=0.0).to(ACC)
        x = tl.where(q < Q, x, -float("inf"))
        center_a = tl.load(centers + 2 * q, q < Q, other=float("inf"))
        center_b = tl.load(centers + 2 * q + 1, q < Q, other=float("inf"))
        d = _squared(a, b, center_a, center_b)
        shared = (d < last[:, None]) | ((d == last[:, None]) & (q <= tenth[:, None]))
        label = tl.exp(offset[:, None] - d / WIDTH)
        pulled += tl.sum(label * tl.where(shared, x, 0.0), 1)
        new = tl.maximum(best, tl.max(x, 1))
        shift = tl.where(new == -float("inf"), 0.0, new)
        norm = norm * tl.exp(best - shift) + tl.sum(tl.exp(x - shift[:, None]), 1)
        best = new
    lse = best + tl.log(norm)
    weight = tl.load(weights + own, valid, other=0.0) * tl.load(colored + n).to(ACC)

    each = tl.num_programs(1).to(tl.int64) * pixels
    out = n * pixels + pixel
    tl.store(entropy + out, (lse - pulled) * weight, valid)
    tl.store(stats + out, lse, valid)
    tl.store(stats + each + out, last, valid)
    tl.store(stats + 2 * each + out, tenth.to(ACC), valid)
    tl.store(stats + 3 * each + out, offset, valid)
    tl.store(stats + 4 * each + out, weight, valid)


@triton.jit
def _grad(
    grad, logits, ab, centers, stats, out, pixels, logits_n, logits_q, logits_p,
    out_n, out_q, out_p, Q: tl.constexpr, WIDTH: tl.constexpr, ACC: tl.constexpr,
    BP: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    valid = pixel < pixels
    a = tl.load(ab + 2 * n * pixels + pixel, valid, other=0.0)[:, None]
    b = tl.load(ab + (2 * n + 1) * pixels + pixel, valid, other=0.0)[:, None]
    each = tl.num_programs(1).to(tl.int64) * pixels
    at = stats + n * pixels + pixel
    lse = tl.load(at, valid, other=0.0)[:, None]
    last = tl.load(at + each, valid, other=0.0)[:, None]
    tenth = tl.load(at + 2 * each, valid, other=0.0)[:, None].to(tl.int32)
    offset = tl.load(at + 3 * each, valid, other=0.0)[:, None]
    weight = tl.load(at + 4 * each, valid, other=0.0)[:, None] * tl.load(grad).to(ACC)
    q = tl.program_id(2) * BQ + tl.arange(0, BQ)[None, :]
    mask = valid[:, None] & (q < Q)
    row = pixel.to(tl.int64)[:, None]
    x = tl.load(logits + n * logits_n + row * logits_p + q * logits_q, mask, other=0.0).to(ACC)
    center_a = tl.load(centers + 2 * q, q < Q, other=0.0)
    center_b = tl.load(centers + 2 * q + 1, q < Q, other=0.0)
    d = _squared(a, b, center_a, center_b)
    shared = (d < last) | ((d == last) & (q <= tenth))
    label = tl.where(shared, tl.exp(offset - d / WIDTH), 0.0)
    tl.store(out + n * out_n + row * out_p + q * out_q, weight * (tl.exp(x - lse) - label), mask)


@torch.library.custom_op("bench::color_entropy", mutates_args=())
def color_entropy(
    logits: Tensor, ab: Tensor, cell: Tensor, centers: Tensor, around: Tensor, weights: Tensor,
    colored: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Each pixel's weighted cross-entropy `[B, h * w]`, and what its gradient needs.

    Args:
        logits: `[B, Q, h, w]`.
        ab: `[B, 2, h, w]`, of the type of centers and weights: float32 or float64.
        cell: `[B, h, w]` rows of `around` that hold all bins near a colour.
        centers: `[Q, 2]`.
        around: `[Q, K']`, rising.
        weights: `[Q]`.
        colored: `[B]` bool.

    Returns:
        The cross-entropies, and `[5, B, h * w]`: log-sum-exp, squared distance of the last bin that
        shares the label, its number, the labels' normaliser, and the pixel's weight.
    """
    batch, count = logits.shape[:2]
    flat, pixels = logits.flatten(2), ab.shape[2] * ab.shape[3]
    entropy = ab.new_empty((batch, pixels))
    stats = ab.new_empty((STATS, batch, pixels))
    tile = _tile(logits)
    if entropy.numel():
        with torch.cuda.device_of(logits):
            _entropy[triton.cdiv(pixels, tile), batch](
                flat, ab.contiguous(), cell.contiguous(), centers.contiguous(), around.contiguous(),
                centers[around], weights.contiguous(), colored, entropy, stats,
                pixels, *flat.stride(), Q=count, AROUND=around.shape[1],
                COUNT=min(NEAREST, around.shape[1]), WIDTH=2 * SIGMA**2, ACC=tl_type(ab.dtype),
                BP=tile, BQ=BINS, BA=triton.next_power_of_2(around.shape[1]),
                enable_fp_fusion=False,
            )  # fmt: skip
    return entropy, stats


@color_entropy.register_fake
def _(
    logits: Tensor, ab: Tensor, cell: Tensor, centers: Tensor, around: Tensor, weights: Tensor,
    colored: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    shape = ab.shape[0], ab.shape[2] * ab.shape[3]
    return ab.new_empty(shape), ab.new_empty((STATS, *shape))


@torch.library.custom_op("bench::color_grad", mutates_args=())
def color_grad(grad: Tensor, logits: Tensor, ab: Tensor, centers: Tensor, stats: Tensor) -> Tensor:
    """`grad` `[]` times the gradient of the summed entropies, in the logits' type and order."""
    batch, count = logits.shape[:2]
    out = _like(logits)
    flat, flat_out, pixels = logits.flatten(2), out.flatten(2), ab.shape[2] * ab.shape[3]
    tile = _tile(logits)
    if out.numel():
        with torch.cuda.device_of(logits):
            _grad[triton.cdiv(pixels, tile), batch, triton.cdiv(count, BINS)](
                grad, flat, ab.contiguous(), centers.contiguous(), stats, flat_out,
                pixels, *flat.stride(), *flat_out.stride(), Q=count, WIDTH=2 * SIGMA**2,
                ACC=tl_type(ab.dtype), BP=tile, BQ=BINS, enable_fp_fusion=False,
            )  # fmt: skip
    return out


@color_grad.register_fake
def _(grad: Tensor, logits: Tensor, ab: Tensor, centers: Tensor, stats: Tensor) -> Tensor:
    return _like(logits)


def _tile(logits: Tensor) -> int:
    """Pixels of a tile: where bins come last a thread has all numbers of several pixels."""
    return 16 if logits.stride(1) == 1 else 64


def _like(logits: Tensor) -> Tensor:
    """Memory for a gradient, bins last where the logits have them so."""
    if logits.stride(1) == 1:
        batch, bins, height, width = logits.shape
        return logits.new_empty((batch, height, width, bins)).permute(0, 3, 1, 2)
    return torch.empty_like(logits, memory_format=torch.contiguous_format)
