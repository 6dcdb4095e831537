"""Sums of squared correlations in Triton: a matrix product that squares and sums as it ends.

The product is written once, for the gradient, and not read again for the sum; of a symmetric one
half the tiles are computed. Sums are of each tile's, in a fixed order. The gradient's products are
the library's. From the rows' side forward and backward take 6 N^2 D operations, from the
dimensions' 6 N D^2, so that the smaller side is taken; with halves the rows' takes 10 N^2 D, since
the gradient's Gram matrices are multiplied in two parts. Covariances take half of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from bench.kernels.contrast import tl_type
from bench.kernels.dispatch import products
from bench.kernels.precision import accumulator


def redundancy(a: Tensor, b: Tensor, diagonal: Tensor, *, dtype: torch.dtype) -> Tensor:
    """As the reference's; products of `dtype`, from the rows' side where they are few."""
    if not _rows_side(a, dtype):
        across: Tensor = _Across.apply(a, b, dtype, products())
        return across
    if dtype != a.dtype:  # What is taken off again must be rounded as what it is part of.
        a, b = (_rounded(x, dtype) for x in (a, b))
        diagonal = (a * b).mean(0)
    every: Tensor = _Grams.apply(a, b, dtype, products())
    return every - diagonal.square().sum()


def covariances(x: Tensor, *, dtype: torch.dtype) -> Tensor:
    """As the reference's; products of `dtype`, from the rows' side where they are few."""
    rows = len(x)
    if not _rows_side(x, dtype):
        across: Tensor = _Across.apply(x, None, dtype, products())
        return across * rows**2
    x = _rounded(x, dtype)
    every: Tensor = _Grams.apply(x, None, dtype, products())
    return every * rows**2 - x.square().sum(0).square().sum()


def _rows_side(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether that takes fewer operations; the reference's are 8 N^2 D, of whole Gram matrices."""
    return x.shape[0] < (1 if dtype == x.dtype else 0.6) * x.shape[1]


def _rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype).to(x.dtype)


class _Across(torch.autograd.Function):
    """The sum over i != j of C_ij^2, C = A^T B / N (B = A: None), from the dimensions' side."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor | None, dtype: torch.dtype, dot: str) -> Tensor:
        x, y = a.to(dtype), None if b is None else b.to(dtype)
        total: Tensor
        total, across = squared_product(x.T, None if y is None else y.T, None, len(x), False, dot)
        ctx.save_for_backward(x, y, across)
        ctx.wide = a.dtype
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """2 B C^T / N and 2 A C / N; their sum where B = A."""
        x, y, across = ctx.saved_tensors
        scale = 2 * grad / len(x)
        if y is None:
            return 2 * scale * (x @ across).to(ctx.wide), None, None, None
        grads = ((p @ q).to(ctx.wide) for p, q in ((y, across.T), (x, across)))
        return *(scale * each for each in grads), None, None


class _Grams(torch.autograd.Function):
    """The sum over i, j of C_ij^2, C = A^T B / N (B = A: None), from the rows' side."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor | None, dtype: torch.dtype, dot: str) -> Tensor:
        x, y = a.to(dtype), None if b is None else b.to(dtype)
        total: Tensor
        total, *grams = squared_product(x, None, y, len(x), True, dot)
        ctx.save_for_backward(x, y, *grams)
        ctx.wide = a.dtype
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """2 B B^T A / N^2 and 2 A A^T B / N^2; their sum where B = A."""
        x, y, *grams = ctx.saved_tensors
        scale = 2 * grad / len(x)
        if y is None:
            return 2 * scale * _product(grams[0], x).to(ctx.wide), None, None, None
        grads = (_product(p, q).to(ctx.wide) for p, q in ((grams[1], x), (grams[0], y)))
        return *(scale * each for each in grads), None, None


def _product(gram: Tensor, x: Tensor) -> Tensor:
    """A Gram matrix times x; where that is of a lower precision, in two parts that are of it."""
    if gram.dtype == x.dtype:
        return gram @ x
    high = gram.to(x.dtype)
    return torch.addmm(high @ x, (gram - high).to(x.dtype), x)


@triton.jit
def _tile_product(
    x, y, row, col, rows, cols, depth, x_r, x_l, y_r, y_l,
    DOT: tl.constexpr, ACC: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """A tile of x y^T."""
    total = tl.zeros([BR, BC], ACC)
    for start in range(0, depth, BL):
        at = start + tl.arange(0, BL)
        left = x + row.to(tl.int64)[:, None] * x_r + at.to(tl.int64)[None, :] * x_l
        right = y + col.to(tl.int64)[None, :] * y_r + at.to(tl.int64)[:, None] * y_l
        total = tl.dot(
            tl.load(left, (row < rows)[:, None] & (at < depth)[None, :], other=0.0),
            tl.load(right, (col < cols)[None, :] & (at < depth)[:, None], other=0.0),
            total,
            input_precision=DOT,
            out_dtype=ACC,
        )
    return total


@triton.jit
def _store(out, value, row, col, rows, cols, mirror):
    """A tile of a matrix, and the one across the diagonal."""
    at = row.to(tl.int64)[:, None] * cols + col[None, :]
    tl.store(out + at, value, (row < rows)[:, None] & (col < cols)[None, :])
    if mirror:
        at = col.to(tl.int64)[:, None] * cols + row[None, :]
        tl.store(out + at, tl.trans(value), (col < cols)[:, None] & (row < rows)[None, :])


@triton.jit
def _squared_product(
    x, y, u, first, second, totals, rows, cols, depth, count, x_r, x_l, y_r, y_l, u_r, u_l,
    SYMMETRIC: tl.constexpr, PAIR: tl.constexpr, DIAGONAL: tl.constexpr, DOT: tl.constexpr,
    ACC: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    high = tl.cdiv(rows, BR)
    wide = tl.cdiv(cols, BC)
    i, j = tl.swizzle2d(tl.program_id(0) // wide, tl.program_id(0) % wide, high, wide, GROUP)
    share = tl.full([], 0.0, ACC)
    if not SYMMETRIC or i <= j:
        row = i * BR + tl.arange(0, BR)
        col = j * BC + tl.arange(0, BC)
        product = _tile_product(
            x, y, row, col, rows, cols, depth, x_r, x_l, y_r, y_l, DOT, ACC, BR, BC, BL
        )
        product /= count
        if not DIAGONAL:
            product = tl.where(row[:, None] == col[None, :], 0.0, product)
        _store(first, product, row, col, rows, cols, SYMMETRIC and i < j)
        other = product
        if PAIR:
            other = _tile_product(
                u, u, row, col, rows, cols, depth, u_r, u_l, u_r, u_l, DOT, ACC, BR, BC, BL
            )
            other /= count
            _store(second, other, row, col, rows, cols, SYMMETRIC and i < j)
            # Read again rather than kept: two tiles of sums do not fit in registers.
            tl.debug_barrier()
            at = row.to(tl.int64)[:, None] * cols + col[None, :]
            product = tl.load(first + at, (row < rows)[:, None] & (col < cols)[None, :], other=0.0)
        share = tl.sum(tl.sum(product * other, 1), 0)
        if SYMMETRIC and i < j:
            share *= 2
    tl.store(totals + i * wide + j, share)


class _Tiles(NamedTuple):
    """The shape of one program: rows and columns of its tile, depth of a step, how it is run."""

    side: int
    depth: int
    warps: int
    stages: int


def _tiles(dtype: torch.dtype, rows_side: bool, pair: bool) -> _Tiles:
    if dtype == torch.float64:
        return _Tiles(16, 16, 4, 1)
    if dtype == torch.float32:
        return _Tiles(64, 16 if pair else 32, 8, 3)  # of deeper ones two products spill
    # A Gram matrix of rows is small: of smaller tiles there are enough to occupy a GPU.
    return _Tiles(64, 64, 8, 3) if rows_side else _Tiles(128, 64, 8, 3)


@torch.library.custom_op("bench::squared_product", mutates_args=())
def squared_product(
    x: Tensor, y: Tensor | None, u: Tensor | None, count: int, diagonal: bool, dot: str
) -> list[Tensor]:
    """The sum of the squares of P = x y^T / count, and P.

    Args:
        x: `[R, L]`.
        y: `[C, L]`; None: x, and P is symmetric.
        u: `[R, L]`, where y is None: the sum is then of P * Q, Q = u u^T / count.
        count: what products are divided by.
        diagonal: whether it counts; where it does not, that of P is 0.
        dot: how float32 is multiplied, of `dispatch.Products`.

    Returns:
        The sum `[]`, P `[R, C]`, and Q if there is one. Where the diagonal counts, P is of the
        sum's type, float32 at least, and else of that of x.
    """
    out = _outputs(x, y, u, diagonal)
    tiles = _tiles(x.dtype, diagonal, u is not None)
    (rows, depth), (cols, _) = x.shape, out[1].T.shape
    high, wide = triton.cdiv(rows, tiles.side), triton.cdiv(cols, tiles.side)
    totals = x.new_empty(high * wide, dtype=accumulator(x.dtype))
    right, third = x if y is None else y, x if u is None else u
    with torch.cuda.device_of(x):
        _squared_product[(high * wide,)](
            x, right, third, out[1], out[-1], totals, rows, cols, depth, count,
            *x.stride(), *right.stride(), *third.stride(), SYMMETRIC=y is None, PAIR=u is not None,
            DIAGONAL=diagonal, DOT=dot, ACC=tl_type(accumulator(x.dtype)), BR=tiles.side,
            BC=tiles.side, BL=tiles.depth, GROUP=8, num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return [totals.sum(), *out[1:]]


@squared_product.register_fake
def _(
    x: Tensor, y: Tensor | None, u: Tensor | None, count: int, diagonal: bool, dot: str
) -> list[Tensor]:
    return _outputs(x, y, u, diagonal)


@register_flop_formula(torch.ops.bench.squared_product)
def _(x: Sequence[int], y: Sequence[int] | None, u: object, *_: Any, **__: Any) -> int:
    if y is not None:
        return 2 * x[0] * x[1] * y[0]
    return x[0] ** 2 * x[1] * (1 if u is None else 2)  # of symmetric ones half the tiles


def _outputs(x: Tensor, y: Tensor | None, u: Tensor | None, diagonal: bool) -> list[Tensor]:
    """Memory for what `squared_product` returns."""
    acc = accumulator(x.dtype)
    shape = x.shape[0], (x if y is None else y).shape[0]
    matrices = 1 if u is None else 2
    # A Gram matrix's diagonal outweighs the rest: halves would lose that.
    kept = acc if diagonal else x.dtype
    return [x.new_empty((), dtype=acc), *(x.new_empty(shape, dtype=kept) for _ in range(matrices))]
