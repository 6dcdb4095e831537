"""The two halves of a Sinkhorn iteration in Triton: each reads the scores once and writes a vector.

Programs reduce tiles of the scores, in their own type, to one logarithm a row or column; a second
kernel combines those in a fixed order. No atomics, so the same scores give the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench.kernels.contrast import LN_2, LOG2_E, tl_type
from bench.kernels.precision import accumulator
from bench.kernels.sinkhorn.reference import LEAST

WIDTH = 1024  # columns to a program that sums over them
COLUMNS, DEPTH = 256, 256  # and rows, to one that sums over rows: it writes 1/64 of what it reads
ROWS = 8  # of them at a time. All programs have one warp: reductions need no barrier

FLOOR = tl.constexpr(LEAST / LN_2.value)  # of binary maxima: -inf - -inf would be NaN


@triton.jit
def one_for_none(z):
    """1 in place of an empty sum of exp2(x - best), whose best, the floor, says that it is none."""
    return tl.where(z == 0, 1.0, z)


@triton.jit
def load_once(at, inside, EVEN: tl.constexpr):
    """Scores or logits, which are read once a pass; -inf where there are none."""
    if EVEN:
        x = tl.load(at, eviction_policy="evict_first")
    else:
        x = tl.load(at, inside, other=-float("inf"), eviction_policy="evict_first")
    return x


@triton.jit
def _row_sums(
    scores, columns, bests, sums, n, k, scores_n, scale: tl.float64,
    ACC: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    # Programs side by side have the same columns: their scales stay in the first-level cache.
    blocks = tl.cdiv(n, BN)
    first = tl.program_id(0) % blocks * BN
    split = tl.program_id(0) // blocks
    col = split * BK + tl.arange(0, BK)
    inside = col < k
    added = tl.load(columns + col, inside, other=0.0) * tl.full([], LOG2_E, ACC)
    ahead = load_once(scores + first.to(tl.int64) * scores_n + col, inside, EVEN)
    for r in tl.static_range(BN):
        x = ahead.to(ACC)
        # Beyond the end the last row comes again. The next is under way while one is reduced.
        row = tl.minimum(first + r, n - 1)
        if r + 1 < BN:
            at = tl.minimum(first + r + 1, n - 1).to(tl.int64) * scores_n
            ahead = load_once(scores + at + col, inside, EVEN)
        x = x * tl.full([], scale, ACC) + added
        best = tl.maximum(tl.max(x, 0), FLOOR)
        tl.store(bests + split * n + row, best)
        tl.store(sums + split * n + row, tl.sum(tl.exp2(x - best), 0))


@triton.jit
def _column_sums(
    scores, rows, bests, sums, n, k, scores_n, scale: tl.float64,
    ACC: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(1)
    col = tl.program_id(0) * BK + tl.arange(0, BK)
    factor = tl.full([], scale, ACC)
    best = tl.full([BK], FLOOR, ACC)
    total = tl.zeros([BK], ACC)
    for start in range(0, DEPTH, BN):
        row = part * DEPTH + start + tl.arange(0, BN)
        # Beyond the end the last row is read again, and has no share.
        at = scores + tl.minimum(row, n - 1).to(tl.int64)[:, None] * scores_n + col[None, :]
        x = load_once(at, (col < k)[None, :], EVEN).to(ACC)
        added = tl.full([BN], 0.0, ACC)
        if rows is not None:
            added = tl.load(rows + row, row < n, other=0.0) * tl.full([], LOG2_E, ACC)
        x = x * factor + tl.where(row < n, added, -float("inf"))[:, None]
        new = tl.maximum(best, tl.max(x, 0))
        total = total * tl.exp2(best - new) + tl.sum(tl.exp2(x - new[None, :]), 0)
        best = new
    to = part.to(tl.int64) * k + col
    tl.store(bests + to, best, col < k)
    tl.store(sums + to, total, col < k)


@triton.jit
def _combined(
    bests, sums, out, count, parts,
    ACC: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr, END: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    best = tl.full([BLOCK], FLOOR, ACC)
    total = tl.zeros([BLOCK], ACC)
    for start in range(0, END, PARTS):
        part = start + tl.arange(0, PARTS)
        inside = (part < parts)[:, None] & (at < count)[None, :]
        where = part.to(tl.int64)[:, None] * count + at[None, :]
        x = tl.load(bests + where, inside, other=FLOOR)
        new = tl.maximum(best, tl.max(x, 0))
        share = tl.load(sums + where, inside, other=0.0) * tl.exp2(x - new[None, :])
        total = total * tl.exp2(best - new) + tl.sum(share, 0)
        best = new
    total = best + tl.log2(one_for_none(total))
    tl.store(out + at, total * tl.full([], LN_2, ACC), at < count)


@torch.library.custom_op("bench::sinkhorn_columns", mutates_args=())
def column_sums(scores: Tensor, rows: Tensor | None, temperature: float) -> Tensor:
    """`bench.kernels.sinkhorn.reference.column_sums`, in float32 (float64 for float64)."""
    if not scores.numel():
        return scores.new_full(scores.shape[1:], LEAST, dtype=accumulator(scores.dtype))
    scores = _with_adjacent(scores)
    n, k = scores.shape
    depth = min(DEPTH, max(triton.next_power_of_2(n), ROWS))
    parts = triton.cdiv(n, depth)
    bests, sums = scores.new_empty((2, parts, k), dtype=accumulator(scores.dtype))
    with torch.cuda.device_of(sums):
        _column_sums[triton.cdiv(k, COLUMNS), parts](
            scores, rows, bests, sums, n, k, scores.stride(0), LOG2_E.value / temperature,
            ACC=tl_type(sums.dtype), BN=ROWS, BK=COLUMNS, DEPTH=depth, EVEN=k % COLUMNS == 0,
            num_warps=1,
        )  # fmt: skip
    return _combine(bests, sums)


@column_sums.register_fake
def _(scores: Tensor, rows: Tensor | None, temperature: float) -> Tensor:
    return scores.new_empty(scores.shape[1:], dtype=accumulator(scores.dtype))


@torch.library.custom_op("bench::sinkhorn_rows", mutates_args=())
def row_sums(scores: Tensor, columns: Tensor, temperature: float) -> Tensor:
    """`bench.kernels.sinkhorn.reference.row_sums`, in float32 (float64 for float64)."""
    if not scores.numel():
        return scores.new_full(scores.shape[:1], LEAST, dtype=accumulator(scores.dtype))
    scores = _with_adjacent(scores)
    n, k = scores.shape
    width = min(WIDTH, triton.next_power_of_2(k))
    splits = triton.cdiv(k, width)
    bests, sums = scores.new_empty((2, splits, n), dtype=accumulator(scores.dtype))
    with torch.cuda.device_of(sums):
        _row_sums[(splits * triton.cdiv(n, ROWS),)](
            scores, columns, bests, sums, n, k, scores.stride(0), LOG2_E.value / temperature,
            ACC=tl_type(sums.dtype), BN=ROWS, BK=width, EVEN=k % width == 0, num_warps=1,
        )  # fmt: skip
    return _combine(bests, sums)


@row_sums.register_fake
def _(scores: Tensor, columns: Tensor, temperature: float) -> Tensor:
    return scores.new_empty(scores.shape[:1], dtype=accumulator(scores.dtype))


def _combine(bests: Tensor, sums: Tensor) -> Tensor:
    """The log-sum-exp `[R]` of parts whose binary maxima and sums are `[parts, R]`."""
    parts, count = sums.shape
    out, together = sums.new_empty(count), min(triton.next_power_of_2(parts), 16)
    with torch.cuda.device_of(sums):
        _combined[(triton.cdiv(count, 128),)](
            bests, sums, out, count, parts,
            ACC=tl_type(sums.dtype), BLOCK=128, PARTS=together,
            END=triton.cdiv(parts, together) * together,
        )  # fmt: skip
    return out


def _with_adjacent(scores: Tensor) -> Tensor:
    """The scores, each row in one piece."""
    return scores if scores.stride(1) == 1 else scores.contiguous()
