"""Average precision, against scikit-learn, torchmetrics and the VOC kit's loop, ties included."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torchmetrics.functional.classification import multilabel_average_precision as torchmetrics_ap

from bench.eval.average_precision import average_precision, multilabel_average_precision


def voc_loop(scores: list[float], hit: list[bool], positives: int) -> tuple[float, float]:
    """VOCevalcls of the kit, 11-point and area, with misses before hits of the same score."""
    ranked = sorted(zip(scores, hit, strict=True), key=lambda item: (-item[0], item[1]))
    recall, precision, found = [], [], 0
    for count, (_, right) in enumerate(ranked, 1):
        found += right
        recall.append(Fraction(found, positives))
        precision.append(Fraction(found, count))
    eleven = Fraction(0)
    for level in range(11):
        reached = [p for r, p in zip(recall, precision, strict=True) if r >= Fraction(level, 10)]
        eleven += max(reached, default=Fraction(0)) / 11
    # VOCap.m: sentinels, precision made monotone from the end, rectangles where recall changes.
    recall = [Fraction(0), *recall, Fraction(1)]
    precision = [Fraction(0), *precision, Fraction(0)]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    area = sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))
    return float(eleven), float(area)


def draw(
    n: int, classes: int, levels: int | None, share: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Scores with so many different values (None: all differ), and targets of 1, 0 and -1."""
    rng = torch.Generator().manual_seed(seed)
    scores = torch.rand(n, classes, generator=rng)
    if levels is not None:
        scores = (scores * levels).floor() / levels
    drawn = torch.rand(n, classes, generator=rng)
    targets = torch.where(drawn < share, 1, torch.where(drawn > 0.85, -1, 0)).to(torch.int8)
    targets[0] = 1  # no class without a positive
    return scores, targets


CASES = [
    (n, levels, share)
    for n in (1, 2, 9, 300)
    for levels in (None, 1, 3, 20)
    for share in (0.05, 0.5)
]


@pytest.mark.parametrize(("n", "levels", "share"), CASES)
def test_agrees_with_scikit_learn_torchmetrics_and_the_kit(
    n: int, levels: int | None, share: float
) -> None:
    scores, targets = draw(n, 6, levels, share, seed=n)
    found = multilabel_average_precision(scores, targets)
    for c in range(6):
        counted = targets[:, c] != -1
        s, hit = scores[counted, c], targets[counted, c] == 1
        step = average_precision_score(hit.numpy(), s.numpy())
        eleven, area = voc_loop(s.tolist(), hit.tolist(), int(hit.sum()))
        assert found.step[c].item() == pytest.approx(step, abs=1e-9)
        assert found.eleven_point[c].item() == pytest.approx(eleven, abs=1e-9)
        assert found.area[c].item() == pytest.approx(area, abs=1e-9)
    theirs = torchmetrics_ap(scores, targets.long(), num_labels=6, average="none", ignore_index=-1)
    torch.testing.assert_close(found.step.float(), theirs, rtol=0, atol=1e-6)


def test_the_order_of_items_does_not_matter() -> None:
    scores, targets = draw(200, 4, 5, 0.3, seed=1)
    shuffle = torch.randperm(200, generator=torch.Generator().manual_seed(2))
    for one, other in zip(
        multilabel_average_precision(scores, targets),
        multilabel_average_precision(scores[shuffle], targets[shuffle]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


def test_a_recall_of_three_tenths_is_reached_by_three_of_ten() -> None:
    """In floating point 3 * 0.1 > 3 / 10, and the level would be lost."""
    hit = torch.tensor([True] * 3 + [False] * 7)
    found = average_precision(torch.arange(10, 0, -1).float(), hit, positives=10)
    assert found.eleven_point.item() == pytest.approx(4 / 11)  # recalls 0, 0.1, 0.2 and 0.3
    assert found.area.item() == pytest.approx(0.3)


def test_detections_may_miss_objects_and_be_ignored() -> None:
    rng = np.random.default_rng(3)
    scores, hit = rng.integers(0, 8, 60) / 8, rng.random(60) < 0.4
    ignored = rng.random(60) < 0.2
    positives = int((hit & ~ignored).sum()) + 7  # seven objects were never detected
    found = average_precision(
        *map(torch.from_numpy, (scores, hit)), positives, torch.from_numpy(~ignored)
    )
    kept = ~ignored
    expected = voc_loop(scores[kept].tolist(), hit[kept].tolist(), positives)
    assert (found.eleven_point.item(), found.area.item()) == pytest.approx(expected, abs=1e-9)
    assert found.step.shape == ()


def test_columns_are_rankings_of_their_own() -> None:
    scores, targets = draw(50, 12, 4, 0.3, seed=4)
    shape = (50, 3, 4)
    grid = multilabel_average_precision(scores.view(shape), targets.view(shape))
    for c in range(12):
        alone = multilabel_average_precision(scores[:, c], targets[:, c])
        found = [of[c // 4, c % 4].item() for of in grid]
        assert found == pytest.approx([of.item() for of in alone], rel=1e-12)


def test_no_positive_is_nan_and_no_item_is_zero() -> None:
    targets = torch.tensor([[0, -1, 1], [0, -1, 1], [-1, -1, 0]])
    found = multilabel_average_precision(torch.ones(3, 3), targets)
    for ap in found:
        assert ap.isnan().tolist() == [True, True, False]
        assert ap[2].item() == pytest.approx(2 / 3)
    nothing = average_precision(torch.zeros(0), torch.zeros(0, dtype=torch.bool), positives=4)
    assert [ap.item() for ap in nothing] == [0, 0, 0]
    empty = average_precision(torch.zeros(0), torch.zeros(0, dtype=torch.bool), positives=0)
    assert all(ap.isnan() for ap in empty)


def test_nan_ranks_last_and_infinity_first() -> None:
    scores = torch.tensor([torch.nan, 0.5, torch.inf, -3.0])
    hit = torch.tensor([True, False, True, True])
    found = average_precision(scores, hit, positives=3)
    assert found.step.item() == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    # -infinity ties with NaN: one threshold.
    tied = average_precision(torch.tensor([torch.nan, -torch.inf]), torch.tensor([True, False]), 1)
    assert tied.step.item() == pytest.approx(0.5)
