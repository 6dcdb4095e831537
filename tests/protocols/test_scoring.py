"""Accuracy and calibration, against scikit-learn and torchmetrics."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from torchmetrics.functional.classification import multiclass_calibration_error

from bench.errors import BenchError
from bench.eval.scoring import (
    classification_metrics,
    edges,
    expected_calibration_error,
    require_finite,
    top_k_accuracy,
)


def random_predictions(n: int, classes: int, sharpness: float) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(n)
    scores = sharpness * torch.randn(n, classes, generator=rng)
    return scores.softmax(1), torch.randint(classes, (n,), generator=rng)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_accuracy_is_scikit_learns(k: int) -> None:
    probabilities, labels = random_predictions(501, 8, 2.0)
    expected = top_k_accuracy_score(labels, probabilities, k=k, labels=range(8))
    assert top_k_accuracy(probabilities, labels, k) == pytest.approx(100 * expected, abs=1e-9)


def test_ties_rank_the_lower_class_first_as_argmax_does() -> None:
    scores = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.4, 0.4]])
    assert top_k_accuracy(scores, scores.argmax(1), 1) == 100.0
    assert top_k_accuracy(scores, torch.tensor([1, 2]), 1) == 0.0
    assert top_k_accuracy(scores, torch.tensor([1, 2]), 2) == 100.0


def test_nan_scores_are_wrong() -> None:
    assert top_k_accuracy(torch.full((4, 3), torch.nan), torch.zeros(4, dtype=torch.long), 2) == 0.0


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 8.0])
def test_calibration_error_is_torchmetrics(sharpness: float) -> None:
    probabilities, labels = random_predictions(2000, 10, sharpness)
    expected = multiclass_calibration_error(probabilities, labels, num_classes=10, n_bins=15)
    ours = expected_calibration_error(probabilities, labels)
    assert ours == pytest.approx(100 * expected.item(), abs=1e-3)


def test_a_sure_classifier_is_off_by_its_error() -> None:
    sure = torch.eye(4)[torch.tensor([0, 1, 2, 3])]
    assert expected_calibration_error(sure, torch.tensor([0, 1, 2, 3])) == 0.0
    assert expected_calibration_error(sure, torch.tensor([0, 1, 2, 0])) == 25.0


def test_top5_is_given_only_where_it_says_something() -> None:
    assert set(classification_metrics(*random_predictions(20, 5, 1.0))) == {"top1", "ece"}
    assert set(classification_metrics(*random_predictions(20, 6, 1.0))) == {"top1", "top5", "ece"}


def test_edges_name_what_was_chosen_at_the_end_of_its_grid() -> None:
    assert edges({"k": 20, "T": 0.1}, k=(10, 20), T=(0.01, 0.1, 1.0)) == ["k"]
    assert edges({"k": 20, "T": 0.1}, k=(10, 20, 30), T=(0.01, 0.1, 1.0)) == []


def test_features_that_are_not_finite_are_named() -> None:
    good = torch.zeros(2, 2)
    assert require_finite({"a": good}) == {"a": good}
    with pytest.raises(BenchError, match=r"'conv2'.*NaN"):
        require_finite({"a": good, "conv2": torch.tensor([[0.0, torch.inf]])})
