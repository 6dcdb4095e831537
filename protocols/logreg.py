"""Logistic regression by L-BFGS on frozen features, its strength chosen from 45 (SimCLR).

The linear protocol of the 12 data sets of Kornblith et al. (arXiv:1805.08974) and SimCLR
(arXiv:2002.05709, section 4.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from bench.api import Encoder, EvalData, EvalSplit, Metric, Protocol, Scores
from bench.eval.average_precision import multilabel_average_precision
from bench.eval.logistic import LAMBDAS, SEARCHING, fit_path, search
from bench.eval.sampling import kept
from bench.eval.scoring import class_labels, classification_metrics, edges, require_finite


class LogReg(Protocol):
    """Top-1 accuracy of multinomial logistic regression on the encoder's output.

    Pictures are not augmented and features not standardised. The strength lambda of the L2 penalty
    is the one with the highest top-1 accuracy on val (of equals, the lowest loss); the model is
    fitted again on train + val, and test is read once. `mean_per_class`, the mean of the classes'
    accuracies, is the published number of Aircraft, Pets, Caltech-101 and Flowers; `mAP_11`, where
    pictures have several labels, that of VOC 2007: one classifier per class against the rest,
    difficult pictures left out, with a lambda of its own, chosen by val mAP.
    """

    metric = Metric("top1")
    toy = {"lambdas": (1e-3, 1.0)}

    class Config(Protocol.Config):
        """The grid."""

        lambdas: tuple[PositiveFloat, ...] = Field(LAMBDAS, min_length=1)  # Kornblith's 45

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`; `seed` is unused, as nothing is random.

        Raises:
            BenchError: labels are missing, or features are not finite.
        """
        classes = data.info.num_classes

        def features(split: EvalSplit) -> Tensor:
            return require_finite(split.features(encoder))["output"]

        train, val = features(data.train), features(data.val)
        train_labels = class_labels(data.train)
        val_labels = class_labels(data.val, known=train_labels)
        strength, selected = search(
            (train, train_labels), (val, val_labels), cfg.lambdas, classes=classes
        )
        both, labels = torch.cat([train, val]), torch.cat([train_labels, val_labels])
        (model,) = fit_path(both, labels, [strength], classes=classes)
        selected["refit_converged"] = model.converged
        several = "multilabel" in data.info.has
        if several:
            present, present_val = _present(data.train, train), _present(data.val, val)
            found = _search_mean_ap((train, present), (val, present_val), cfg.lambdas)
            selected["multilabel"] = found
            present = torch.cat([present, present_val])
            (detectors,) = fit_path(both, present, [found["lambda"]], classes=classes)

        test_split = data.read_test()
        test = features(test_split)
        test_labels = class_labels(test_split, known=train_labels)
        probabilities = model.logits(test).softmax(1)
        predictions = probabilities.argmax(1)
        metrics = classification_metrics(probabilities, test_labels)
        metrics["mean_per_class"] = mean_per_class(predictions, test_labels)
        if several:
            metrics["mAP_11"] = _mean_ap(detectors.logits(test), _present(test_split, test))
        return Scores(
            metrics=metrics, selected=selected, predictions=predictions, labels=test_labels
        )


def _search_mean_ap(
    train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], strengths: Sequence[float]
) -> dict[str, Any]:
    """The strength whose detectors have the highest mAP on val; of equals, the greatest."""
    chosen, best, unfinished = 0.0, -1.0, []
    classes = train[1].shape[1]
    path = sorted(strengths, reverse=True)
    for model in fit_path(*train, path, classes=classes, tolerance=SEARCHING):
        value = _mean_ap(model.logits(val[0]), val[1])
        if value > best:
            chosen, best = model.strength, value
        if not model.converged:
            unfinished.append(model.strength)
    edge = edges({"lambda": chosen}, **{"lambda": strengths})
    return {"lambda": chosen, "val_mAP_11": best, "edge": edge, "not_converged": unfinished}


def mean_per_class(predictions: Tensor, labels: Tensor) -> float:
    """The mean over the classes of `labels` of the share that is recognised, in percent."""
    count = labels.bincount()
    right = labels[predictions == labels].bincount(minlength=len(count))
    there = count > 0
    return 100 * (right[there].double() / count[there]).mean().item()


def _mean_ap(scores: Tensor, present: Tensor) -> float:
    """11-point mAP in percent, over the classes that there are; 0 where there is none."""
    found = multilabel_average_precision(scores, present).eleven_point.nanmean()
    return 100 * found.nan_to_num(0.0).item()


def _present(split: EvalSplit, features: Tensor) -> Tensor:
    """Which classes each picture shows, `[N, C]` int8: 1 present, 0 absent, -1 difficult."""
    found = split.split.multilabel
    assert found is not None
    return found[kept(split, len(features))].to(features.device)
