"""InfoNCE in Triton: 12 N^2 D operations both ways, 10 one way, and memory O(N D).

The gradient of row i is s/N (sum over j of (p_ij + p_ji) b_j - 2 b_i) / 2, p_ij the share of j in
i's softmax and p_ji that of i in j's: one pass for each side, made of the saved log-sum-exps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.kernels.contrast import as_scale, pull, row_lse, through_unit_rows, unit_rows
from bench.kernels.dispatch import products
from bench.kernels.ranks import Ranks


def infonce(
    one: Tensor, two: Tensor, scale: float | Tensor, symmetric: bool, ranks: Ranks
) -> Tensor:
    """`bench.kernels.infonce`; products are in the type of the embeddings."""
    factor, bounded = as_scale(scale, one)
    settings = symmetric, bounded, ranks, products()
    loss: Tensor = _InfoNCE.apply(one, two, factor, *settings)
    return loss


class _InfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, one: Tensor, two: Tensor, scale: Tensor, symmetric: bool, bounded: bool,
        ranks: Ranks, dot: str,
    ) -> Tensor:  # fmt: skip
        (a, a_inverse), (b, b_inverse) = unit_rows(one), unit_rows(two, one.dtype)
        every_a, every_b = ranks.gather(a), ranks.gather(b)
        there = row_lse(a, every_b, scale, None, bounded, dot)
        back = row_lse(b, every_a, scale, None, bounded, dot) if symmetric else None
        every_back = None if back is None else ranks.gather(back)
        saved = (a, a_inverse, b, b_inverse, every_a, every_b, scale)
        ctx.save_for_backward(*saved, there, back, ranks.gather(there), every_back)
        ctx.settings, ctx.types = (bounded, dot), (one.dtype, two.dtype)
        normalizer = there.mean() if back is None else (there.mean() + back.mean()) / 2
        loss: Tensor = normalizer - scale[0] * (a.to(there.dtype) * b).sum() / len(a)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, a_inverse, b, b_inverse, every_a, every_b, scale, *normalizers = ctx.saved_tensors
        there, back, every_there, every_back = normalizers
        ways = 1 if back is None else 2
        share = grad / (ways * len(a))
        needs_a, needs_b, needs_scale, *_ = ctx.needs_input_grad
        of_a = of_b = of_scale = None
        if needs_a or needs_scale:
            pulled = pull(a, every_b, scale, there, every_back, None, *ctx.settings)
            # By scale * a, of which the scale's gradient and that of a are made.
            da = share * (pulled - ways * b)
            of_a = through_unit_rows(scale * da, a, a_inverse, ctx.types[0])
            of_scale = (a * da).sum().reshape(1)
        if needs_b:
            pulled = pull(b, every_a, scale, back, every_there, None, *ctx.settings)
            db = scale * share * (pulled - ways * a)
            of_b = through_unit_rows(db, b, b_inverse, ctx.types[1])
        return of_a, of_b, of_scale, None, None, None, None
