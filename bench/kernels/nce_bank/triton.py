"""Dot products with gathered rows in Triton: rows of the bank are read once and copied nowhere.

Forward and backward each read N M D numbers of the bank and are bound by that. A program has one
query and a part of its rows; the parts of the query's gradient are summed in a fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from bench.kernels.contrast import tl_type
from bench.kernels.precision import accumulator

NUMBERS = 4096  # of the bank in registers at once: a tile
PART = 512  # rows to a program: InstDisc's 256 queries and 4097 rows make 2304 programs


def dots_at(query: Tensor, bank: Tensor, at: Tensor) -> Tensor:
    """dot(query_n, bank[at_nm]), `[N, M]`, for queries `[N, D]` and indices `[N, M]`."""
    dots: Tensor = _DotsAt.apply(query, bank, at)
    return dots


class _DotsAt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, bank: Tensor, at: Tensor) -> Tensor:
        ctx.save_for_backward(bank, at)
        ctx.dtype = query.dtype
        dots: Tensor = gathered_dots(query, bank, at)
        return dots

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        bank, at = ctx.saved_tensors
        return gathered_sum(grad, bank, at).to(ctx.dtype), None, None


@triton.jit
def _gathered_dots(
    query, bank, at, out, m, size, query_n, query_d, bank_k, bank_d, at_n, at_m,
    D: tl.constexpr, ACC: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * PART
    for first in range(start, tl.minimum(start + PART, m), BM):
        col = first + tl.arange(0, BM)
        # What is beyond the end reads row 0 and is not stored.
        row = tl.load(at + n * at_n + col.to(tl.int64) * at_m, col < m, other=0).to(tl.int64)
        known = (row >= 0) & (row < size)
        dots = tl.zeros([BM], ACC)
        for begin in range(0, D, BD):
            dim = begin + tl.arange(0, BD)
            mine = tl.load(query + n * query_n + dim * query_d, dim < D, other=0.0).to(ACC)
            rows = bank + row[:, None] * bank_k + dim[None, :] * bank_d
            theirs = tl.load(rows, known[:, None] & (dim < D)[None, :], other=0.0).to(ACC)
            dots += tl.sum(theirs * mine[None, :], 1)
        tl.store(out + n * m + col, tl.where(known, dots, float("nan")), col < m)


@triton.jit
def _gathered_sum(
    grad, bank, at, out, m, size, grad_n, grad_m, bank_k, bank_d, at_n, at_m,
    D: tl.constexpr, ACC: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    dim = tl.program_id(2) * BD + tl.arange(0, BD)
    start = part * PART
    total = tl.zeros([BD], ACC)
    for first in range(start, tl.minimum(start + PART, m), BM):
        col = first + tl.arange(0, BM)
        row = tl.load(at + n * at_n + col.to(tl.int64) * at_m, col < m, other=0).to(tl.int64)
        weight = tl.load(grad + n * grad_n + col.to(tl.int64) * grad_m, col < m, other=0.0).to(ACC)
        known = (row >= 0) & (row < size)
        weight = tl.where(known | (col >= m), weight, float("nan"))
        rows = bank + row[:, None] * bank_k + dim[None, :] * bank_d
        valid = ((col < m) & known)[:, None] & (dim < D)[None, :]
        total += tl.sum(tl.load(rows, valid, other=0.0).to(ACC) * weight[:, None], 0)
    where = out + (part.to(tl.int64) * tl.num_programs(0) + n) * D + dim
    tl.store(where, total, dim < D)


@torch.library.custom_op("bench::gathered_dots", mutates_args=())
def gathered_dots(query: Tensor, bank: Tensor, at: Tensor) -> Tensor:
    """dot(query_n, bank[at_nm]), `[N, M]` in float32 (float64 for a float64 query).

    Of what is not in the bank it is NaN, and so is the sum below: nothing there is read.
    """
    (n, m), dim = at.shape, bank.shape[1]
    acc = accumulator(query.dtype)
    out = query.new_empty((n, m), dtype=acc)
    rows, depth = _tile(dim)
    if n * m:
        with torch.cuda.device_of(query):
            _gathered_dots[n, triton.cdiv(m, PART)](
                query, bank, at, out, m, len(bank), *query.stride(), *bank.stride(), *at.stride(),
                D=dim, ACC=tl_type(acc), BM=rows, BD=depth, PART=PART,
            )  # fmt: skip
    return out


@gathered_dots.register_fake
def _(query: Tensor, bank: Tensor, at: Tensor) -> Tensor:
    return query.new_empty(at.shape, dtype=accumulator(query.dtype))


@torch.library.custom_op("bench::gathered_sum", mutates_args=())
def gathered_sum(grad: Tensor, bank: Tensor, at: Tensor) -> Tensor:
    """The sum over m of grad_nm bank[at_nm], `[N, D]` in float32 (or float64 as grad)."""
    (n, m), dim = at.shape, bank.shape[1]
    acc = accumulator(grad.dtype)
    parts = triton.cdiv(m, PART)
    out = grad.new_empty((parts, n, dim), dtype=acc)
    rows, depth = _tile(dim)
    if n * m:
        with torch.cuda.device_of(grad):
            _gathered_sum[n, parts, triton.cdiv(dim, depth)](
                grad, bank, at, out, m, len(bank), *grad.stride(), *bank.stride(), *at.stride(),
                D=dim, ACC=tl_type(acc), BM=rows, BD=depth, PART=PART,
            )  # fmt: skip
    return out.sum(0)


@gathered_sum.register_fake
def _(grad: Tensor, bank: Tensor, at: Tensor) -> Tensor:
    return grad.new_empty((at.shape[0], bank.shape[1]), dtype=accumulator(grad.dtype))


@register_flop_formula([torch.ops.bench.gathered_dots, torch.ops.bench.gathered_sum])
def _(left: Sequence[int], bank: Sequence[int], at: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * at[0] * at[1] * bank[1]


def _tile(dim: int) -> tuple[int, int]:
    """Rows and depth of a tile: of `NUMBERS` numbers, of at most 512 dimensions."""
    depth = min(triton.next_power_of_2(dim), 512)
    return min(NUMBERS // depth, PART), depth
