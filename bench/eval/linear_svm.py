"""Many linear support vector machines at once, each as scikit-learn's `LinearSVC` fits it.

The squared hinge is smooth, so conjugate gradients minimise it for every class, fold and draw side
by side, in matrix products. In the eigenbasis of the rows' second moments the Hessian of each is
close to diagonal, and a few steps do where LinearSVC's coordinate descent takes thousands.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

TOLERANCE = 1e-6  # of the objective
# 3 to 30 are usual (measured); hundreds where rows can be told apart, at a cost of 1000.
MAX_STEPS = 1000
LINE_STEPS = 4  # Newton steps along a direction, where the objective is piecewise quadratic
TINY = 1e-30


def unit_rows(features: Tensor) -> Tensor:
    """L2-normalised `features` `[N, D]` with a last column of ones, `[N, D + 1]`.

    So the bias is a weight like any other, as with `LinearSVC(intercept_scaling=1)`.
    """
    return torch.cat([normalize(features), features.new_ones(len(features), 1)], 1)


class EigenBasis:
    """Rows in the axes along which they are uncorrelated, where `fit_svms` works.

    Attributes:
        axes: `[D, R]` orthonormal columns that span the rows, R = min(N, D). Weights `[R, H]` in
            this basis are `axes @ weights` for rows as they were.
        rows: `[N, R]`.
        energy: `[R]` sum of squares of the rows along each axis.
    """

    def __init__(self, rows: Tensor) -> None:
        """Of `rows` `[N, D]`, float32."""
        span = torch.linalg.qr(rows.T).Q if rows.shape[1] > len(rows) else None
        inner = rows if span is None else rows @ span
        energy, axes = torch.linalg.eigh((inner.T @ inner).double())
        self.energy, axes = energy.clamp(min=0).to(rows), axes.to(rows)
        self.axes = axes if span is None else span @ axes
        self.rows = inner @ axes


def fit_svms(
    basis: EigenBasis,
    targets: Tensor,
    cost: Tensor | float,
    *,
    positive_weight: float = 2.0,
    start: Tensor | None = None,
) -> Tensor:
    """Minimise |w|^2 / 2 + sum_i c_i max(0, 1 - s_i w . x_i)^2 for H targets at once.

    s_i is 1 or -1, and c_i is `cost`, times `positive_weight` where s_i is 1. Polak-Ribiere
    conjugate gradients with an exact line search, preconditioned by the Hessian that the rows
    within the margin would have, were they distributed as all rows.

    Args:
        basis: of the N rows.
        targets: `[N, H]`, 1 positive, 0 negative, -1 left out.
        cost: C, one or `[H]`.
        positive_weight: the class weight of positives, 2 in Goyal et al., arXiv:1905.01235.
        start: `[R, H]` weights to start from, such as those of a lower cost; by default 0.

    Returns:
        Weights `[R, H]` in the basis.
    """
    rows, positive = basis.rows, targets == 1
    sign = positive.to(rows) * 2 - 1
    costs = cost * (1 + (positive_weight - 1) * positive.to(rows)) * (targets != -1)
    weight = rows.new_zeros(rows.shape[1], targets.shape[1]) if start is None else start
    slack = 1 - sign * (rows @ weight)
    within = (costs * (slack > 0)).mean(0)
    scale = 1 / (1 + 2 * basis.energy[:, None] * within)
    direction, gradient_before, size_before = 0 * weight, 0 * weight, torch.inf
    for _ in range(MAX_STEPS):
        pull = costs * slack.clamp(min=0)
        gradient = weight - 2 * (rows.T @ (pull * sign))
        scaled = scale * gradient
        size = (gradient * scaled).sum(0)  # about twice what is left to gain
        if (size <= TOLERANCE * (weight.square().sum(0) / 2 + (pull * slack).sum(0))).all():
            break
        turn = ((gradient - gradient_before) * scaled).sum(0) / (size_before + TINY)
        direction = turn.clamp(min=0) * direction - scaled
        gradient_before, size_before = gradient, size
        gain = sign * (rows @ direction)
        length = _line_search(weight, direction, slack, gain, costs)
        weight, slack = weight + length * direction, slack - length * gain
    return weight


def _line_search(
    weight: Tensor, direction: Tensor, slack: Tensor, gain: Tensor, costs: Tensor
) -> Tensor:
    """How far `[H]` to go along `direction` for the least objective."""
    along, square = (weight * direction).sum(0), direction.square().sum(0)
    length = torch.zeros_like(along)
    for _ in range(LINE_STEPS):
        left = slack - length * gain
        pull = costs * gain * (left > 0)
        slope = along + length * square - 2 * (pull * left).sum(0)
        length = length - slope / (square + 2 * (pull * gain).sum(0)).clamp(min=TINY)
    return length


def decide(rows: Tensor, weights: Tensor) -> Tensor:
    """Scores `[N, H]` of `rows` `[N, D]` by `weights` `[D, H]`, float32.

    The product is in float64: in float32 equal rows get scores that differ in the last bit, by
    where they stand in the matrix, and ties are no longer ties.
    """
    return (rows.double() @ weights.double()).float()


def rank_in_class(targets: Tensor, rng: torch.Generator) -> Tensor:
    """Each entry's place, from 0, in a random order of the entries of its column with its value.

    Args:
        targets: `[N, C]`, 1, 0 or -1.
        rng: on the device of `targets`.

    Returns:
        `[N, C]` int64. Modulo k it parts every class evenly into k folds; below k it is a draw of
        k positives and k negatives.
    """
    order = torch.rand(targets.shape, generator=rng, device=targets.device).argsort(0)
    drawn = targets.gather(0, order)
    place = torch.zeros_like(order)
    for value in (1, 0, -1):
        place = torch.where(drawn == value, (drawn == value).cumsum(0) - 1, place)
    return torch.empty_like(place).scatter_(0, order, place)
