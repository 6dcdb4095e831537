"""Rows against rows in Triton: the two passes that every contrastive loss is made of.

`row_lse` is the log-sum-exp of each row's similarities, `pull` the gradient's weighted sum of the
other rows. Both stream tiles of similarities through registers, as FlashAttention does
(arXiv:2205.14135), so memory is O(rows); no atomics, so the same inputs give the same bits. Columns
are split over programs where there are few rows, and the parts combined in a fixed order.

Similarities are dot(q_i, k_j) * scale. Where all rows are unit vectors and the scale is at most
`BOUND`, exponentials can neither overflow nor all vanish, and nothing is subtracted from them; then
one exponential serves the row's and the column's normaliser. Otherwise maxima are kept online.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from bench.kernels.precision import accumulator

BOUND = 64.0  # exp(64) times a million rows is within float32, and so is exp(-64)
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


class Tiles(NamedTuple):
    """The shape of one program, and how it is run."""

    rows: int
    columns: int  # that it takes at a time
    depth: int  # dimensions of a row that one product takes
    width: int  # dimensions of a sum of rows that are one program's
    warps: int
    stages: int  # of the loops' pipelines


@triton.jit
def _similarities(
    q, queries, k, row, col, n, m,
    D: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Dot products [BM, BN] of rows of q and of k, and the tile of k where there is but one.

    Rows of at most BD dimensions are held in `queries`; longer ones are read again, part by part.
    """
    if D <= BD:
        keys = _load(k, col, m, 0, D, BD, MASKED)
        s = tl.dot(queries, tl.trans(keys), input_precision=DOT, out_dtype=ACC)
    else:
        keys = queries  # nobody's: what is returned has to be something
        s = tl.zeros([BM, BN], ACC)
        for start in range(0, D, BD):
            part = _load(q, row, n, start, D, BD, True)
            other = _load(k, col, m, start, D, BD, MASKED)
            s = tl.dot(part, tl.trans(other), s, input_precision=DOT, out_dtype=ACC)
    return s, keys


@triton.jit
def _load(x, row, rows, start, D: tl.constexpr, BD: tl.constexpr, MASKED: tl.constexpr):
    """A tile of rows and dimensions [start, start + BD); zeros where there is nothing."""
    dim = start + tl.arange(0, BD)
    at = x + row.to(tl.int64)[:, None] * D + dim[None, :]
    if MASKED:
        tile = tl.load(at, (row < rows)[:, None] & (dim < D)[None, :], other=0.0)
    elif D % BD == 0:
        tile = tl.load(at)
    else:
        tile = tl.load(at, (dim < D)[None, :], other=0.0)
    return tile


@triton.jit
def _spans(first, start, end, m, SELF: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Where tiles need a mask: columns [low, high) hold the rows themselves, [whole, end) edges."""
    whole = start + (end - start) // BN * BN
    low = whole
    high = whole
    if SELF:
        low = tl.minimum(tl.maximum(first // BN * BN, start), whole)
        high = tl.minimum(tl.maximum((first + BM + BN - 1) // BN * BN, low), whole)
    return low, high, whole


@triton.jit
def _lse_over(
    best, total, q, queries, k, row, n, m, scale, first, begin, stop,
    D: tl.constexpr, SELF: tl.constexpr, BOUNDED: tl.constexpr, DOT: tl.constexpr,
    ACC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """The running maximum and sum of exp2, over columns [begin, stop)."""
    for start in range(begin, stop, BN):
        col = tl.multiple_of(start, BN) + tl.arange(0, BN)
        s, _ = _similarities(
            q, queries, k, row, col, n, m, D, DOT, ACC, BM, BN, BD, MASKED
        )  # fmt: skip
        s *= scale
        if MASKED:
            valid = (col < m)[None, :]
            if SELF:
                valid &= col[None, :] != (first + tl.arange(0, BM))[:, None]
            s = tl.where(valid, s, -float("inf"))
        if BOUNDED:
            total += tl.sum(tl.exp2(s), 1)
        else:
            new = tl.maximum(best, tl.max(s, 1))
            # Until there is a first column, -inf - -inf would be NaN.
            shift = tl.where(new == -float("inf"), 0.0, new)
            total = total * tl.exp2(best - shift) + tl.sum(tl.exp2(s - shift[:, None]), 1)
            best = new
    return best, total


@triton.jit
def _row_lse(
    q, k, scale, out, n, m, diagonal, per_split,
    D: tl.constexpr, SELF: tl.constexpr, BOUNDED: tl.constexpr, DOT: tl.constexpr,
    ACC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    split = tl.program_id(1)
    first = tl.program_id(0) * BM + diagonal
    start = split * per_split
    end = tl.minimum(start + per_split, m)
    low, high, whole = _spans(first, start, end, m, SELF, BM, BN)
    queries = _load(q, row, n, 0, D, BD, True)
    factor = tl.load(scale).to(ACC) * LOG2_E
    best = tl.full([BM], -float("inf"), ACC)
    total = tl.zeros([BM], ACC)
    best, total = _lse_over(
        best, total, q, queries, k, row, n, m, factor, first, start, low,
        D, SELF, BOUNDED, DOT, ACC, BM, BN, BD, False,
    )  # fmt: skip
    if SELF:
        best, total = _lse_over(
            best, total, q, queries, k, row, n, m, factor, first, low, high,
            D, SELF, BOUNDED, DOT, ACC, BM, BN, BD, True,
        )  # fmt: skip
        best, total = _lse_over(
            best, total, q, queries, k, row, n, m, factor, first, high, whole,
            D, SELF, BOUNDED, DOT, ACC, BM, BN, BD, False,
        )  # fmt: skip
    best, total = _lse_over(
        best, total, q, queries, k, row, n, m, factor, first, whole, end,
        D, SELF, BOUNDED, DOT, ACC, BM, BN, BD, True,
    )  # fmt: skip
    # Not `total > 0`: NaN has to stay NaN, so that a training is seen to diverge.
    lse = tl.log2(tl.where(total == 0, 1.0, total))
    if not BOUNDED:
        lse += best
    lse = tl.where(total == 0, -float("inf"), lse)
    tl.store(out + split * n + row, lse * LN_2, row < n)


@triton.jit
def _pull_over(
    acc, q, queries, k, row, n, m, scale, row_lse, col_lse, first, begin, stop, chunk,
    D: tl.constexpr, SELF: tl.constexpr, ROW: tl.constexpr, COL: tl.constexpr,
    BOUNDED: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr, LIFT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BO: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """The sum of weight * k over columns [begin, stop), added to `acc`.

    Where similarities are bounded, `col_lse` holds exp(-lse): made once, not for every tile.
    """
    if ROW:
        mine = tl.exp2(-row_lse) if BOUNDED else row_lse
    for start in range(begin, stop, BN):
        col = tl.multiple_of(start, BN) + tl.arange(0, BN)
        s, keys = _similarities(
            q, queries, k, row, col, n, m, D, DOT, ACC, BM, BN, BD, MASKED
        )  # fmt: skip
        s *= scale
        if MASKED:
            valid = (row < n)[:, None] & (col < m)[None, :]
            if SELF:
                valid &= col[None, :] != (first + tl.arange(0, BM))[:, None]
            s = tl.where(valid, s, -float("inf"))
        if COL:
            if MASKED:
                theirs = tl.load(col_lse + col, col < m, other=0.0)
            else:
                theirs = tl.load(col_lse + col)
            if not BOUNDED:
                theirs *= LOG2_E
        if BOUNDED:
            weight = tl.exp2(s)
            if ROW and COL:
                weight *= mine[:, None] + theirs[None, :]
            elif ROW:
                weight *= mine[:, None]
            else:
                weight *= theirs[None, :]
        elif ROW and COL:
            weight = tl.exp2(s - mine[:, None]) + tl.exp2(s - theirs[None, :])
        elif ROW:
            weight = tl.exp2(s - mine[:, None])
        else:
            weight = tl.exp2(s - theirs[None, :])
        if D > BD or BO < BD:
            keys = _load(k, col, m, chunk, D, BO, MASKED)
        weight = (weight * LIFT).to(keys.dtype)
        acc = tl.dot(weight, keys, acc, input_precision=DOT, out_dtype=ACC)
    return acc


@triton.jit
def _pull(
    q, k, scale, row_lse, col_lse, out, n, m, diagonal, per_split,
    D: tl.constexpr, SELF: tl.constexpr, ROW: tl.constexpr, COL: tl.constexpr,
    BOUNDED: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr, LIFT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    split = tl.program_id(1)
    chunk = tl.program_id(2) * BO  # the dimensions of the sum that are this program's
    first = tl.program_id(0) * BM + diagonal
    start = split * per_split
    end = tl.minimum(start + per_split, m)
    low, high, whole = _spans(first, start, end, m, SELF, BM, BN)
    queries = _load(q, row, n, 0, D, BD, True)
    factor = tl.load(scale).to(ACC) * LOG2_E
    mine = tl.zeros([BM], ACC)
    if ROW:
        mine = tl.load(row_lse + row, row < n, other=0.0).to(ACC) * LOG2_E
    acc = tl.zeros([BM, BO], ACC)
    acc = _pull_over(
        acc, q, queries, k, row, n, m, factor, mine, col_lse, first, start, low, chunk,
        D, SELF, ROW, COL, BOUNDED, DOT, ACC, LIFT, BM, BN, BD, BO, False,
    )  # fmt: skip
    if SELF:
        acc = _pull_over(
            acc, q, queries, k, row, n, m, factor, mine, col_lse, first, low, high, chunk,
            D, SELF, ROW, COL, BOUNDED, DOT, ACC, LIFT, BM, BN, BD, BO, True,
        )  # fmt: skip
        acc = _pull_over(
            acc, q, queries, k, row, n, m, factor, mine, col_lse, first, high, whole, chunk,
            D, SELF, ROW, COL, BOUNDED, DOT, ACC, LIFT, BM, BN, BD, BO, False,
        )  # fmt: skip
    acc = _pull_over(
        acc, q, queries, k, row, n, m, factor, mine, col_lse, first, whole, end, chunk,
        D, SELF, ROW, COL, BOUNDED, DOT, ACC, LIFT, BM, BN, BD, BO, True,
    )  # fmt: skip
    dim = chunk + tl.arange(0, BO)
    at = out + (split.to(tl.int64) * n + row.to(tl.int64))[:, None] * D + dim[None, :]
    tl.store(at, acc / LIFT, (row < n)[:, None] & (dim < D)[None, :])


@torch.library.custom_op("bench::row_lse", mutates_args=())
def row_lse(
    q: Tensor, k: Tensor, scale: Tensor, diagonal: int | None, bounded: bool, dot: str
) -> Tensor:
    """Log of the sum over j of exp(scale q_i k_j), `[N]` in float32 (float64 for float64).

    Args:
        q: `[N, D]` rows.
        k: `[M, D]` rows, of the same type; without any, the result is -inf.
        scale: `[1]`, above 0.
        diagonal: leaves j = i + diagonal out of each row's sum; None: nothing is left out.
        bounded: promises unit rows and a scale of at most `BOUND`.
        dot: how float32 is multiplied, of `dispatch.Products`.
    """
    q, k = q.contiguous(), k.contiguous()
    (n, dim), m = q.shape, len(k)
    acc = accumulator(q.dtype)
    tiles = lse_tiles(q.dtype, dim, q.device)
    blocks = triton.cdiv(n, tiles.rows)
    splits, each = split(blocks, m, tiles.columns, q.device)
    out = q.new_empty((splits, n), dtype=acc)
    with torch.cuda.device_of(q):
        _row_lse[blocks, splits](
            q, k, scale, out, n, m, diagonal or 0, each,
            D=dim, SELF=diagonal is not None, BOUNDED=bounded, DOT=dot,
            ACC=tl_type(acc), BM=tiles.rows, BN=tiles.columns, BD=tiles.depth,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return out[0] if splits == 1 else out.logsumexp(0)


@row_lse.register_fake
def _(q: Tensor, k: Tensor, scale: Tensor, diagonal: int | None, bounded: bool, dot: str) -> Tensor:
    return q.new_empty(q.shape[0], dtype=accumulator(q.dtype))


@register_flop_formula(torch.ops.bench.row_lse)
def _(q: Sequence[int], k: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * q[0] * k[0] * q[1]


@torch.library.custom_op("bench::pull", mutates_args=())
def pull(
    q: Tensor, k: Tensor, scale: Tensor, row: Tensor | None, col: Tensor | None,
    diagonal: int | None, bounded: bool, dot: str,
) -> Tensor:  # fmt: skip
    """The sum over j of (exp(s_ij - row_i) + exp(s_ij - col_j)) k_j, s = scale q_i k_j, `[N, D]`.

    Args:
        q: `[N, D]` rows.
        k: `[M, D]` rows, of the same type.
        scale: `[1]`, above 0.
        row: `[N]` log normalisers of q's rows; None: without the first term.
        col: `[M]` log normalisers of k's rows; None: without the second. One of them is there.
        diagonal: leaves j = i + diagonal out; None: nothing is left out.
        bounded: promises unit rows and a scale of at most `BOUND`.
        dot: how float32 is multiplied, of `dispatch.Products`.
    """
    q, k = q.contiguous(), k.contiguous()
    (n, dim), m = q.shape, len(k)
    acc = accumulator(q.dtype)
    tiles = pull_tiles(q.dtype, dim, q.device)
    blocks, chunks = triton.cdiv(n, tiles.rows), triton.cdiv(dim, tiles.width)
    splits, each = split(blocks * chunks, m, tiles.columns, q.device)
    out = q.new_empty((splits, n, dim), dtype=acc)
    of_col = torch.exp(-col) if bounded and col is not None else col
    with torch.cuda.device_of(q):
        _pull[blocks, splits, chunks](
            q, k, scale, row, of_col, out, n, m, diagonal or 0, each,
            D=dim, SELF=diagonal is not None, ROW=row is not None, COL=col is not None,
            BOUNDED=bounded, DOT=dot, ACC=tl_type(acc), LIFT=lift(q.dtype),
            BM=tiles.rows, BN=tiles.columns, BD=tiles.depth, BO=tiles.width,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return out[0] if splits == 1 else out.sum(0)


@pull.register_fake
def _(
    q: Tensor, k: Tensor, scale: Tensor, row: Tensor | None, col: Tensor | None,
    diagonal: int | None, bounded: bool, dot: str,
) -> Tensor:  # fmt: skip
    return q.new_empty(q.shape, dtype=accumulator(q.dtype))


@register_flop_formula(torch.ops.bench.pull)
def _(q: Sequence[int], k: Sequence[int], *_: Any, **__: Any) -> int:
    return 4 * q[0] * k[0] * q[1]


def split(blocks: int, columns: int, tile: int, device: torch.device) -> tuple[int, int]:
    """Into how many parts the columns go, and how many columns, whole tiles, each part has.

    One part, unless there are too few blocks of rows for every multiprocessor to have two.
    """
    processors = 8  # for the interpreter: small tests have several parts as well
    if device.type == "cuda":
        processors = torch.cuda.get_device_properties(device).multi_processor_count
    tiles = max(triton.cdiv(columns, tile), 1)
    parts = 1 if blocks >= processors else min(tiles, triton.cdiv(2 * processors, max(blocks, 1)))
    each = triton.cdiv(tiles, parts) * tile
    return max(triton.cdiv(columns, each), 1), each


def lse_tiles(dtype: torch.dtype, dim: int, device: torch.device) -> Tiles:
    """Tiles of `row_lse`: where they are as deep as a row is long, queries are read once."""
    if dtype == torch.float64:
        return Tiles(32, 32, 32, 0, 4, 1)
    if not roomy(device):
        return Tiles(64, 64, min(depth(dim), 64), 0, 4, 2)
    if dtype == torch.float32:
        return Tiles(128, 64, 32, 0, 8, 2)
    return Tiles(128, 128, depth(dim) if dim <= 128 else 64, 0, 8, 3)


def pull_tiles(dtype: torch.dtype, dim: int, device: torch.device) -> Tiles:
    """Tiles of `pull`: similarities are made anew for each `width` of its sum.

    Wider sums save work where rows are longer, and cost registers: on an H100 these do not spill.
    """
    if dtype == torch.float64:
        return Tiles(32, 32, 32, 32, 4, 1)
    if dtype == torch.float32:
        return Tiles(64, 32, 32, min(depth(dim), 128), 4, 2)
    if not roomy(device):
        return Tiles(64, 64, min(depth(dim), 64), min(depth(dim), 128), 4, 2)
    if dim <= 128:
        return Tiles(128, 64, depth(dim), depth(dim), 8, 3)
    if dim <= 256:
        return Tiles(128, 64, 256, 256, 8, 2)
    return Tiles(128, 64, 32, 256, 8, 3)


def roomy(device: torch.device) -> bool:
    """Whether programs may have an H100's 227 KiB of shared memory; others have as few as 99."""
    if device.type != "cuda":
        return False
    room: int = torch.cuda.get_device_properties(device).shared_memory_per_multiprocessor
    return room >= 228 * 1024


def depth(dim: int) -> int:
    """The depth of a tile that holds all of `dim`; matrix products want 16 at least."""
    deep: int = triton.next_power_of_2(dim)
    return max(16, deep)


def lift(dtype: torch.dtype) -> float:
    """What weights are multiplied by before they are rounded: most are far below float16's least.

    They are 2 at most, so that 2^14 times a weight is within its range.
    """
    return 2.0**14 if dtype == torch.float16 else 1.0


def tl_type(dtype: torch.dtype) -> tl.dtype:
    """Triton's name of a type of accumulators."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def unit_rows(x: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Rows of unit length, one behind the other in memory, and their inverse lengths `[N, 1]`.

    Args:
        x: `[N, D]`.
        dtype: of the rows, by default that of `x`; lengths are in float32 at least.
    """
    wide = x.to(accumulator(x.dtype))
    inverse = 1 / torch.linalg.vector_norm(wide, dim=1, keepdim=True).clamp_min(1e-12)
    return (wide * inverse).to(dtype or x.dtype).contiguous(), inverse


def through_unit_rows(grad: Tensor, unit: Tensor, inverse: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient of rows `[N, D]`, of type `dtype`, from that of the same rows at unit length."""
    wide = unit.to(grad.dtype)
    radial = (grad * wide).sum(1, keepdim=True)
    return ((grad - radial * wide) * inverse).to(dtype)


def as_scale(scale: float | Tensor, like: Tensor) -> tuple[Tensor, bool]:
    """The scale as a `[1]` tensor for the kernels, and whether it is known to be bounded."""
    dtype = accumulator(like.dtype)
    if isinstance(scale, Tensor):
        return scale.to(like.device, dtype).reshape(1), False
    return torch.full((1,), scale, dtype=dtype, device=like.device), abs(scale) <= BOUND


def inverse_of(temperature: float | Tensor) -> float | Tensor:
    """1 / temperature, in float32 at least."""
    if isinstance(temperature, Tensor):
        temperature = temperature.to(accumulator(temperature.dtype))
    return 1 / temperature
