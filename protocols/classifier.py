"""The method's own classifier: for methods that learn from labels, few or all."""

from __future__ import annotations

from typing import Any

from bench.api import Classifier as Takes
from bench.api import Encoder, EvalData, Metric, Protocol, Scores
from bench.errors import BenchError
from bench.eval.predicting import predict
from bench.eval.scoring import class_labels, classification_metrics, require_finite


class Classifier(Protocol):
    """Top-1 accuracy on test of the classifier that the method itself trained.

    Nothing is trained and nothing is chosen, so neither train nor val is looked at: the number
    that papers on semi-supervised and supervised learning report.
    """

    metric = Metric("top1")
    takes = Takes

    class Config(Protocol.Config):
        """No settings."""

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder`, a classifier, on `data`; `seed` is unused, as nothing is random.

        Raises:
            BenchError: the classifier is for another number of classes, labels are missing, or
                its logits are not finite.
        """
        assert isinstance(encoder, Takes)
        classes, test = data.info.num_classes, data.read_test()
        class_labels(test)
        logits, labels = predict(test, encoder.to(test.device).eval().classify)
        if logits.shape[1] != classes:
            raise BenchError(
                f"the classifier knows {logits.shape[1]} classes, and {data.info.name} has "
                f"{classes}; evaluate it on the data that it was trained on"
            )
        probabilities = require_finite({"logits": logits})["logits"].softmax(1)
        return Scores(
            metrics=classification_metrics(probabilities, labels),
            predictions=probabilities.argmax(1),
            labels=labels,
        )
