"""Linear SVMs on a layer's features: costs by cross-validation, and learning from few positives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.eval.average_precision import multilabel_average_precision
from bench.eval.linear_svm import EigenBasis, decide, fit_svms, rank_in_class
from bench.rng import generator


def cross_validate(
    basis: EigenBasis,
    targets: Tensor,
    costs: Sequence[float],
    *,
    folds: int,
    positive_weight: float,
    seed: int,
) -> Tensor:
    """Mean average precision over held-out folds of every class at every cost, `[costs, C]`.

    Folds are stratified by class and the same for every layer. The precision is scikit-learn's
    (steps, nothing interpolated), and NaN for a class that has no positive.

    Args:
        basis: of the N rows.
        targets: `[N, C]`, 1 positive, 0 negative, -1 left out.
        costs: to compare; each starts from the solution of the one before.
        folds: how many parts each class is cut into.
        positive_weight: the class weight of positives.
        seed: names the folds.
    """
    rng = generator(seed, "folds", device=targets.device)
    fold = rank_in_class(targets, rng) % folds
    held = fold[:, None] == torch.arange(folds, device=fold.device)[:, None]  # [N, folds, C]
    every = targets[:, None].expand_as(held)
    learnt, judged = (every.where(mask, -1).flatten(1) for mask in (~held, held))
    found, weights = [], None
    for cost in costs:
        weights = fit_svms(basis, learnt, cost, positive_weight=positive_weight, start=weights)
        step = multilabel_average_precision(basis.rows @ weights, judged).step
        found.append(step.view(folds, -1).nanmean(0))
    return torch.stack(found)


@dataclass(frozen=True)
class FewPositives:
    """SVMs learnt from k positives of each class.

    Attributes:
        cost: the one chosen for k.
        val_ap: its mean average precision on val over draws and classes, in [0, 1].
        weights: `[D, draws * C]`, for rows of D numbers.
    """

    cost: float
    val_ap: float
    weights: Tensor


def few_positives(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    costs: Sequence[float],
    *,
    shots: Sequence[int],
    draws: int,
    positive_weight: float,
    seed: int,
) -> dict[int, FewPositives]:
    """SVMs from k positives and k (C - 1) negatives of each class, for every k in `shots`.

    As in Goyal et al., arXiv:1905.01235, there is one cost for each k, the best for the mean over
    draws and classes; they choose it on test, here it is chosen on val. What a draw has with a
    smaller k it also has with a greater.

    Args:
        train: rows `[N, D]` and targets `[N, C]` to draw from.
        val: rows and targets to choose the cost on.
        costs: to choose from.
        shots: values of k; those that a class has not enough positives for are left out.
        draws: how often to draw for each k.
        positive_weight: the class weight of positives.
        seed: names the draws.
    """
    targets = train[1].repeat(1, draws)
    rank = rank_in_class(targets, generator(seed, "shots", device=targets.device))
    fewest, others = int((train[1] == 1).sum(0).min()), max(1, train[1].shape[1] - 1)
    basis, rows, judged = EigenBasis(train[0]), val[0], val[1].repeat(1, draws)
    found: dict[int, FewPositives] = {}
    for k in (k for k in shots if k <= fewest):
        drawn = targets.where(rank < torch.where(targets == 1, k, k * others), -1)
        weights = None
        for cost in costs:
            weights = fit_svms(basis, drawn, cost, positive_weight=positive_weight, start=weights)
            outer = basis.axes @ weights
            ap = multilabel_average_precision(decide(rows, outer), judged).step.nanmean().item()
            if k not in found or ap > found[k].val_ap:
                found[k] = FewPositives(cost, ap, outer)
    return found
