"""k-nearest-neighbour classifier on frozen features: nothing is trained."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from bench.api import Encoder, EvalData, EvalSplit, Metric, Protocol, Scores
from bench.errors import BenchError
from bench.eval.scoring import (
    class_labels,
    classification_metrics,
    edges,
    require_finite,
    top_k_accuracy,
)
from bench.kernels import knn_topk

DEFAULT_K, DEFAULT_TEMPERATURE = 20, 0.07  # what DINO reports (arXiv:2104.14294)


class Knn(Protocol):
    """Top-1 accuracy of the vote of the k most cosine-similar pictures, weighted by exp(s / T).

    k and T are chosen on val with train as the bank; test is then read once, with train + val as
    the bank. `top1_default` is the accuracy at k = 20 and T = 0.07, wherever the bank holds 20.
    Wu et al., arXiv:1805.01978.
    """

    metric = Metric("top1")

    class Config(Protocol.Config):
        """The grid."""

        ks: tuple[PositiveInt, ...] = Field((10, 20, 100, 200), min_length=1)  # DINO's four
        # 0.07 is Wu's and DINO's, 0.1 lightly's; the others let the choice lie inside the grid.
        temperatures: tuple[PositiveFloat, ...] = Field((0.02, 0.04, 0.07, 0.1, 0.2), min_length=1)

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`; `seed` is unused, as nothing is random.

        Raises:
            BenchError: labels are missing, every k exceeds the bank, or features are not finite.
        """
        classes = data.info.num_classes

        def features(split: EvalSplit) -> Tensor:
            return normalize(require_finite(split.features(encoder))["output"])

        train, val = features(data.train), features(data.val)
        train_labels = class_labels(data.train)
        val_labels = class_labels(data.val, known=train_labels)
        ks = [k for k in cfg.ks if k <= len(train)]
        if not ks:
            raise BenchError(
                f"the smallest k is {min(cfg.ks)} but {data.info.name} has {len(train)} train "
                "pictures; set a smaller protocol.ks or use more pictures"
            )
        near, index = knn_topk(val, train, max(ks))
        chosen, val_top1 = (0, 0.0), -1.0
        for k, temperature in product(ks, cfg.temperatures):
            votes = vote(near[:, :k], train_labels[index[:, :k]], temperature, classes)
            top1 = top_k_accuracy(votes, val_labels, 1)
            if top1 > val_top1:
                chosen, val_top1 = (k, temperature), top1

        test_split = data.read_test()
        test, bank = features(test_split), torch.cat([train, val])
        test_labels = class_labels(test_split, known=train_labels)
        near, index = knn_topk(test, bank, min(max(chosen[0], DEFAULT_K), len(bank)))
        voters = torch.cat([train_labels, val_labels])[index]

        def votes_of(k: int, temperature: float) -> Tensor:
            return vote(near[:, :k], voters[:, :k], temperature, classes)

        votes = votes_of(*chosen)
        metrics = classification_metrics(votes, test_labels)
        if len(bank) >= DEFAULT_K:
            default = votes_of(DEFAULT_K, DEFAULT_TEMPERATURE)
            metrics["top1_default"] = top_k_accuracy(default, test_labels, 1)
        pick = dict(zip(("k", "temperature"), chosen, strict=True))
        return Scores(
            metrics=metrics,
            selected={
                **pick,
                "val_top1": val_top1,
                "selected_on": "val",
                "edge": edges(pick, k=ks, temperature=cfg.temperatures),
                "grid": {"k": ks, "temperature": list(cfg.temperatures)},
            },
            predictions=votes.argmax(1),
            labels=test_labels,
        )


def vote(near: Tensor, voters: Tensor, temperature: float, classes: int) -> Tensor:
    """The share of each class in the neighbours' vote, `[N, C]`, weighted by exp(s / T).

    Args:
        near: `[N, k]` similarities s, greatest first.
        voters: `[N, k]` class of each neighbour.
        temperature: T.
        classes: The number of classes C.
    """
    weight = (near / temperature).softmax(1)
    return weight.new_zeros(len(near), classes).scatter_add_(1, voters, weight)
