"""Calibration of a linear classifier on frozen features, before and after temperature scaling."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from bench.api import Encoder, EvalData, EvalSplit, Metric, Protocol, Scores
from bench.eval.logistic import LAMBDAS, fit_path, search
from bench.eval.reliability import reliability_diagram
from bench.eval.scoring import (
    class_labels,
    expected_calibration_error,
    require_finite,
    top_k_accuracy,
)
from bench.eval.temperature import HIGHEST, LOWEST, fit_temperature
from bench.rng import generator

FOLDS = 5  # of test (ssl-transfer's temperature_scaling.py, arXiv:2011.13377)


class Calibration(Protocol):
    """How far a classifier's confidence is from its accuracy: the ECE of 15 equal-width bins.

    The classifier is that of `logreg`, fitted on train with the lambda that is best on val, and not
    again on train + val: the temperature is the one with the lowest negative log-likelihood on val,
    which has to be held out (Guo et al., arXiv:1706.04599). `ece`, `nll` and `brier` are of test
    before scaling, `*_scaled` after it; `top1` is the same for both. `ece_scaled_test_folds` is
    ssl-transfer's number (arXiv:2011.13377), which uses test labels: the temperature is fitted on a
    fifth of test and judged on the rest, for each fifth in turn.
    """

    metric = Metric("ece", higher_is_better=False)
    toy = {"lambdas": (1e-3, 1.0)}

    class Config(Protocol.Config):
        """The grid of `logreg`."""

        lambdas: tuple[PositiveFloat, ...] = Field(LAMBDAS, min_length=1)

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`; `seed` parts test into fifths.

        Raises:
            BenchError: labels are missing, or features are not finite.
        """

        def features(split: EvalSplit) -> Tensor:
            return require_finite(split.features(encoder))["output"]

        train, val = features(data.train), features(data.val)
        train_labels = class_labels(data.train)
        val_labels = class_labels(data.val, known=train_labels)
        classes = data.info.num_classes
        strength, selected = search(
            (train, train_labels), (val, val_labels), cfg.lambdas, classes=classes
        )
        (model,) = fit_path(train, train_labels, [strength], classes=classes)
        temperature = fit_temperature(model.logits(val), val_labels)
        selected["temperature"] = temperature
        selected["temperature_range"] = [LOWEST, HIGHEST]

        test_split = data.read_test()
        logits = model.logits(features(test_split)).double()
        labels = class_labels(test_split, known=train_labels)
        scaled = logits / temperature
        metrics = quality(logits, labels)
        metrics |= {f"{name}_scaled": value for name, value in quality(scaled, labels).items()}
        if len(labels) >= FOLDS:
            metrics["ece_scaled_test_folds"] = scaled_by_folds(logits, labels, seed)
        metrics["top1"] = top_k_accuracy(logits, labels, 1)
        shown = {"as trained": logits, f"temperature {temperature:.2f}": scaled}
        return Scores(
            metrics=metrics,
            selected=selected,
            predictions=logits.argmax(1),
            labels=labels,
            figure=reliability_diagram({title: x.softmax(1) for title, x in shown.items()}, labels),
        )


def quality(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """`ece` in percent, `nll` in nats and the `brier` score of softmax(logits).

    The Brier score is the squared distance from the label's one-hot vector, in [0, 2].
    """
    probabilities = logits.softmax(1)
    error = probabilities - one_hot(labels, logits.shape[1])
    return {
        "ece": expected_calibration_error(probabilities, labels),
        "nll": cross_entropy(logits, labels).item(),
        "brier": error.square().sum(1).mean().item(),
    }


def scaled_by_folds(logits: Tensor, labels: Tensor, seed: int) -> float:
    """The mean ECE in percent of four fifths of the rows, T being fitted on the other fifth."""
    order = torch.randperm(len(labels), generator=generator(seed, "folds")).to(labels.device)
    found = []
    for fold in order.tensor_split(FOLDS):
        rest = torch.ones_like(labels, dtype=torch.bool)
        rest[fold] = False
        temperature = fit_temperature(logits[fold], labels[fold])
        probabilities = (logits[rest] / temperature).softmax(1)
        found.append(expected_calibration_error(probabilities, labels[rest]))
    return sum(found) / len(found)
