"""Soft targets against logits in Triton: what DINO's and iBOT's losses are made of.

For each row, of a picture or patch, there are V student views and G teachers' targets. Forward and
backward each read every logit once, in its own type. A program has a stretch of one row's
prototypes, of all views, and leaves a log-sum-exp a view, from which a second kernel makes the loss
in a fixed order: no atomics, so the same logits give the same bits. For the backward pass only
the log-sum-exps are kept. No probability is ever in memory.

With p the softmax of teacher g, x a student view's logits over its temperature, and S the sum of x
over the views that g is compared with, sum over k of p S is the same stretch by stretch, weighted
by the stretches' shares in the softmax.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench.kernels.contrast import LN_2, LOG2_E, tl_type
from bench.kernels.precision import accumulator
from bench.kernels.sinkhorn.triton import FLOOR, load_once, one_for_none
from bench.kernels.teacher import Teacher

LOGITS, STRETCH = 4096, 512  # to a program, of all views where they are few; at least of each


def soft_cross_entropy(
    student: Tensor,
    teacher: Teacher,
    temperature: float,
    *,
    weight: Tensor | None = None,
    index: Tensor | None = None,
    own: bool = True,
) -> Tensor:
    """Sum over n, v, g of weight_n * -sum over k of p_gn log softmax(student_vn / t).

    Args:
        student: `[V, N, K]` logits.
        teacher: `[G, R, K]`.
        temperature: the student's.
        weight: `[N]`, without gradient; None for 1.
        index: `[N]` each row's among the teacher's R; None for the same.
        own: whether a view v is also compared with the teacher g = v.
    """
    vectors = (teacher.center, weight, index)
    loss: Tensor = _SoftCrossEntropy.apply(
        student,
        teacher.logits.detach(),
        *(None if x is None else x.detach().contiguous() for x in vectors),
        temperature,
        teacher.temperature,
        own,
    )
    return loss


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, *rest: Any) -> Tensor:
        loss: Tensor
        loss, lse = soft_targets(student, *rest)
        ctx.save_for_backward(student, *rest[:4], lse)
        ctx.settings = rest[4:]
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        ds: Tensor = soft_targets_gradient(grad, *ctx.saved_tensors, *ctx.settings)
        return ds, *[None] * 7


@triton.jit
def _place(n, BK: tl.constexpr):
    """A program's row, and its stretch of prototypes.

    Programs side by side have the same stretch: that of the centre stays in the first-level cache.
    """
    row = tl.program_id(0) % n
    return row.to(tl.int64), tl.program_id(0) // n * BK + tl.arange(0, BK)


@triton.jit
def _targets(
    teacher, index, row, g, col, there, teacher_g, teacher_n, EVEN: tl.constexpr,
):  # fmt: skip
    """The teachers' logits [GP, BK] of a row."""
    source = row
    if index is not None:
        source = tl.load(index + row).to(tl.int64)
    at = teacher + g.to(tl.int64)[:, None] * teacher_g + source * teacher_n + col[None, :]
    return load_once(at, there, EVEN)


@triton.jit
def _centred(t, center, g, col, there, center_g, scale, ACC: tl.constexpr, EVEN: tl.constexpr):
    """The same off their centre and over their temperature, binary."""
    t = t.to(ACC)
    if center is not None:
        at = center + g.to(tl.int64)[:, None] * center_g + col[None, :]
        t -= (tl.load(at) if EVEN else tl.load(at, there, other=0.0)).to(ACC)
    return t * tl.full([], scale, ACC)


@triton.jit
def _soft_targets(
    student, teacher, center, weight, index, bests, sums, crosses, n, k,
    student_v, student_n, teacher_g, teacher_n, center_g,
    scale: tl.float64, teacher_scale: tl.float64,
    V: tl.constexpr, G: tl.constexpr, OWN: tl.constexpr, ACC: tl.constexpr,
    GP: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """Of each softmax in a stretch, its maximum and its sum of exponentials; of targets, p S."""
    row, col = _place(n, BK)
    if weight is not None:  # noqa: SIM102  # the inner one alone is there at run time
        if tl.load(weight + row) == 0:  # nothing of this row is read
            return
    inside = col < k
    g = tl.arange(0, GP)
    there = (g < G)[:, None] & inside[None, :]
    # Before all else, and a view before it is needed: so loads are under way during reductions.
    t = _targets(teacher, index, row, g, col, there, teacher_g, teacher_n, EVEN)
    first = student + row * student_n
    at = first + col
    ahead = load_once(at, inside, EVEN)
    to = tl.program_id(0).to(tl.int64)
    programs = tl.num_programs(0)
    factor = tl.full([], scale, ACC)
    total = tl.zeros([BK], ACC)
    for v in tl.static_range(V):
        x = ahead.to(ACC)
        if v + 1 < V:
            at += student_v
            ahead = load_once(at, inside, EVEN)
        best = tl.maximum(tl.max(x, 0) * factor, FLOOR)
        tl.store(bests + to, best)
        tl.store(sums + to, tl.sum(tl.exp2(x * factor - best), 0))
        to += programs
        total += x
    compared = tl.broadcast_to(total[None, :], [GP, BK])
    if not OWN:
        at = first + g.to(tl.int64)[:, None] * student_v + col[None, :]
        compared -= (tl.load(at) if EVEN else tl.load(at, there, other=0.0)).to(ACC)
    if not EVEN:
        compared = tl.where(there, compared, 0.0)
    t = _centred(t, center, g, col, there, center_g, teacher_scale, ACC, EVEN)
    best = tl.maximum(tl.max(t, 1), FLOOR)
    e = tl.exp2(t - best[:, None])
    cross = tl.program_id(0) + g.to(tl.int64) * programs
    tl.store(bests + to + g.to(tl.int64) * programs, best, g < G)
    tl.store(sums + to + g.to(tl.int64) * programs, tl.sum(e, 1), g < G)
    tl.store(crosses + cross, tl.sum(e * compared, 1), g < G)


@triton.jit
def _combined(
    bests, sums, crosses, weight, lse, terms, n, splits, scale: tl.float64,
    V: tl.constexpr, G: tl.constexpr, OWN: tl.constexpr, ACC: tl.constexpr,
    BN: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Of rows and a view (v < V) or teacher: log-sum-exps, and terms of the loss."""
    row = tl.program_id(0) * BN + tl.arange(0, BN)
    v = tl.program_id(1).to(tl.int64)
    part = tl.arange(0, PARTS)
    parts = tl.full([BN], 0, tl.int32) + splits
    if weight is not None:
        factor = tl.load(weight + row, row < n, other=0.0).to(ACC)
        parts = tl.where(factor != 0, parts, 0)
    inside = (row < n)[:, None] & (part[None, :] < parts[:, None])
    at = (v * splits + part)[None, :] * n + row[:, None]
    best = tl.load(bests + at, inside, other=FLOOR)
    shift = tl.max(best, 1)
    share = tl.exp2(best - shift[:, None])
    z = one_for_none(tl.sum(share * tl.load(sums + at, inside, other=0.0), 1))
    total = shift + tl.log2(z)
    at = ((v - V) * splits + part)[None, :] * n + row[:, None]
    cross = tl.sum(share * tl.load(crosses + at, inside & (v >= V), other=0.0), 1)
    teachers = G
    if not OWN:
        teachers = tl.where(v < G, G - 1, G)
    term = tl.where(v < V, teachers * total, -cross / z * tl.full([], scale, ACC))
    term *= LN_2
    if weight is not None:
        term = tl.where(factor != 0, term * factor, 0.0)
    tl.store(lse + v * n + row, total, row < n)
    tl.store(terms + v * n + row, term, row < n)


@triton.jit
def _gradient(
    grad, student, teacher, center, weight, index, lse, out, n, k,
    student_v, student_n, teacher_g, teacher_n, center_g,
    scale: tl.float64, teacher_scale: tl.float64, slope: tl.float64,
    V: tl.constexpr, G: tl.constexpr, OWN: tl.constexpr, ACC: tl.constexpr,
    GP: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    row, col = _place(n, BK)
    inside = col < k
    to = out + row * k + col
    step = tl.load(grad).to(ACC) * tl.full([], slope, ACC)
    if weight is not None:
        factor = tl.load(weight + row).to(ACC)
        step *= factor
        if factor == 0:
            for _ in tl.static_range(V):
                tl.store(to, tl.zeros([BK], ACC), inside)
                to += tl.full([], k, tl.int64) * n
            return
    g = tl.arange(0, GP)
    there = (g < G)[:, None] & inside[None, :]
    t = _targets(teacher, index, row, g, col, there, teacher_g, teacher_n, EVEN)
    at = student + row * student_n + col
    ahead = load_once(at, inside, EVEN)
    t = _centred(t, center, g, col, there, center_g, teacher_scale, ACC, EVEN)
    p = tl.exp2(t - tl.load(lse + (V + g.to(tl.int64)) * n + row, g < G, other=0.0)[:, None])
    total = tl.sum(p, 0)
    log = lse + row
    for v in tl.static_range(V):
        x = ahead.to(ACC)
        if v + 1 < V:
            at += student_v
            ahead = load_once(at, inside, EVEN)
        q = tl.exp2(x * tl.full([], scale, ACC) - tl.load(log))
        if OWN or v >= G:
            ds = G * q - total
        else:
            ds = (G - 1) * q - (total - tl.sum(tl.where((g == v)[:, None], p, 0.0), 0))
        if EVEN:
            tl.store(to, ds * step)
        else:
            tl.store(to, ds * step, inside)
        to += tl.full([], k, tl.int64) * n
        log += n


@torch.library.custom_op("bench::soft_targets", mutates_args=())
def soft_targets(
    student: Tensor,
    teacher: Tensor,
    center: Tensor | None,
    weight: Tensor | None,
    index: Tensor | None,
    temperature: float,
    teacher_temperature: float,
    own: bool,
) -> tuple[Tensor, Tensor]:
    """`soft_cross_entropy`'s loss, and the binary log-sum-exps `[V + G, N]` of all softmaxes."""
    student, teacher = _with_adjacent(student), _with_adjacent(teacher)
    (views, n, k), teachers, acc = student.shape, len(teacher), accumulator(student.dtype)
    tile = tiles(student, teacher)
    lse = student.new_empty((views + teachers, n), dtype=acc)
    terms = torch.empty_like(lse)
    with torch.cuda.device_of(student):
        splits = triton.cdiv(k, tile["BK"])
        parts = triton.next_power_of_2(splits)
        rows = min(max(2048 // parts, 1), 32)
        bests, sums = student.new_empty((2, views + teachers, splits, n), dtype=acc)
        crosses = student.new_empty((teachers, splits, n), dtype=acc)
        _soft_targets[(splits * n,)](
            student, teacher, center, weight, index, bests, sums, crosses, n, k,
            *_strides(student, teacher, center),
            LOG2_E.value / temperature, LOG2_E.value / teacher_temperature, OWN=own, **tile,
        )  # fmt: skip
        _combined[triton.cdiv(n, rows), views + teachers](
            bests, sums, crosses, weight, lse, terms, n, splits, LOG2_E.value / temperature,
            V=views, G=teachers, OWN=own, ACC=tl_type(acc), BN=rows, PARTS=parts,
        )  # fmt: skip
    return terms.sum(), lse


@soft_targets.register_fake
def _(student: Tensor, teacher: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    acc = accumulator(student.dtype)
    views, n, _k = student.shape
    lse = student.new_empty((views + teacher.shape[0], n), dtype=acc)
    return student.new_empty((), dtype=acc), lse


@torch.library.custom_op("bench::soft_targets_gradient", mutates_args=())
def soft_targets_gradient(
    grad: Tensor,
    student: Tensor,
    teacher: Tensor,
    center: Tensor | None,
    weight: Tensor | None,
    index: Tensor | None,
    lse: Tensor,
    temperature: float,
    teacher_temperature: float,
    own: bool,
) -> Tensor:
    """The gradient `[V, N, K]` of `soft_cross_entropy` by the student's logits, in their type."""
    student, teacher = _with_adjacent(student), _with_adjacent(teacher)
    _, n, k = student.shape
    tile = tiles(student, teacher)
    out = student.new_empty(student.shape)
    with torch.cuda.device_of(student):
        _gradient[(triton.cdiv(k, tile["BK"]) * n,)](
            grad, student, teacher, center, weight, index, lse, out, n, k,
            *_strides(student, teacher, center),
            LOG2_E.value / temperature, LOG2_E.value / teacher_temperature, 1 / temperature,
            OWN=own, **tile,
        )  # fmt: skip
    return out


@soft_targets_gradient.register_fake
def _(grad: Tensor, student: Tensor, *_: Any) -> Tensor:
    return student.new_empty(student.shape)


def tiles(student: Tensor, teacher: Tensor) -> dict[str, Any]:
    """The shape of a program: one row's stretch of prototypes, of all views.

    It is one warp's, whose reductions need no barrier. Two rows have a long stretch, since each
    program takes some time to start; of many, a warp holds less.
    """
    views, teachers, k = len(student), len(teacher), student.shape[-1]
    width = max(LOGITS // triton.next_power_of_2(views + teachers), STRETCH)
    if student.dtype == torch.float64:
        width //= 4
    width = min(width, triton.next_power_of_2(k))
    padded = triton.next_power_of_2(teachers)
    return {
        "V": views,
        "G": teachers,
        "GP": padded,
        "BK": width,
        "EVEN": k % width == 0 and padded == teachers,  # no load needs a mask
        "ACC": tl_type(accumulator(student.dtype)),
        "num_warps": 1,
    }


def _with_adjacent(logits: Tensor) -> Tensor:
    """The logits, each row in one piece."""
    return logits if logits.stride(-1) == 1 else logits.contiguous()


def _strides(student: Tensor, teacher: Tensor, center: Tensor | None) -> tuple[int, ...]:
    per_view = center.stride(0) if center is not None and center.ndim > 1 else 0
    return (*student.stride()[:2], *teacher.stride()[:2], per_view)
