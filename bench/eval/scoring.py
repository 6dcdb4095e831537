"""How classification protocols score: labels that can be learnt, top-k accuracy, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bench.api import EvalSplit
from bench.errors import BenchError

BINS = 15  # Guo et al., arXiv:1706.04599


def class_labels(split: EvalSplit, known: Tensor | None = None) -> Tensor:
    """The labels of `split`, `[N]`.

    Args:
        split: The split to read.
        known: Labels of the training split, which must hold every class of `split`.

    Raises:
        BenchError: there are no labels, or a class is not among `known`.
    """
    if split.split.labels is None:
        raise BenchError(
            f"the {split.split.name} split of {split.info.name} has no labels; "
            "choose labelled data or another protocol"
        )
    labels = split.labels
    missing = [] if known is None else labels[~torch.isin(labels, known)].unique().tolist()
    if missing:
        raise BenchError(
            f"the {split.split.name} split of {split.info.name} has class "
            f"{split.info.classes[missing[0]]!r}, of which the train split has no picture; "
            "use more training pictures"
        )
    return labels


def require_finite(features: dict[str, Tensor]) -> dict[str, Tensor]:
    """`features`, if every number in them is finite.

    Raises:
        BenchError: a layer has NaN or infinity.
    """
    for layer, values in features.items():
        if not values.isfinite().all():
            raise BenchError(
                f"layer {layer!r} of the encoder gives NaN or infinity; "
                "its training has diverged: lower the learning rate"
            )
    return features


def top_k_accuracy(scores: Tensor, labels: Tensor, k: int) -> float:
    """The share of rows whose label is among the `k` highest scores, in percent.

    Of equal scores the lower class ranks first, as `argmax` has it; NaN ranks last.

    Args:
        scores: `[N, C]`.
        labels: `[N]`.
        k: At least 1.
    """
    own = scores.gather(1, labels[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    beaten = (scores < own) | ((scores == own) & (classes >= labels[:, None]))
    rank = scores.shape[1] - beaten.sum(1)
    return 100 * (rank < k).double().mean().item()


def expected_calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Mean gap of confidence and accuracy over 15 equal-width bins (arXiv:1706.04599), in percent.

    sum over bins B of |B| / N * |accuracy(B) - confidence(B)|.

    Args:
        probabilities: `[N, C]`, rows sum to 1.
        labels: `[N]`.
    """
    confidence, predicted = probabilities.double().max(1)
    gap = (predicted == labels).double() - confidence
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    # |B| cancels: |B| / N * |mean gap| = |sum of gaps| / N.
    gaps = gap.new_zeros(BINS).index_add(0, bins, gap)
    return 100 * gaps.abs().sum().item() / len(labels)


def classification_metrics(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """`top1`, `top5` (where there are more than 5 classes) and `ece`, in percent.

    Args:
        probabilities: `[N, C]`, rows sum to 1.
        labels: `[N]`.
    """
    metrics = {"top1": top_k_accuracy(probabilities, labels, 1)}
    if probabilities.shape[1] > 5:
        metrics["top5"] = top_k_accuracy(probabilities, labels, 5)
    return metrics | {"ece": expected_calibration_error(probabilities, labels)}


def edges(chosen: Mapping[str, float], **grid: Sequence[float]) -> list[str]:
    """The names in `grid` whose chosen value is its least or greatest: a wider grid may do better.

    Args:
        chosen: The chosen value by name.
        **grid: The values that there were to choose from, by name.
    """
    return [name for name, values in grid.items() if chosen[name] in (min(values), max(values))]
