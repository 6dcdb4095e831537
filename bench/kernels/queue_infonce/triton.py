"""InfoNCE against a queue in Triton: 6 N K D operations, and memory O(N D) beside the queue."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.kernels.contrast import (
    as_scale,
    inverse_of,
    pull,
    row_lse,
    through_unit_rows,
    unit_rows,
)
from bench.kernels.dispatch import products

UNKNOWN = False  # whether exponents are bounded: nobody sees to it that a queue's rows are unit


def queue_infonce(query: Tensor, key: Tensor, queue: Tensor, temperature: float | Tensor) -> Tensor:
    """`bench.kernels.queue_infonce`; products are in the type of the queries."""
    scale, _ = as_scale(inverse_of(temperature), query)
    keys = key.detach(), queue.detach().to(query.dtype).contiguous()
    loss: Tensor = _QueueInfoNCE.apply(query, *keys, scale, products())
    return loss


class _QueueInfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, queue: Tensor, scale: Tensor, dot: str
    ) -> Tensor:
        q, inverse = unit_rows(query)
        k, _ = unit_rows(key, query.dtype)
        others = row_lse(q, queue, scale, None, UNKNOWN, dot)
        own = scale * (q.to(others.dtype) * k).sum(1)
        lse = torch.logaddexp(others, own)
        ctx.save_for_backward(q, inverse, k, queue, scale, own, lse)
        ctx.settings, ctx.type = (UNKNOWN, dot), query.dtype
        loss: Tensor = (lse - own).mean()
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, inverse, k, queue, scale, own, lse = ctx.saved_tensors
        pulled = pull(q, queue, scale, lse, None, None, *ctx.settings)
        pushed = -torch.expm1(own - lse)[:, None] * k  # 1 - p of the own key
        # By scale * q, of which the scale's gradient and that of q are made.
        dq = (pulled - pushed) * (grad / len(q))
        of_scale = (q * dq).sum().reshape(1)
        return through_unit_rows(scale * dq, q, inverse, ctx.type), None, None, of_scale, None
