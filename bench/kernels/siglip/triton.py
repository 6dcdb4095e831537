"""SigLIP in Triton: 8 N^2 D operations, memory O(N D); the first side's gradient in the forward.

With x = s cos + b the loss is 1/N (sum of softplus(x_ij) over strangers, and of softplus(-x_ii)),
so the gradient of row i is s/N (sum over j != i of sigmoid(x_ij) b_j - sigmoid(-x_ii) b_i).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from bench.kernels.contrast import (
    LN_2,
    LOG2_E,
    Tiles,
    _load,
    _similarities,
    _spans,
    as_scale,
    lift,
    pull_tiles,
    split,
    through_unit_rows,
    tl_type,
    unit_rows,
)
from bench.kernels.dispatch import products
from bench.kernels.precision import accumulator
from bench.kernels.ranks import Ranks


@triton.jit
def _over(
    acc, losses, shares, q, queries, k, row, n, m, scale, bias, first, begin, stop, chunk,
    D: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr, WIDE: tl.constexpr, LIFT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BO: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """The sums over columns [begin, stop), added to those so far."""
    for start in range(begin, stop, BN):
        col = tl.multiple_of(start, BN) + tl.arange(0, BN)
        s, keys = _similarities(
            q, queries, k, row, col, n, m, D, DOT, ACC, BM, BN, BD, MASKED
        )  # fmt: skip
        s = s * scale + bias
        small = tl.exp2(-tl.abs(s) * LOG2_E)
        large = 1 / (1 + small)
        share = tl.where(s > 0, large, small * large)
        # log(1 + e) has few digits left where e is small, which is where most strangers are.
        log1p = tl.log2(1 + small) * LN_2
        if not WIDE:
            series = small * (1 - small * (1 / 2 - small * (1 / 3 - small / 4)))
            log1p = tl.where(small < 0.05, series, log1p)
        loss = tl.maximum(s, 0.0) + log1p
        if MASKED:
            valid = (row < n)[:, None] & (col < m)[None, :]
            valid &= col[None, :] != (first + tl.arange(0, BM))[:, None]
            share = tl.where(valid, share, 0.0)
            loss = tl.where(valid, loss, 0.0)
        losses += tl.sum(loss, 1)
        shares += tl.sum(share, 1)
        if D > BD or BO < BD:
            keys = _load(k, col, m, chunk, D, BO, MASKED)
        acc = tl.dot((share * LIFT).to(keys.dtype), keys, acc, input_precision=DOT, out_dtype=ACC)
    return acc, losses, shares


@triton.jit
def _strangers(
    q, k, scale, bias, out, losses, shares, n, m, diagonal, per_split,
    D: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr, WIDE: tl.constexpr, LIFT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    split = tl.program_id(1)
    chunk = tl.program_id(2) * BO
    first = tl.program_id(0) * BM + diagonal
    start = split * per_split
    end = tl.minimum(start + per_split, m)
    low, high, whole = _spans(first, start, end, m, True, BM, BN)
    queries = _load(q, row, n, 0, D, BD, True)
    s = tl.load(scale).to(ACC)
    b = tl.load(bias).to(ACC)
    acc = tl.zeros([BM, BO], ACC)
    loss = tl.zeros([BM], ACC)
    share = tl.zeros([BM], ACC)
    acc, loss, share = _over(
        acc, loss, share, q, queries, k, row, n, m, s, b, first, start, low, chunk,
        D, DOT, ACC, WIDE, LIFT, BM, BN, BD, BO, False,
    )  # fmt: skip
    acc, loss, share = _over(
        acc, loss, share, q, queries, k, row, n, m, s, b, first, low, high, chunk,
        D, DOT, ACC, WIDE, LIFT, BM, BN, BD, BO, True,
    )  # fmt: skip
    acc, loss, share = _over(
        acc, loss, share, q, queries, k, row, n, m, s, b, first, high, whole, chunk,
        D, DOT, ACC, WIDE, LIFT, BM, BN, BD, BO, False,
    )  # fmt: skip
    acc, loss, share = _over(
        acc, loss, share, q, queries, k, row, n, m, s, b, first, whole, end, chunk,
        D, DOT, ACC, WIDE, LIFT, BM, BN, BD, BO, True,
    )  # fmt: skip
    dim = chunk + tl.arange(0, BO)
    at = out + (split.to(tl.int64) * n + row.to(tl.int64))[:, None] * D + dim[None, :]
    tl.store(at, acc / LIFT, (row < n)[:, None] & (dim < D)[None, :])
    if chunk == 0:
        tl.store(losses + split * n + row, loss, row < n)
        tl.store(shares + split * n + row, share, row < n)


@torch.library.custom_op("bench::siglip_strangers", mutates_args=())
def strangers(
    q: Tensor, k: Tensor, scale: Tensor, bias: Tensor, diagonal: int, dot: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over all j but i + diagonal, x = scale q_i k_j + bias, in float32 or float64.

    Args:
        q: `[N, D]` rows.
        k: `[M, D]` rows, of the same type.
        scale: `[1]`.
        bias: `[1]`.
        diagonal: the partner of row 0.
        dot: how float32 is multiplied, of `dispatch.Products`.

    Returns:
        sum of sigmoid(x_ij) k_j `[N, D]`, of softplus(x_ij) `[N]`, of sigmoid(x_ij) `[N]`.
    """
    q, k = q.contiguous(), k.contiguous()
    (n, dim), m = q.shape, len(k)
    acc = accumulator(q.dtype)
    tiles = strangers_tiles(q.dtype, dim, q.device)
    blocks, chunks = triton.cdiv(n, tiles.rows), triton.cdiv(dim, tiles.width)
    splits, each = split(blocks * chunks, m, tiles.columns, q.device)
    out = q.new_empty((splits, n, dim), dtype=acc)
    losses, shares = (q.new_empty((splits, n), dtype=acc) for _ in range(2))
    with torch.cuda.device_of(q):
        _strangers[blocks, splits, chunks](
            q, k, scale, bias, out, losses, shares, n, m, diagonal, each,
            D=dim, DOT=dot, ACC=tl_type(acc), WIDE=acc == torch.float64, LIFT=lift(q.dtype),
            BM=tiles.rows, BN=tiles.columns, BD=tiles.depth, BO=tiles.width,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return out.sum(0), losses.sum(0), shares.sum(0)


def strangers_tiles(dtype: torch.dtype, dim: int, device: torch.device) -> Tiles:
    """Those of `pull`; of long rows smaller ones, since exponentials take registers too."""
    tiles = pull_tiles(dtype, dim, device)
    return Tiles(64, 64, 32, 128, 4, 3) if tiles.width > 128 and dim > 256 else tiles


@strangers.register_fake
def _(
    q: Tensor, k: Tensor, scale: Tensor, bias: Tensor, diagonal: int, dot: str
) -> tuple[Tensor, Tensor, Tensor]:
    sizes = (q.shape, q.shape[:1], q.shape[:1])
    pulled, losses, shares = (q.new_empty(size, dtype=accumulator(q.dtype)) for size in sizes)
    return pulled, losses, shares


@register_flop_formula(torch.ops.bench.siglip_strangers)
def _(q: Sequence[int], k: Sequence[int], *_: Any, **__: Any) -> int:
    return 4 * q[0] * k[0] * q[1]


def siglip(
    one: Tensor, two: Tensor, scale: float | Tensor, bias: float | Tensor, ranks: Ranks
) -> Tensor:
    """`bench.kernels.siglip`; products are in the type of the embeddings."""
    factors = (as_scale(value, one)[0] for value in (scale, bias))
    loss: Tensor = _SigLIP.apply(one, two, *factors, ranks, products())
    return loss


class _SigLIP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, one: Tensor, two: Tensor, scale: Tensor, bias: Tensor, ranks: Ranks, dot: str
    ) -> Tensor:
        (a, a_inverse), (b, b_inverse) = unit_rows(one), unit_rows(two, one.dtype)
        every_a, every_b, first = ranks.gather(a), ranks.gather(b), ranks.rank * len(a)
        pulled, losses, shares = strangers(a, every_b, scale, bias, first, dot)
        own = scale * (a.to(pulled.dtype) * b).sum(1) + bias
        saved = (a, a_inverse, b, b_inverse, every_a, scale, bias)
        ctx.save_for_backward(*saved, pulled, own, shares.sum())
        ctx.settings, ctx.types = (first, dot), (one.dtype, two.dtype)
        loss: Tensor = (losses.sum() + F.softplus(-own).sum()) / len(a)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, a_inverse, b, b_inverse, every_a, scale, bias, pulled, own, shares = ctx.saved_tensors
        doubt, share = torch.sigmoid(-own)[:, None], grad / len(a)
        # By scale * a, of which the scale's gradient and that of a are made.
        da = share * (pulled - doubt * b)
        of_a = through_unit_rows(scale * da, a, a_inverse, ctx.types[0])
        of_scale = (a * da).sum().reshape(1)
        of_bias = (share * (shares - doubt.sum())).reshape(1)
        of_b = None
        if ctx.needs_input_grad[1]:
            there, *_ = strangers(b, every_a, scale, bias, *ctx.settings)
            db = scale * share * (there - doubt * a)
            of_b = through_unit_rows(db, b, b_inverse, ctx.types[1])
        return of_a, of_b, of_scale, of_bias, None, None
