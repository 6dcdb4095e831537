"""Sinkhorn-Knopp: balanced soft assignments to prototypes (arXiv:1306.0895; SwAV, 2006.09882)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.kernels import dispatch
from bench.kernels.ranks import ALONE, Ranks
from bench.kernels.sinkhorn import reference
from bench.kernels.teacher import Teacher

# Scores from which `auto` takes the kernel. Provisional: to be set where `bench profile losses`
# finds the two level on a GPU.
FROM_SCORES = 2**20


@torch.no_grad()
def sinkhorn_center(
    scores: Tensor, temperature: float, iterations: int = 3, ranks: Ranks = ALONE
) -> Tensor:
    """The centre c `[K]` for which softmax((scores - c) / t) shares prototypes evenly among rows.

    Columns and rows of exp(scores / t) are alternately scaled to equal sums; only the scale of each
    is kept, never the scaled matrix, and the last scaling of rows is left to the softmax. No
    gradient flows. In float32, or in float64 for such scores.

    Args:
        scores: `[N, K]`, cosines to the prototypes, say.
        temperature: SwAV's epsilon, above 0.
        iterations: of columns and rows, at least 1.
        ranks: whose rows there are beside this process's.

    Raises:
        BenchError: scores of another shape, no iteration, or a temperature of 0.
    """
    if scores.ndim != 2 or iterations < 1 or temperature <= 0:
        raise BenchError(
            f"sinkhorn: scores {tuple(scores.shape)}, {iterations} iterations at temperature "
            f"{temperature}; give [N, K], at least 1, and above 0"
        )
    half: Any = reference
    if dispatch.triton("sinkhorn", scores, worth=scores.numel() >= FROM_SCORES):
        from bench.kernels.sinkhorn import triton as fused

        half = fused
    elif ranks is ALONE:
        return -temperature * reference.column_scales(scores, temperature, iterations)

    def columns(rows: Tensor | None) -> Tensor:
        every = ranks.gather(half.column_sums(scores, rows, temperature)[None])
        # exp(scores / t) overflows where t is small: scales and sums are logarithms throughout.
        return -(every[0] if len(every) == 1 else every.logsumexp(0))

    scale = columns(None)
    for _ in range(iterations - 1):
        scale = columns(-half.row_sums(scores, scale, temperature))
    return -temperature * scale


def sinkhorn(scores: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """exp(scores / t), scaled so that prototypes share the rows evenly: `[N, K]`, rows sum to 1.

    For those who need the plan itself; a loss takes a `Teacher` with `sinkhorn_center`.

    Args:
        scores: `[N, K]`, cosines to the prototypes, say; no gradient flows into them.
        temperature: SwAV's epsilon, above 0.
        iterations: of columns and rows, at least 1.
    """
    center = sinkhorn_center(scores, temperature, iterations)
    return Teacher(scores, temperature, center).probabilities()
