"""Average precision of ranked scores, as VOC 2007, VOC 2010 and scikit-learn define it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RECALL_LEVELS = 10  # VOC 2007 reads precision at recalls of 0/10, 1/10, ... 10/10


class AveragePrecision(NamedTuple):
    """Three definitions of one ranking's average precision, float64 in [0, 1], `[*]` each.

    Attributes:
        eleven_point: mean over recalls 0, 0.1, ... 1 of the best precision at that recall or
            beyond (VOC 2007, Everingham et al., IJCV 2010); 0 where the recall is never reached.
        area: area under that best precision as a function of recall (VOC 2010 and later; what
            VISSL reports for VOC 2007).
        step: sum of precision times the gain in recall, nothing interpolated (scikit-learn's
            `average_precision_score`).
    """

    eleven_point: Tensor
    area: Tensor
    step: Tensor


def average_precision(
    scores: Tensor, hit: Tensor, positives: Tensor | int, counted: Tensor | None = None
) -> AveragePrecision:
    """Average precision of N scored items, for one ranking or many side by side.

    Equal scores are one threshold: all of them are accepted or none, so the order of the items
    does not matter. For the two interpolated definitions this is also the pessimistic order, with
    every miss before every hit of its score: no precision inside a group exceeds that at its end.
    NaN ranks last.

    Args:
        scores: `[N]` or `[N, *]`, higher is more confident.
        hit: bool, shaped as `scores`: the item is a true positive.
        positives: how many there are to be found, `[*]` or one number; those that no item stands
            for (undetected objects) are among them.
        counted: bool, shaped as `scores`; an item where it is False (a difficult object) is
            neither a hit nor a miss. By default all are counted.

    Returns:
        `[*]` each; NaN where `positives` is 0, and 0 where there are positives but no items.
    """
    scores = scores.where(~scores.isnan(), -torch.inf)
    scores, order = scores.sort(dim=0, descending=True, stable=True)
    hit = hit.gather(0, order)
    kept = torch.ones_like(hit) if counted is None else counted.gather(0, order)
    hit = hit & kept
    positives = torch.as_tensor(positives, device=scores.device).expand(scores.shape[1:])

    end = _group_ends(scores)
    found = hit.cumsum(0).gather(0, end)  # hits at or above each item's score
    precision = found.double() / kept.cumsum(0).gather(0, end).clamp(min=1)
    # The best precision at this item's recall or beyond.
    best = precision.flip(0).cummax(0).values.flip(0)
    # In whole numbers: as floats 3 * 0.1 exceeds 3 / 10, and that recall would not be reached.
    level = torch.arange(RECALL_LEVELS + 1, device=scores.device)
    needed = level.view(-1, *[1] * positives.ndim) * positives  # [11, *]
    reached = [(RECALL_LEVELS * found >= row) & kept for row in needed]
    at_level = [_max_where(best, here) for here in reached]
    nothing = positives == 0
    return AveragePrecision(
        *(
            (total / positives.clamp(min=1)).masked_fill(nothing, torch.nan)
            for total in (
                torch.stack(at_level).mean(0) * positives,
                (best * hit).sum(0),
                (precision * hit).sum(0),
            )
        )
    )


def multilabel_average_precision(scores: Tensor, targets: Tensor) -> AveragePrecision:
    """Average precision of each class of a multi-label classification.

    Args:
        scores: `[N, *]`.
        targets: `[N, *]`, 1 present, 0 absent, -1 difficult: neither a hit nor a miss.

    Returns:
        `[*]` each; NaN for a class without a positive.
    """
    hit = targets == 1
    return average_precision(scores, hit, hit.sum(0), targets != -1)


def _group_ends(scores: Tensor) -> Tensor:
    """The position of the last item with each item's score; `scores` `[N, *]` are sorted."""
    position = torch.arange(len(scores), device=scores.device)
    position = position.view(-1, *[1] * (scores.ndim - 1)).expand_as(scores)
    last = torch.ones_like(scores, dtype=torch.bool)
    last[:-1] = scores[:-1] != scores[1:]
    return position.where(last, len(scores)).flip(0).cummin(0).values.flip(0)


def _max_where(values: Tensor, where: Tensor) -> Tensor:
    """The greatest of `values` `[N, *]` where `where` is True; 0 where it never is."""
    zero = values.new_zeros(1, *values.shape[1:])  # there may be no item at all
    return torch.cat([values * where, zero]).amax(0)
